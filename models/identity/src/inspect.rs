//! Reading certificates.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use crate::authority::Serial;
use crate::error::{IdentityError, content};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Whose it is: its common name.
    pub name: String,
    /// Who issued it.
    pub issuer: String,
    /// Its number.
    pub serial: Serial,
    /// Its beginning; 0 for what begins earlier.
    pub not_before: u64,
    /// Its end.
    pub not_after: u64,
    /// The host names and addresses it is for.
    pub at: Vec<String>,
    /// Whether it is an authority's.
    pub authority: bool,
    /// Whether it may be used to come to a broker.
    pub client: bool,
    /// Whether it may be used to be one.
    pub server: bool,
    /// The public key, as it stands in the certificate.
    pub public_key: Vec<u8>,
}

impl Inspected {
    /// Reads the first certificate of a PEM file.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(pem: &str) -> Result<Self, IdentityError> {
        with(pem, Self::of)
    }

    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// When it is none.
    pub fn read_der(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(content("a certificate"))?;
        Ok(Self::of(&certificate))
    }

    fn of(certificate: &X509Certificate<'_>) -> Self {
        let name = |name: &x509_parser::x509::X509Name<'_>| {
            let common = name.iter_common_name().next().and_then(|name| name.as_str().ok());
            common.map_or_else(|| name.to_string(), str::to_string)
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        let shown = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => (*name).to_string(),
            GeneralName::IPAddress(bytes) => address(bytes),
            other => other.to_string(),
        };
        let usage = certificate.extended_key_usage().ok().flatten();
        let seconds = |time: ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        Inspected {
            name: name(certificate.subject()),
            issuer: name(certificate.issuer()),
            serial: Serial::from_der(certificate.raw_serial()),
            not_before: seconds(certificate.validity().not_before),
            not_after: seconds(certificate.validity().not_after),
            at: names.map_or_else(Vec::new, |names| names.value.general_names.iter().map(shown).collect()),
            authority: certificate.is_ca(),
            client: usage.as_ref().is_none_or(|usage| usage.value.client_auth || usage.value.any),
            server: usage.as_ref().is_none_or(|usage| usage.value.server_auth || usage.value.any),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
        }
    }

    /// Whether it is valid now, as far as the clock goes.
    ///
    /// # Errors
    /// When it is not valid yet, or not any more.
    pub fn check_time(&self, now: u64) -> Result<(), IdentityError> {
        let name = || self.name.clone();
        match now {
            now if now < self.not_before => {
                Err(IdentityError::NotYetValid { name: name(), not_before: self.not_before, now })
            }
            now if now > self.not_after => Err(IdentityError::Expired { name: name(), not_after: self.not_after, now }),
            _ => Ok(()),
        }
    }
}

/// Whether `authority` signed `certificate`; both PEM.
///
/// # Errors
/// When it did not, or either is no certificate.
pub fn check_signed(certificate: &str, authority: &str) -> Result<(), IdentityError> {
    with(authority, |authority| {
        with(certificate, |certificate| {
            let signed = authority.is_ca() && certificate.verify_signature(Some(authority.public_key())).is_ok();
            match signed {
                true => Ok(()),
                false => Err(IdentityError::Stranger(Inspected::of(certificate).name)),
            }
        })?
    })?
}

fn with<T>(pem: &str, read: impl FnOnce(&X509Certificate<'_>) -> T) -> Result<T, IdentityError> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(content("a certificate in PEM"))?;
    if pem.label != "CERTIFICATE" {
        let problem = format!("it is a {}", pem.label.to_lowercase());
        return Err(IdentityError::Content { what: "a certificate in PEM", problem });
    }
    let certificate = pem.parse_x509().map_err(content("a certificate"))?;
    Ok(read(&certificate))
}

fn address(bytes: &[u8]) -> String {
    match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(v4), _) => std::net::Ipv4Addr::from(v4).to_string(),
        (_, Ok(v6)) => std::net::Ipv6Addr::from(v6).to_string(),
        _ => format!("{bytes:02x?}"),
    }
}

/// A time, in seconds since 1970, as people read it.
pub fn date(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    time.map_or_else(
        || format!("{seconds} s after 1970"),
        |time| {
            let time = time.to_datetime();
            let (date, hour, minute, second) = (time.date(), time.hour(), time.minute(), time.second());
            format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
        },
    )
}
