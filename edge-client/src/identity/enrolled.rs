//! What enrolment leaves behind, so that the device comes to the broker as who it is.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fedtt_identity::inspect::check_signed;
use fedtt_identity::message::Granted;
use fedtt_identity::request::check_pair;
use fedtt_identity::{IdentityError as Unfit, Inspected};
use fedtt_link::TlsFiles;
use fedtt_wire::{DeviceName, FleetName};
use serde::{Deserialize, Serialize};

use super::{Identity, IdentityError, read, refused};
use crate::files::write_atomically;

const RECORD: &str = "enrolled.toml";
const CERTIFICATE: &str = "device.pem";
const AUTHORITY: &str = "ca.pem";

/// A device's place in its fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Its name.
    pub name: DeviceName,
    /// Its fleet.
    pub fleet: FleetName,
    /// The broker's address for work.
    pub broker: String,
    /// Its address for when the certificate has expired.
    #[serde(default)]
    pub enroll: String,
    /// Groups the device belongs to by its enrolment.
    #[serde(default)]
    pub labels: Vec<String>,
    /// When the certificate was issued, in Unix seconds, by the host's clock.
    pub issued: u64,
    /// When it ends.
    pub expires: u64,
    /// Renewals so far.
    #[serde(default)]
    pub count: u64,
}

impl Enrolled {
    /// When the certificate is to be renewed, in Unix seconds: with a third of its life left.
    pub fn renew_at(&self) -> u64 {
        self.expires - self.expires.saturating_sub(self.issued) / 3
    }
}

impl Identity {
    /// The device's place in a fleet, if it has one.
    ///
    /// # Errors
    /// When its file cannot be read, or holds something else.
    pub fn enrolled(&self) -> Result<Option<Enrolled>, IdentityError> {
        enrolled(&self.folder)
    }

    /// Files to come to the broker with.
    pub fn tls(&self) -> TlsFiles {
        tls(&self.folder)
    }

    /// The certificate the device has.
    ///
    /// # Errors
    /// When there is none, or its file holds something else.
    pub fn certificate(&self) -> Result<Inspected, IdentityError> {
        let path = self.folder.join(CERTIFICATE);
        let text = fs::read_to_string(&path).map_err(refused("read", &path))?;
        Inspected::read(&text).map_err(unfit(&path))
    }

    /// Takes on a certificate, with its private key, PEM, and the authority's. Whoever reads the files while they are
    /// replaced sees a certificate with its own key.
    ///
    /// # Errors
    /// When they do not belong together, are not for this device, or files cannot be written.
    pub fn install(&self, granted: &Granted, key: &str, record: &Enrolled) -> Result<(), IdentityError> {
        let (certificate, authority) = (self.folder.join(CERTIFICATE), self.folder.join(AUTHORITY));
        let check = || {
            check_signed(&granted.certificate, &granted.ca)?;
            check_pair(&granted.certificate, key)?;
            let found = Inspected::read(&granted.certificate)?.name;
            match found == record.name.as_str() {
                true => Ok(()),
                false => Err(Unfit::OtherName { found, wanted: record.name.to_string() }),
            }
        };
        check().map_err(unfit(&certificate))?;
        write_atomically(&authority, granted.ca.as_bytes()).map_err(refused("write", &authority))?;
        let both = format!("{}\n{key}", granted.certificate.trim_end());
        write_atomically(&certificate, both.as_bytes()).map_err(refused("write", &certificate))?;
        // Last: with it the device counts as enrolled.
        let path = self.folder.join(RECORD);
        let content = |e: toml::ser::Error| IdentityError::Content { path: path.clone(), reason: e.to_string() };
        let text = toml::to_string(record).map_err(content)?;
        write_atomically(&path, text.as_bytes()).map_err(refused("write", &path))
    }
}

/// The place in a fleet that the identity in `folder` states, if it does.
pub(crate) fn enrolled(folder: &Path) -> Result<Option<Enrolled>, IdentityError> {
    let path = folder.join(RECORD);
    let Some(text) = read(&path)? else { return Ok(None) };
    toml::from_str(&text).map(Some).map_err(|e| IdentityError::Content { path, reason: e.to_string() })
}

/// Files to come to the broker with as the identity in `folder`.
pub(crate) fn tls(folder: &Path) -> TlsFiles {
    let certificate = folder.join(CERTIFICATE);
    TlsFiles { ca: Some(folder.join(AUTHORITY)), cert: Some(certificate.clone()), key: Some(certificate) }
}

pub(super) fn unfit(path: &Path) -> impl FnOnce(Unfit) -> IdentityError + '_ {
    move |e| IdentityError::Content { path: path.to_path_buf(), reason: e.to_string() }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &PathBuf) -> Result<(), IdentityError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(refused("remove", path)(error)),
        _ => Ok(()),
    }
}
