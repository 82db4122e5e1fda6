//! Requests for certificates: made where the private key is, checked where certificates are issued.

use fedtt_wire::PublicKey as SignerKey;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue, KeyPair, PublicKey,
};

use crate::error::{IdentityError, content, make};

/// Longest request, PEM, in bytes.
pub const LONGEST: usize = 8192;

/// Makes a private key (ECDSA over P-256), PEM.
///
/// # Errors
/// When the system has no randomness to give.
pub fn private_key() -> Result<String, IdentityError> {
    KeyPair::generate().map(|key| key.serialize_pem()).map_err(make("a private key"))
}

/// Begins the organisational unit that states the key a device signs messages with.
const SIGNER: &str = "ed25519:";

/// Asks for a certificate of `name` for a private key; both PEM. A device that is not known yet states the key it
/// signs messages with as well.
///
/// # Errors
/// When the key is none.
pub fn request(name: &str, key: &str, signer: Option<&SignerKey>) -> Result<String, IdentityError> {
    let key = KeyPair::from_pem(key).map_err(content("a private key"))?;
    let make = make("a certificate request");
    let mut params = CertificateParams::new(Vec::new()).map_err(&make)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(signer) = signer {
        params.distinguished_name.push(DnType::OrganizationalUnitName, format!("{SIGNER}{signer}"));
    }
    params.serialize_request(&key).and_then(|request| request.pem()).map_err(make)
}

/// Whether a private key is that of a certificate; both PEM.
///
/// # Errors
/// When it is not, or either is not what it should be.
pub fn check_pair(certificate: &str, key: &str) -> Result<(), IdentityError> {
    let key = KeyPair::from_pem(key).map_err(content("a private key"))?;
    match crate::Inspected::read(certificate)?.public_key == key.public_key_raw() {
        true => Ok(()),
        false => Err(IdentityError::OtherKey),
    }
}

/// A request that whoever has the private key has made. What it asks for beside its name is not looked at: what a
/// certificate may be used for is up to who issues it.
pub struct CheckedRequest {
    name: String,
    signer: Option<SignerKey>,
    key: PublicKey,
}

impl CheckedRequest {
    /// Checks a request, PEM.
    ///
    /// # Errors
    /// When it is none, too long, or not signed with its own key.
    pub fn check(pem: &str) -> Result<Self, IdentityError> {
        const WHAT: &str = "a certificate request";
        if pem.len() > LONGEST {
            let problem = format!("{} bytes, more than {LONGEST}", pem.len());
            return Err(IdentityError::Content { what: WHAT, problem });
        }
        let request = CertificateSigningRequestParams::from_pem(pem).map_err(content(WHAT))?;
        let field = |kind| match request.params.distinguished_name.get(&kind) {
            Some(DnValue::Utf8String(text)) => Some(text.as_str()),
            Some(DnValue::PrintableString(text)) => Some(text.as_str()),
            Some(DnValue::Ia5String(text)) => Some(text.as_str()),
            _ => None,
        };
        let unnamed = || IdentityError::Content { what: WHAT, problem: "it has no common name".into() };
        let name = field(DnType::CommonName).ok_or_else(unnamed)?.to_string();
        let signer = field(DnType::OrganizationalUnitName).and_then(|text| text.strip_prefix(SIGNER)?.parse().ok());
        Ok(CheckedRequest { name, signer, key: request.public_key })
    }

    /// The key its device signs messages with, where it states one.
    pub fn signer(&self) -> Option<SignerKey> {
        self.signer
    }

    /// The name it asks for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, if it asks for `wanted`.
    ///
    /// # Errors
    /// When it asks for another name.
    pub fn named(self, wanted: &str) -> Result<Self, IdentityError> {
        match self.name == wanted {
            true => Ok(self),
            false => Err(IdentityError::OtherName { found: self.name, wanted: wanted.to_string() }),
        }
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.key
    }
}
