//! The adapters a device holds, ready for use: `<state>/adapters/<run>/`.
//!
//! | file | what |
//! |---|---|
//! | `current.safetensors` | the last that passed its check |
//! | `previous.safetensors` | the one before it |
//! | `candidate.safetensors` | one that is being checked |
//! | `refused.safetensors` | the last that did not pass, for people to look at |
//!
//! `current` is there from the first adapter on, whenever one looks: it is replaced in one go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fedtt_wire::RunId;

use crate::files::{make_folder, sync_folder};

const CURRENT: &str = "current.safetensors";
const PREVIOUS: &str = "previous.safetensors";
const CANDIDATE: &str = "candidate.safetensors";
const REFUSED: &str = "refused.safetensors";

/// Adapters of so many runs are kept.
pub const RUNS: usize = 32;

/// A device's adapters, by run.
#[derive(Clone, Debug)]
pub struct Adapters {
    folder: PathBuf,
}

impl Adapters {
    /// Those of a device that keeps its state in the folder `state`.
    pub fn of(state: &Path) -> Self {
        Adapters { folder: state.join("adapters") }
    }

    /// Where a run's current adapter is, or would be.
    pub fn current(&self, run: &RunId) -> PathBuf {
        self.place(run, CURRENT)
    }

    /// Where the one before it is, or would be.
    pub fn previous(&self, run: &RunId) -> PathBuf {
        self.place(run, PREVIOUS)
    }

    fn place(&self, run: &RunId, file: &str) -> PathBuf {
        self.folder.join(run.as_str()).join(file)
    }

    /// Where one that is to be checked is written.
    ///
    /// # Errors
    /// When the run's folder cannot be made.
    pub fn candidate(&self, run: &RunId) -> io::Result<PathBuf> {
        make_folder(&self.folder.join(run.as_str()), 0o777)?;
        Ok(self.place(run, CANDIDATE))
    }

    /// The candidate passed: it is the current one from here on, and the one that was is the previous.
    ///
    /// # Errors
    /// When the system refuses; the current adapter stays what it was then.
    pub fn accept(&self, run: &RunId) -> io::Result<()> {
        let current = self.current(run);
        if current.exists() {
            // A second name first: at no time is there no current adapter.
            let kept = self.place(run, ".new-previous");
            match fs::remove_file(&kept) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::hard_link(&current, &kept).or_else(|_| fs::copy(&current, &kept).map(drop))?;
            fs::rename(&kept, self.previous(run))?;
        }
        fs::rename(self.place(run, CANDIDATE), &current)?;
        sync_folder(&self.folder.join(run.as_str()))?;
        self.forget_oldest()
    }

    /// The candidate did not pass; the current adapter stays. Returns where the candidate is to be looked at.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn refuse(&self, run: &RunId) -> io::Result<PathBuf> {
        let refused = self.place(run, REFUSED);
        fs::rename(self.place(run, CANDIDATE), &refused)?;
        Ok(refused)
    }

    /// The run whose adapter was replaced last.
    pub fn newest(&self) -> Option<RunId> {
        self.by_age().pop().map(|(_, run)| run)
    }

    /// Runs with a current adapter, the oldest first.
    fn by_age(&self) -> Vec<(SystemTime, RunId)> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let run = |entry: fs::DirEntry| {
            let run = RunId::new(entry.file_name().to_str()?).ok()?;
            Some((fs::metadata(self.current(&run)).ok()?.modified().ok()?, run))
        };
        let mut runs: Vec<_> = entries.flatten().filter_map(run).collect();
        runs.sort();
        runs
    }

    fn forget_oldest(&self) -> io::Result<()> {
        let mut runs = self.by_age();
        let most = runs.len().saturating_sub(RUNS);
        runs.drain(..most).try_for_each(|(_, run)| fs::remove_dir_all(self.folder.join(run.as_str())))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run(name: &str) -> RunId {
        RunId::new(name).unwrap()
    }

    #[test]
    fn what_passes_takes_the_place_of_what_was_and_what_does_not_leaves_it() {
        let folder = tempfile::tempdir().unwrap();
        let adapters = Adapters::of(folder.path());
        let r = run("r-1");
        assert!(adapters.newest().is_none());
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        for content in ["one", "two", "three"] {
            fs::write(adapters.candidate(&r).unwrap(), content).unwrap();
            adapters.accept(&r).unwrap();
        }
        assert_eq!((text(&adapters.current(&r)), text(&adapters.previous(&r))), ("three".into(), "two".into()));
        fs::write(adapters.candidate(&r).unwrap(), "bad").unwrap();
        let refused = adapters.refuse(&r).unwrap();
        assert_eq!((text(&refused), text(&adapters.current(&r))), ("bad".into(), "three".into()));
        assert_eq!(adapters.newest(), Some(r.clone()));
        let files: Vec<_> = fs::read_dir(folder.path().join("adapters/r-1")).unwrap().collect();
        assert_eq!(files.len(), 3, "{files:?}");
    }

    #[test]
    fn the_oldest_runs_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let adapters = Adapters::of(folder.path());
        for n in 0..RUNS + 3 {
            let r = run(&format!("r-{n}"));
            let candidate = adapters.candidate(&r).unwrap();
            fs::write(&candidate, "x").unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n as u64);
            fs::File::options().write(true).open(&candidate).unwrap().set_modified(time).unwrap();
            adapters.accept(&r).unwrap();
        }
        assert_eq!(adapters.by_age().len(), RUNS);
        assert!(!adapters.current(&run("r-2")).exists() && adapters.current(&run("r-3")).exists());
    }
}
