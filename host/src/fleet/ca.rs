//! The fleet's certificate authority on disk: `ca.pem`, and `ca.key` for its owner alone.

use std::path::Path;

use fedtt_identity::Authority;
use fedtt_wire::FleetName;

use super::FleetError;
use super::error::of;
use crate::files::{write_atomically, write_secret};

/// The authority kept in a folder, made on first use.
///
/// # Errors
/// When its files cannot be read or written, or do not belong together.
pub(super) fn authority(folder: &Path, fleet: &FleetName, now: u64) -> Result<Authority, FleetError> {
    let (certificate, key) = (folder.join("ca.pem"), folder.join("ca.key"));
    if !certificate.exists() && !key.exists() {
        let (made, private) = Authority::generate(fleet, now)?;
        // The certificate first: without its key there is no authority yet, and this begins anew.
        let fresh = folder.join(".ca.pem");
        write_atomically(&fresh, made.as_bytes()).map_err(of(&fresh))?;
        write_secret(&key, private.as_bytes()).map_err(of(&key))?;
        std::fs::rename(&fresh, &certificate).map_err(of(&certificate))?;
    }
    let text = |path: &Path| std::fs::read_to_string(path).map_err(of(path));
    Ok(Authority::new(&text(&certificate)?, &text(&key)?)?)
}
