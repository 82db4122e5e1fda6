//! What can go wrong with the identities of a fleet.

use std::io;
use std::path::{Path, PathBuf};

use fedtt_identity::IdentityError;
use fedtt_wire::names::NameError;

use super::KeyError;
use crate::store::StoreError;

/// The fleet's identities cannot be kept, or what is asked cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A certificate, token or request is not what it should be.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The host's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A name cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It cannot be done as things are.
    #[error("{0}")]
    Refused(String),
}

/// `Io` for `map_err`.
pub(super) fn of(path: &Path) -> impl FnOnce(io::Error) -> FleetError + '_ {
    move |source| FleetError::Io { path: path.to_path_buf(), source }
}
