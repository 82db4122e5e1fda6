//! The key a host signs with.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fedtt_wire::{SigningKey, WireError};

use crate::files::write_secret;

/// Why a host has no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("the host's signing key {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds no key, or none can be made.
    #[error("the host's signing key {}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: WireError,
    },
}

/// The key in `path` (PKCS#8), made on first use: readable by its owner alone, there whole or not at all. Devices know the
/// host by it: with another one they no longer listen.
///
/// # Errors
/// When the file cannot be read or written, or holds something else.
pub fn host_key(path: &Path) -> Result<SigningKey, KeyError> {
    let io = |source| KeyError::Io { path: path.into(), source };
    let wrong = |source| KeyError::Key { path: path.into(), source };
    let kept = match std::fs::read(path) {
        Ok(kept) => kept,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            write_secret(path, &SigningKey::generate().map_err(wrong)?).map_err(io)?;
            std::fs::read(path).map_err(io)?
        }
        Err(error) => return Err(io(error)),
    };
    SigningKey::from_pkcs8(&kept).map_err(wrong)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_host_keeps_its_key_to_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.key");
        let made = host_key(&path).unwrap().public();
        assert_eq!(host_key(&path).unwrap().public(), made);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, b"no key").unwrap();
        let error = host_key(&path).unwrap_err().to_string();
        assert!(error.contains("host.key") && error.contains("Ed25519"), "{error}");
    }
}
