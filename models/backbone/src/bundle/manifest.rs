//! `manifest.json`: what parts a bundle has, and their hashes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{OPTIONAL, REQUIRED};

/// The bundle format this crate writes and reads.
pub const FORMAT: u32 = 1;

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";

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

    /// Whether it may be a bundle's: of this format, with the parts that a bundle has and no others, and the hash of these.
    /// Its file names are safe in a path then.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("has format {}, not {FORMAT}", self.format));
        }
        if self.hash != content_hash(&self.parts) {
            return Err("its hash is not that of the parts it lists".into());
        }
        if let Some(missing) = REQUIRED.iter().find(|name| !self.parts.contains_key(**name)) {
            return Err(format!("lists no {missing}"));
        }
        match self.parts.keys().find(|name| !is_part(name)) {
            Some(name) => Err(format!("lists a part `{name}` that no bundle has")),
            None => Ok(()),
        }
    }
}

/// Whether bundles have a part of this name.
pub fn is_part(name: &str) -> bool {
    REQUIRED.contains(&name) || OPTIONAL.contains(&name)
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
