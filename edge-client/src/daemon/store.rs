//! The files of a device's runs.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fedtt_wire::RunId;

use crate::files::{UNFINISHED, make_folder, open_or_make, sync_folder, write_atomically};
use crate::round::{Found, Slot};

/// What the files of a run are called.
const SLOTS: [(Slot, &str); 2] = [(Slot::State, "state.ft"), (Slot::Work, "work.ft")];

/// How far runs were followed.
const LEDGER: &str = "ledger.ft";

/// Why what must outlive the process is not written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// create, write, read, remove, ...
        verb: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses the folder.
    #[error("{} is in use by another device process; give each its own with --state", .0.display())]
    InUse(PathBuf),
    /// The process is ending.
    #[error("writing was interrupted: {0}")]
    Interrupted(String),
}

/// A folder with a folder for each run. One process has it at a time.
#[derive(Clone, Debug)]
pub struct StateDir {
    runs: PathBuf,
    ledger: PathBuf,
    /// Held as long as any clone lives.
    _lock: Arc<File>,
}

fn refused<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { verb, path: path.to_path_buf(), source }
}

impl StateDir {
    /// Opens the folder, creating it if need be, and reads what is in it for a participant.
    ///
    /// # Errors
    /// When it cannot be created or read, or another process has it.
    pub fn open(folder: &Path) -> Result<(Self, Found), StoreError> {
        let runs = folder.join("runs");
        // Keys and what was learnt of private text: nobody else's to read.
        make_folder(&runs, 0o700).map_err(refused("create", &runs))?;
        let path = folder.join("lock");
        // Of a disk that can only be read, what is there is read.
        let lock = open_or_make(&path, File::options().write(true)).or_else(|e| File::open(&path).map_err(|_| e));
        let lock = lock.map_err(refused("create", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(folder.to_path_buf())),
            Err(TryLockError::Error(source)) => return Err(refused("lock", &path)(source)),
        }
        let store = StateDir { runs, ledger: folder.join(LEDGER), _lock: Arc::new(lock) };
        remove_unfinished(folder)?;
        let found = Found { files: store.read()?, ledger: read(&store.ledger)? };
        Ok((store, found))
    }

    fn read(&self) -> Result<Vec<(RunId, Slot, Vec<u8>)>, StoreError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.runs).map_err(refused("read", &self.runs))? {
            let entry = entry.map_err(refused("read", &self.runs))?;
            // What is no run's was not put there by this program.
            let Some(run) = entry.file_name().to_str().and_then(|name| RunId::new(name).ok()) else { continue };
            remove_unfinished(&entry.path())?;
            for (slot, name) in SLOTS {
                files.extend(read(&entry.path().join(name))?.map(|bytes| (run.clone(), slot, bytes)));
            }
        }
        Ok(files)
    }

    fn path(&self, run: &RunId, slot: Slot) -> PathBuf {
        let name = SLOTS.iter().find(|(of, _)| *of == slot).map_or("", |(_, name)| name);
        self.runs.join(run.as_str()).join(name)
    }

    /// Writes a file of a run; it is there whole or not at all, whatever happens.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn save(&self, run: &RunId, slot: Slot, bytes: &[u8]) -> Result<(), StoreError> {
        let folder = self.runs.join(run.as_str());
        if !folder.is_dir() {
            make_folder(&folder, 0o700).map_err(refused("create", &folder))?;
            sync_folder(&self.runs).map_err(refused("write", &self.runs))?;
        }
        let path = self.path(run, slot);
        write_atomically(&path, bytes).map_err(refused("write", &path))
    }

    /// Writes how far runs were followed; whole or not at all, as all else.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remember(&self, bytes: &[u8]) -> Result<(), StoreError> {
        write_atomically(&self.ledger, bytes).map_err(refused("write", &self.ledger))
    }

    /// Removes all files of a run.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn forget(&self, run: &RunId) -> Result<(), StoreError> {
        let folder = self.runs.join(run.as_str());
        match fs::remove_dir_all(&folder) {
            Ok(()) => sync_folder(&self.runs).map_err(refused("write", &self.runs)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(refused("remove", &folder)(error)),
        }
    }

    /// Puts a damaged file aside, for people to look at, in place of the one before.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn set_aside(&self, run: &RunId, slot: Slot) -> Result<(), StoreError> {
        let path = self.path(run, slot);
        fs::rename(&path, path.with_extension("damaged")).map_err(refused("rename", &path))
    }
}

/// A file, if there is one.
fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused("read", path)(error)),
    }
}

fn remove_unfinished(folder: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(refused("read", folder))? {
        let entry = entry.map_err(refused("read", folder))?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            // Where that cannot be done, it lies there and is nobody's.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}
