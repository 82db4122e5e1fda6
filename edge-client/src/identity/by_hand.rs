//! Enrolment without a connection: a request to carry to the host, and its certificate carried back.

use std::path::PathBuf;

use fedtt_identity::Inspected;
use fedtt_identity::message::Granted;
use fedtt_identity::request::{private_key, request};
use fedtt_wire::{DeviceName, FleetName, PublicKey};

use super::enrolled::{Enrolled, remove, unfit};
use super::{Identity, IdentityError, read, refused};
use crate::files::write_atomically;

const KEY: &str = "requested.key";

/// What was carried back.
#[derive(Clone, Debug)]
pub struct Carried {
    /// The certificate, PEM.
    pub certificate: String,
    /// The authority's, PEM.
    pub ca: String,
    /// What the host signs with.
    pub host: PublicKey,
    /// The fleet.
    pub fleet: FleetName,
    /// The broker's address.
    pub broker: String,
}

impl Identity {
    /// A request for a certificate of `name`, PEM, to carry to the host. Its private key stays here; asked again, it is for
    /// the same key.
    ///
    /// # Errors
    /// When the request cannot be made, or its key be kept.
    pub fn request(&self, name: &DeviceName) -> Result<String, IdentityError> {
        let path = self.folder.join(KEY);
        let key = match read(&path)? {
            Some(key) => key,
            None => {
                let key = private_key().map_err(unfit(&path))?;
                write_atomically(&path, key.as_bytes()).map_err(refused("write", &path))?;
                key
            }
        };
        request(name.as_str(), &key, Some(&self.key.public())).map_err(unfit(&path))
    }

    /// Takes on the certificate that was carried back.
    ///
    /// # Errors
    /// When it is not for the key a request was made with here, or files cannot be written.
    pub fn carry_back(&self, carried: Carried, now: u64) -> Result<Enrolled, IdentityError> {
        let path: PathBuf = self.folder.join(KEY);
        let missing = || IdentityError::Content {
            path: path.clone(),
            reason: "it is not there: the certificate is for a request made with `fedtt-edge enroll --csr FILE` here"
                .into(),
        };
        let key = read(&path)?.ok_or_else(missing)?;
        let inspected = Inspected::read(&carried.certificate).map_err(unfit(&path))?;
        let wrong =
            |e: fedtt_wire::names::NameError| IdentityError::Content { path: path.clone(), reason: e.to_string() };
        let record = Enrolled {
            name: DeviceName::new(inspected.name).map_err(wrong)?,
            fleet: carried.fleet,
            broker: carried.broker.clone(),
            enroll: String::new(),
            labels: Vec::new(),
            issued: now.min(inspected.not_after),
            expires: inspected.not_after,
            count: 0,
        };
        let granted = Granted {
            certificate: carried.certificate,
            ca: carried.ca,
            host: carried.host,
            broker: carried.broker,
            enroll: String::new(),
        };
        self.install(&granted, &key, &record)?;
        self.replace_host(carried.host)?;
        remove(&path)?;
        Ok(record)
    }
}
