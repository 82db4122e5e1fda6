//! Bundles and adapters from a web server: of the host, or any other.
//!
//! [`Http`] gets files, on from where a download broke off, and believes nothing that a hash does not confirm: a server can
//! waste a device's time up to a limit, but neither its disk nor its adapters. [`bundle()`] gets a bundle's parts into a folder
//! beside its place on the [`Shelf`] and moves it there once it is whole.

mod bundle;
mod http;
mod shelf;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use fedtt_backbone::bundle::BundleError;
use serde::Deserialize;

pub use bundle::{Step, bundle};
pub use http::{Http, Wanted};
pub use shelf::{Held, Shelf};

/// Where a device gets the bundles it lacks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FetchSettings {
    /// The folder of bundles, each in a folder named by its hash; or an address with `{hash}` in it. None are fetched without.
    pub bundles: Option<String>,
    /// Certificate authorities of an https server, PEM; without, those of the system.
    pub ca: Option<PathBuf>,
    /// Larger bundles are not fetched, in bytes.
    pub max_bytes: u64,
    /// Bytes a second at most.
    pub rate: Option<u64>,
    /// Bundles that were fetched and are not in use are kept up to so many bytes.
    pub keep_bytes: u64,
}

impl Default for FetchSettings {
    fn default() -> Self {
        FetchSettings { bundles: None, ca: None, max_bytes: 4 << 30, rate: None, keep_bytes: 8 << 30 }
    }
}

/// Why something is not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// What is to be fetched is not named as it should be.
    #[error("{0}")]
    Request(String),
    /// The server is not reached, or the connection broke.
    #[error("{url}: {reason}")]
    Unreached {
        /// What was asked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The server answers otherwise than with the file.
    #[error("{url}: {reason}")]
    Answer {
        /// What was asked for.
        url: String,
        /// How it answers.
        reason: String,
    },
    /// What came is not what was to come.
    #[error("{url}: what came has SHA-256 {found}, not {wanted}")]
    Hash {
        /// What was asked for.
        url: String,
        /// The hash it should have.
        wanted: String,
        /// The hash it has.
        found: String,
    },
    /// It is too large for this device.
    #[error("{what} has {bytes} bytes; {limit}")]
    TooLarge {
        /// What.
        what: String,
        /// Its size.
        bytes: u64,
        /// What does not allow it.
        limit: String,
    },
    /// What came is no bundle.
    #[error("{url}: {reason}")]
    Manifest {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The bundle cannot be opened.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Certificates cannot be used.
    #[error("certificate authorities of {0}")]
    Authorities(String),
    /// The disk cannot be written or read.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// create, write, ...
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Whoever asked for it no longer wants it.
    #[error("stopped")]
    Stopped,
}

impl FetchError {
    /// Whether another attempt may succeed.
    fn is_passing(&self) -> bool {
        matches!(self, FetchError::Unreached { .. })
    }
}

fn refused(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.to_path_buf();
    move |source| FetchError::Io { verb, path, source }
}

/// Whether something at `address` may be fetched.
pub fn is_address(address: &str) -> bool {
    let rest = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace))
}

/// Whether `text` is a SHA-256 in lower-case hexadecimal.
pub fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
