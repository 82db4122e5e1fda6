//! Who a device is, and whom it listens to: the files in the folder `identity` of its state.
//!
//! | file | what |
//! |---|---|
//! | `signing.key` | the device's Ed25519 key, PKCS#8, made here and never sent |
//! | `host.pub` | the host's public key, 64 hexadecimal digits: what another key signs is not listened to |
//! | `enrolled.toml` | the device's place in its fleet, once it is enrolled |
//! | `device.pem` | its certificate and, made here and never sent, that one's private key (ECDSA over P-256) |
//! | `ca.pem` | the fleet's authority: whom the broker's certificate is to be by |
//! | `enrolling.toml`, `renewing.toml`, `requested.key` | a request for a certificate that is under way |
//! | `session` | the last number that may have been given to one of its connections |

mod asking;
mod by_hand;
mod enrolled;
mod enrolling;
mod naming;
mod sessions;
#[cfg(test)]
mod tests_of_enrolment;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fedtt_wire::{PublicKey, SigningKey, WireError};

use crate::files::{make_folder, write_atomically, write_secret};

pub use asking::{Asked, Asking};
pub use by_hand::Carried;
pub use enrolled::Enrolled;
pub(crate) use enrolled::{enrolled, tls};
pub use enrolling::{EnrollError, Step, enroll, renew};
pub use naming::own_name;
pub use sessions::Sessions;

const SIGNING_KEY: &str = "signing.key";
const HOST_KEY: &str = "host.pub";
const SESSION: &str = "session";

/// Why a device has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system refused.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// create, read, write or remove.
        verb: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The signing key cannot be used or made.
    #[error("{}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: WireError,
    },
    /// A file holds something else.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another host is known already.
    #[error("{} names another host, {known}: remove the file if this device is to follow {offered}", path.display())]
    OtherHost {
        /// The file.
        path: PathBuf,
        /// The key in it.
        known: PublicKey,
        /// The other.
        offered: PublicKey,
    },
}

impl IdentityError {
    /// Whether it is the system's fault, which may pass: a disk that fails or is full, a file of another user.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, IdentityError::Io { .. })
    }
}

fn refused<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> IdentityError + 'a {
    move |source| IdentityError::Io { verb, path: path.to_path_buf(), source }
}

/// A device's identity. Clones share the key.
#[derive(Clone, Debug)]
pub struct Identity {
    folder: PathBuf,
    key: Arc<SigningKey>,
}

impl Identity {
    /// The identity kept in the folder `identity` of a device's state, made on first use.
    ///
    /// # Errors
    /// When files cannot be read or written, or hold something else.
    pub fn open(state: &Path) -> Result<Self, IdentityError> {
        let folder = state.join("identity");
        make_folder(&folder, 0o700).map_err(refused("create", &folder))?;
        let path = folder.join(SIGNING_KEY);
        let wrong = |source| IdentityError::Key { path: path.clone(), source };
        let kept = match fs::read(&path) {
            Ok(kept) => kept,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                write_secret(&path, &SigningKey::generate().map_err(wrong)?).map_err(refused("write", &path))?;
                fs::read(&path).map_err(refused("read", &path))?
            }
            Err(error) => return Err(refused("read", &path)(error)),
        };
        let key = Arc::new(SigningKey::from_pkcs8(&kept).map_err(wrong)?);
        Ok(Identity { folder, key })
    }

    /// The folder all of it is in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the device signs with.
    pub fn key(&self) -> &Arc<SigningKey> {
        &self.key
    }

    /// The host's key, once it is known.
    ///
    /// # Errors
    /// When its file cannot be read, or holds something else.
    pub fn host(&self) -> Result<Option<PublicKey>, IdentityError> {
        let path = self.folder.join(HOST_KEY);
        let Some(text) = read(&path)? else { return Ok(None) };
        let refuse = |e: fedtt_wire::seal::NoPublicKey| IdentityError::Content { path, reason: e.to_string() };
        text.trim().parse().map(Some).map_err(refuse)
    }

    /// Listens to the host of this key from now on, and to no other.
    ///
    /// # Errors
    /// When another is known already, or the file cannot be written.
    pub fn pin_host(&self, offered: PublicKey) -> Result<(), IdentityError> {
        let path = self.folder.join(HOST_KEY);
        match self.host()? {
            Some(known) if known == offered => Ok(()),
            Some(known) => Err(IdentityError::OtherHost { path, known, offered }),
            None => self.replace_host(offered),
        }
    }

    /// As [`Identity::pin_host`], also where another is known: for enrolment, which an operator asked for.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn replace_host(&self, key: PublicKey) -> Result<(), IdentityError> {
        let path = self.folder.join(HOST_KEY);
        write_atomically(&path, format!("{key}\n").as_bytes()).map_err(refused("write", &path))
    }

    /// Numbers for the device's connections, each above all before.
    ///
    /// # Errors
    /// When their file cannot be read or written, or holds something else.
    pub fn sessions(&self) -> Result<Sessions, IdentityError> {
        Sessions::open(self.folder.join(SESSION))
    }
}

/// A file's text, if there is one.
fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused("read", path)(error)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_device_keeps_its_key_to_itself_and_the_host_it_knows() {
        let state = tempfile::tempdir().unwrap();
        let made = Identity::open(state.path()).unwrap();
        let again = Identity::open(state.path()).unwrap();
        assert_eq!(made.key().public(), again.key().public());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(made.folder()), mode(&made.folder().join(SIGNING_KEY))), (0o700, 0o600));

        let (first, other) = (PublicKey::from([1; 32]), PublicKey::from([2; 32]));
        assert_eq!(made.host().unwrap(), None);
        made.pin_host(first).unwrap();
        made.pin_host(first).unwrap();
        let error = made.pin_host(other).unwrap_err().to_string();
        assert!(error.contains("host.pub") && error.contains(&first.to_string()), "{error}");
        assert_eq!(again.host().unwrap(), Some(first));
        again.replace_host(other).unwrap();
        assert_eq!(made.host().unwrap(), Some(other));
        fs::write(made.folder().join(HOST_KEY), "mallory").unwrap();
        assert!(made.host().unwrap_err().to_string().contains("host.pub"));
    }
}
