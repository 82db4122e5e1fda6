//! The fleet's certificate authority.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fedtt_wire::{DeviceName, FleetName};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use serde::{Deserialize, Serialize};

use crate::error::{IdentityError, content, make};
use crate::inspect::Inspected;
use crate::request::CheckedRequest;

/// How the host calls itself to the broker.
pub const HOST: &str = "fedtt-host";
/// How devices that are not enrolled yet call themselves to the broker.
pub const ENROLL: &str = "enroll";
/// What the MQTT client id of whoever talks to a fleet's own broker begins with. A broker that takes no other, and to which who has a
/// certificate is the name in it, lets nobody who merely enrols push out a host or device: none of their names begins so.
pub const CLIENT_ID: &str = "e-";
/// How long an authority lasts, in seconds: ten years.
pub const AUTHORITY_LIFE: u64 = 10 * 365 * 86_400;

/// The number of a certificate; hexadecimal digits in text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(Vec<u8>);

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, PEM.
    pub pem: String,
    /// Its number.
    pub serial: Serial,
    /// Its end.
    pub expires: u64,
}

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// To come to a broker.
    Client,
    /// To be one.
    Server,
}

/// A certificate authority with its private key (ECDSA over P-256).
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    expires: u64,
}

impl Authority {
    /// Makes the authority of a fleet: its certificate, valid for [`AUTHORITY_LIFE`], and its private key, both PEM.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate(fleet: &FleetName, now: u64) -> Result<(String, String), IdentityError> {
        let make = make("a certificate authority");
        let key = KeyPair::generate().map_err(&make)?;
        let mut params = params(&format!("FedTT fleet {fleet}"), now + AUTHORITY_LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(&make)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// The authority of a certificate and its private key, both PEM.
    ///
    /// # Errors
    /// When either is not what it should be, or they do not belong together.
    pub fn new(certificate: &str, key: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pem(key).map_err(content("a private key"))?;
        let inspected = Inspected::read(certificate)?;
        if !inspected.authority {
            let problem = format!("it is the certificate of `{}`", inspected.name);
            return Err(IdentityError::Content { what: "a certificate authority", problem });
        }
        if inspected.public_key != key.public_key_raw() {
            return Err(IdentityError::OtherKey);
        }
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(content("a certificate authority"))?;
        Ok(Authority { issuer, certificate: certificate.to_string(), expires: inspected.not_after })
    }

    /// Its certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its end: nothing it signs lasts longer.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// Issues a device's certificate: for the device to come to the broker with, until `expires`. It begins in 1970, as the
    /// clocks of boards without a battery do.
    ///
    /// # Errors
    /// When the name is kept for the fleet itself.
    pub fn device(&self, request: &CheckedRequest, device: &DeviceName, expires: u64) -> Result<Issued, IdentityError> {
        check_name(device)?;
        self.issue(request, device.as_str(), Use::Client, &[], expires)
    }

    /// Issues the certificate the host comes to the broker with.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn host(&self, request: &CheckedRequest, expires: u64) -> Result<Issued, IdentityError> {
        self.issue(request, HOST, Use::Client, &[], expires)
    }

    /// Issues a broker's certificate, for the host names and addresses it is reached at.
    ///
    /// # Errors
    /// When there is none, or one of them is no host name.
    pub fn broker(&self, request: &CheckedRequest, at: &[String], expires: u64) -> Result<Issued, IdentityError> {
        let Some(first) = at.first() else {
            let problem = "it has no host name; give the one devices reach the broker at".to_string();
            return Err(IdentityError::Make { what: "a broker's certificate", problem });
        };
        self.issue(request, first, Use::Server, at, expires)
    }

    fn issue(
        &self,
        request: &CheckedRequest,
        name: &str,
        usage: Use,
        at: &[String],
        expires: u64,
    ) -> Result<Issued, IdentityError> {
        let expires = expires.min(self.expires);
        let serial = Serial::random()?;
        let mut params = params(name, expires)?;
        params.subject_alt_names = CertificateParams::new(at).map_err(make("a certificate"))?.subject_alt_names;
        params.serial_number = Some(SerialNumber::from_slice(&serial.0));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match usage {
            Use::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Use::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(request.public_key(), &self.issuer).map_err(make("a certificate"))?;
        Ok(Issued { pem: certificate.pem(), serial, expires })
    }

    /// The list of revoked certificates, PEM, for brokers to refuse them by; valid as long as the authority is, since a
    /// broker that holds an outdated list refuses everybody. `made` is to grow from list to list: of two that are valid,
    /// the later one counts.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn revoke<'a>(
        &self,
        revoked: impl IntoIterator<Item = (&'a Serial, u64)>,
        number: u64,
        made: u64,
    ) -> Result<String, IdentityError> {
        let entry = |(serial, at): (&Serial, u64)| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&serial.0),
            revocation_time: date_time_ymd(1970, 1, 1) + since_1970(at),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(1970, 1, 1) + since_1970(made),
            next_update: date_time_ymd(1970, 1, 1) + since_1970(self.expires.max(made + 1)),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.into_iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let make = make("a list of revoked certificates");
        params.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(make)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Whether a device may be called so.
///
/// # Errors
/// When the fleet keeps the name for itself.
pub fn check_name(device: &DeviceName) -> Result<(), IdentityError> {
    match [HOST, ENROLL].contains(&device.as_str()) || device.as_str().starts_with(CLIENT_ID) {
        true => Err(IdentityError::Reserved(device.to_string())),
        false => Ok(()),
    }
}

fn params(name: &str, expires: u64) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(make("a certificate"))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(expires);
    Ok(params)
}

/// `seconds` since 1970; beyond the year 9999, which certificates cannot state, its end.
fn since_1970(seconds: u64) -> Duration {
    const LAST: u64 = 253_402_300_799;
    Duration::from_secs(seconds.min(LAST))
}

impl Serial {
    fn random() -> Result<Self, IdentityError> {
        let mut bytes = crate::token::random::<16>()?;
        // Positive and of full length, as RFC 5280, section 4.1.2.2, asks for.
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Ok(Serial(bytes.to_vec()))
    }

    pub(crate) fn from_der(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(bytes.len().saturating_sub(1));
        Serial(bytes[zeros..].to_vec())
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Serial {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let bytes = crate::token::unhex(text).filter(|bytes| !bytes.is_empty() && bytes.len() <= 32);
        let wrong =
            || IdentityError::Content { what: "a certificate's number", problem: "it is not in hexadecimal".into() };
        bytes.map(|bytes| Serial::from_der(&bytes)).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Serial {
    type Error = IdentityError;
    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> String {
        serial.to_string()
    }
}
