//! Numbers for a device's connections: what it says of itself in a later one goes before what it said in an earlier one,
//! whoever repeats that.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::{IdentityError, read, refused};
use crate::files::write_atomically;

/// Numbers set aside by one write to the disk.
const RESERVED: u64 = 1 << 20;

/// Numbers for connections, each above all before it, whatever was lost in between. Clones share them.
#[derive(Clone, Debug)]
pub struct Sessions {
    shared: Arc<Mutex<Counter>>,
}

#[derive(Debug)]
struct Counter {
    path: PathBuf,
    last: u64,
    /// What the file says: no number above it has been given.
    reserved: u64,
}

impl Sessions {
    pub(super) fn open(path: PathBuf) -> Result<Self, IdentityError> {
        let refuse = |path| IdentityError::Content { path, reason: "not a number; remove it".into() };
        let before = match read(&path)? {
            Some(text) => text.trim().parse().map_err(|_| refuse(path.clone()))?,
            None => 0,
        };
        // Above the clock as well: a file from a backup would go back to numbers already given.
        let mut counter = Counter { path, last: crate::daemon::now().max(before), reserved: 0 };
        if counter.reserve().is_err() {
            // A disk that takes nothing keeps no device from saying so.
            counter.last = unreserved(counter.last, before, counter.age());
        }
        Ok(Sessions { shared: Arc::new(Mutex::new(counter)) })
    }

    /// The number of the connection that stands, or was tried last.
    pub fn current(&self) -> u64 {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    /// The number of a new connection.
    pub fn begin(&self) -> u64 {
        let mut counter = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        counter.last += 1;
        if counter.last > counter.reserved {
            // Without a disk to write to the next start may repeat some, which the clock makes up for.
            let _ = counter.reserve();
        }
        counter.last
    }
}

/// Where to begin with nothing written down: whoever began in the same way before, with the same file, began lower, as `age`
/// milliseconds have passed since that was written.
fn unreserved(last: u64, before: u64, age: u64) -> u64 {
    last.max(before.saturating_add(age))
}

impl Counter {
    /// Milliseconds since the file was written; 0 without one.
    fn age(&self) -> u64 {
        let written = std::fs::metadata(&self.path).and_then(|file| file.modified());
        written.ok().and_then(|at| at.elapsed().ok()).map_or(0, |age| age.as_millis() as u64)
    }

    fn reserve(&mut self) -> Result<(), IdentityError> {
        let reserved = self.last + RESERVED;
        write_atomically(&self.path, reserved.to_string().as_bytes()).map_err(refused("write", &self.path))?;
        self.reserved = reserved;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn without_a_disk_each_start_begins_higher_all_the_same() {
        // The file was written a second ago, for numbers of the quarter of an hour to come.
        let (now, before) = (1_000_000, 2_000_000);
        let first = unreserved(before.max(now), before, 1_000);
        let second = unreserved(before.max(now + 500), before, 1_500);
        assert!(first > before && second > first);
        assert_eq!(unreserved(now, 0, 0), now);
    }

    #[test]
    fn numbers_grow_over_restarts_and_a_clock_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session");
        let first = Sessions::open(path.clone()).unwrap();
        let (a, b) = (first.begin(), first.clone().begin());
        assert!(b > a && first.current() == b && a > crate::daemon::now() - 10_000);
        let again = Sessions::open(path.clone()).unwrap().begin();
        assert!(again > b);
        let ahead = again + 1_000_000_000_000;
        std::fs::write(&path, ahead.to_string()).unwrap();
        assert!(Sessions::open(path.clone()).unwrap().begin() > ahead);
        std::fs::write(&path, "many").unwrap();
        assert!(Sessions::open(path).unwrap_err().to_string().contains("session"));
    }
}
