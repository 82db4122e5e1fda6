//! Where a device keeps the bundles it fetched, or was given by hand: `<state>/bundles/<hash>`.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fedtt_backbone::bundle::MANIFEST;

use super::{FetchError, is_hash, refused};
use crate::files::{make_folder, sync_folder};
use crate::source::{Available, SourceError};

/// Ends the names of folders that bundles are fetched into.
const PART: &str = ".part";
/// Begins the names of folders on their way out.
const GONE: &str = ".gone-";

/// The folder of a device's bundles.
#[derive(Clone, Debug)]
pub struct Shelf {
    folder: PathBuf,
}

/// A bundle in use: it is not removed as long as this lives.
#[derive(Debug)]
pub struct Held {
    _lock: File,
}

/// A folder on the shelf.
struct Item {
    name: String,
    bytes: u64,
    used: SystemTime,
}

impl Shelf {
    /// The shelf of a device that keeps its state in the folder `state`.
    pub fn of(state: &Path) -> Self {
        Shelf { folder: state.join("bundles") }
    }

    /// Where the bundle of a hash is, or would be.
    pub fn place(&self, hash: &str) -> PathBuf {
        self.folder.join(hash)
    }

    /// Where it is put together.
    pub(super) fn part(&self, hash: &str) -> PathBuf {
        self.folder.join(format!("{hash}{PART}"))
    }

    /// Makes the folder.
    pub(super) fn make(&self) -> Result<&Path, FetchError> {
        make_folder(&self.folder, 0o777).map_err(refused("create", &self.folder))?;
        Ok(&self.folder)
    }

    /// Moves a bundle that is whole to its place.
    pub(super) fn install(&self, hash: &str) -> Result<PathBuf, FetchError> {
        let (part, place) = (self.part(hash), self.place(hash));
        sync_folder(&part).map_err(refused("write", &part))?;
        if place.exists() {
            // Damaged: whole ones are not fetched again.
            self.remove(hash)?;
        }
        fs::rename(&part, &place).map_err(refused("rename", &part))?;
        sync_folder(&self.folder).map_err(refused("write", &self.folder))?;
        Ok(place)
    }

    /// The bundle of a hash, if it is here; it counts as used.
    ///
    /// # Errors
    /// When it is damaged, or is another than its folder's name says.
    pub fn find(&self, hash: &str) -> Result<Option<Available>, SourceError> {
        let place = self.place(hash);
        if !is_hash(hash) || !place.is_dir() {
            return Ok(None);
        }
        let found = Available::find(Some(&place))?;
        if found.hash != hash {
            return Err(SourceError::Changed { name: found.name, found: found.hash });
        }
        if let Ok(manifest) = File::options().write(true).open(place.join(MANIFEST)) {
            // Only the order in which bundles are removed depends on it.
            let _ = manifest.set_modified(SystemTime::now());
        }
        Ok(Some(found))
    }

    /// Keeps a bundle from being removed, by this process or another.
    ///
    /// # Errors
    /// When it is not there.
    pub fn hold(&self, hash: &str) -> Result<Held, FetchError> {
        let path = self.place(hash).join(MANIFEST);
        let lock = File::open(&path).map_err(refused("read", &path))?;
        lock.lock_shared().map_err(refused("lock", &path))?;
        Ok(Held { _lock: lock })
    }

    /// Hashes of the bundles that are here and can be opened.
    pub fn whole(&self) -> Vec<String> {
        let opens = |hash: &String| Available::find(Some(&self.place(hash))).is_ok_and(|found| found.hash == *hash);
        self.items().into_iter().map(|item| item.name).filter(|name| is_hash(name)).filter(opens).collect()
    }

    fn items(&self) -> Vec<Item> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let item = |entry: fs::DirEntry| {
            let name = entry.file_name().to_str()?.to_string();
            let files = fs::read_dir(entry.path()).ok()?.flatten().filter_map(|file| file.metadata().ok());
            let bytes = files.map(|file| file.len()).sum();
            let manifest = fs::metadata(entry.path().join(MANIFEST)).or_else(|_| entry.metadata()).ok()?;
            Some(Item { name, bytes, used: manifest.modified().unwrap_or(SystemTime::UNIX_EPOCH) })
        };
        entries.flatten().filter_map(item).collect()
    }

    /// Bytes of all that is here.
    pub(super) fn bytes(&self) -> u64 {
        self.items().iter().map(|item| item.bytes).sum()
    }

    /// Removes what was used longest ago until at most `keep` bytes are left, but nothing of `in_use`, and nothing another
    /// process holds. Returns what was removed.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn make_room(&self, keep: u64, in_use: &BTreeSet<String>) -> Result<Vec<String>, FetchError> {
        let mut items = self.items();
        items.sort_by_key(|item| item.used);
        let mut total: u64 = items.iter().map(|item| item.bytes).sum();
        let mut removed = Vec::new();
        for Item { name, bytes, .. } in items {
            let hash = name.strip_suffix(PART).unwrap_or(&name);
            let leftover = name.starts_with(GONE);
            if leftover || (total > keep && is_hash(hash) && !in_use.contains(hash) && !self.is_held(&name)) {
                self.remove(&name)?;
                total -= bytes;
                removed.push(name);
            }
        }
        Ok(removed)
    }

    fn is_held(&self, name: &str) -> bool {
        let Ok(manifest) = File::open(self.folder.join(name).join(MANIFEST)) else { return false };
        matches!(manifest.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// In one go, as far as others can see.
    fn remove(&self, name: &str) -> Result<(), FetchError> {
        let path = self.folder.join(name);
        let gone = match name.starts_with(GONE) {
            true => path.clone(),
            false => self.folder.join(format!("{GONE}{name}")),
        };
        if gone != path {
            let _ = fs::remove_dir_all(&gone);
            fs::rename(&path, &gone).map_err(refused("remove", &path))?;
        }
        fs::remove_dir_all(&gone).map_err(refused("remove", &gone))
    }
}
