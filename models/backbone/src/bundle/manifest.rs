//! `manifest.json`: what parts a bundle has, and their hashes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The bundle format this crate writes and reads.
pub const FORMAT: u32 = 1;

/// The manifest's file name.
pub(super) const MANIFEST: &str = "manifest.json";

/// A bundle's table of contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version: [`FORMAT`].
    pub format: u32,
    /// SHA-256 over the parts' hashes and names; what names the bundle wherever it goes.
    pub hash: String,
    /// Parts by file name.
    pub parts: BTreeMap<String, Part>,
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// The manifest of these parts.
    pub(super) fn of(parts: BTreeMap<String, Part>) -> Self {
        Manifest { format: FORMAT, hash: content_hash(&parts), parts }
    }

    /// Whether the hash is that of the parts listed.
    pub(super) fn is_consistent(&self) -> bool {
        self.hash == content_hash(&self.parts)
    }
}

/// SHA-256 of the lines `<sha256>  <name>`, in order of names: what `sha256sum` prints for the parts.
fn content_hash(parts: &BTreeMap<String, Part>) -> String {
    let mut listing = String::new();
    for (name, part) in parts {
        // Writing to a string cannot fail.
        let _ = writeln!(listing, "{}  {name}", part.sha256);
    }
    hex(&Sha256::digest(listing.as_bytes()))
}

/// Bytes as lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
