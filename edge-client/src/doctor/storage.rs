//! The state folder and the disk it is on.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Check, size};
use crate::daemon::{StateDir, StoreError};
use crate::files::{make_folder, probe};

/// With less than this no round's update may fit.
const LEAST: u64 = 16 << 20;

/// With less than this it will not last for long.
const FEW: u64 = 256 << 20;

pub(super) fn check(state: &Path) -> Vec<Check> {
    vec![folder(state), disk(state)]
}

fn folder(state: &Path) -> Check {
    let name = state.display();
    let owner = "have it belong to the user the device runs as, or name another with --set state=DIR";
    if let Err(error) = make_folder(state, 0o700) {
        return Check::fail("state", format!("cannot create {name}: {error}"), owner);
    }
    if let Err(error) = probe(state) {
        return Check::fail("state", format!("cannot write in {name}: {error}"), owner);
    }
    let mode = fs::metadata(state).map_or(0, |metadata| metadata.permissions().mode() & 0o777);
    let unfinished = match StateDir::open(state) {
        Ok(_) => "",
        Err(StoreError::InUse(_)) => ", in use by a device that runs",
        Err(error) => return Check::fail("state", error.to_string(), owner),
    };
    if mode & 0o077 != 0 {
        let finding = format!("{name} is writable{unfinished}, and others may look into it (mode {mode:o})");
        return Check::warn("state", finding, format!("chmod 700 {name}"));
    }
    Check::ok("state", format!("{name} is writable{unfinished}, mode {mode:o}"))
}

fn disk(state: &Path) -> Check {
    let free = match rustix::fs::statvfs(state) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Check::fail("disk", "the state folder is not there", "see above");
        }
        Err(error) => return Check::warn("disk", format!("free space is not told: {error}"), "look with `df`"),
    };
    let finding = format!("{} free for the state", size(free));
    match free {
        0..LEAST => Check::fail("disk", finding, "make room: updates are kept on disk until they are delivered"),
        LEAST..FEW => Check::warn("disk", finding, "make room before bundles are fetched"),
        _ => Check::ok("disk", finding),
    }
}
