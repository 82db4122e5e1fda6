//! What the host knows of its runs beside the runs themselves: where their bundles are, and the files it measures them on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fedtt_edge::source::{Source, SourceError};
use serde::{Deserialize, Serialize};

use crate::examples::Reading;
use crate::files::write_atomically;

/// Why a bundle is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry cannot be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No run named it.
    #[error("nobody here knows where bundle {0} is")]
    Unknown(String),
    /// It is not where it was.
    #[error("bundle {hash}: {source}")]
    Source {
        /// Its hash.
        hash: String,
        /// Why.
        source: Box<SourceError>,
    },
    /// There is another in its place.
    #[error("{} holds bundle {found} now, not {wanted}", folder.display())]
    Changed {
        /// Where.
        folder: PathBuf,
        /// What was there.
        wanted: String,
        /// What is there.
        found: String,
    },
}

/// As it is kept in a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Known {
    /// Hash to folder; none for the embedded encoder.
    bundles: BTreeMap<String, Option<PathBuf>>,
    /// Run to the files it is measured on.
    tests: BTreeMap<String, Vec<PathBuf>>,
    /// Run to how they are read.
    #[serde(default)]
    readings: BTreeMap<String, Reading>,
}

/// Files a run is measured on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tests {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) reading: Reading,
}

#[derive(Debug, Default)]
struct Contents {
    known: Known,
    open: BTreeMap<String, Arc<Source>>,
}

/// Bundles and test files by run.
#[derive(Debug)]
pub(crate) struct Registry {
    path: PathBuf,
    contents: Mutex<Contents>,
}

impl Registry {
    pub(crate) fn open(path: &Path) -> Result<Self, RegistryError> {
        let refuse = |reason: String| RegistryError::File { path: path.to_path_buf(), reason };
        let known = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Known::default(),
            Err(error) => return Err(refuse(error.to_string())),
        };
        let contents = Contents { known, open: BTreeMap::new() };
        Ok(Registry { path: path.to_path_buf(), contents: Mutex::new(contents) })
    }

    fn change(&self, change: impl FnOnce(&mut Contents)) -> Result<(), RegistryError> {
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let before = contents.known.clone();
        change(&mut contents);
        if contents.known == before {
            return Ok(());
        }
        let refuse = |reason: String| RegistryError::File { path: self.path.clone(), reason };
        let bytes = serde_json::to_vec_pretty(&contents.known).map_err(|e| refuse(e.to_string()))?;
        write_atomically(&self.path, &bytes).map_err(|e| refuse(e.to_string()))
    }

    /// Remembers where a bundle is; no folder means the embedded encoder.
    pub(crate) fn add(&self, source: Source, folder: Option<PathBuf>) -> Result<Arc<Source>, RegistryError> {
        let source = Arc::new(source);
        self.change(|contents| {
            contents.known.bundles.insert(source.hash.clone(), folder);
            contents.open.insert(source.hash.clone(), source.clone());
        })?;
        Ok(source)
    }

    /// Remembers the files a run is measured on.
    pub(crate) fn add_tests(&self, run: &str, tests: Tests) -> Result<(), RegistryError> {
        self.change(|contents| {
            contents.known.tests.insert(run.to_string(), tests.files);
            contents.known.readings.insert(run.to_string(), tests.reading);
        })
    }

    /// Forgets all but what belongs to these runs and bundles.
    pub(crate) fn keep_only(&self, runs: &BTreeSet<&str>, bundles: &BTreeSet<&str>) -> Result<(), RegistryError> {
        self.change(|Contents { known, open }| {
            known.tests.retain(|run, _| runs.contains(run.as_str()));
            known.readings.retain(|run, _| runs.contains(run.as_str()));
            known.bundles.retain(|hash, _| bundles.contains(hash.as_str()));
            open.retain(|hash, _| bundles.contains(hash.as_str()));
        })
    }

    /// The files a run is measured on.
    pub(crate) fn tests(&self, run: &str) -> Tests {
        let contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &contents.known;
        Tests {
            files: known.tests.get(run).cloned().unwrap_or_default(),
            reading: known.readings.get(run).cloned().unwrap_or_default(),
        }
    }

    /// Where a bundle is; no folder means the embedded encoder.
    pub(crate) fn folder(&self, hash: &str) -> Result<Option<PathBuf>, RegistryError> {
        let contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        contents.known.bundles.get(hash).cloned().ok_or_else(|| RegistryError::Unknown(hash.to_string()))
    }

    /// The bundle of a hash, opened once.
    pub(crate) fn source(&self, hash: &str) -> Result<Arc<Source>, RegistryError> {
        let folder = self.folder(hash)?;
        let contents = || self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = contents().open.get(hash) {
            return Ok(source.clone());
        }
        // Opened without the lock, which the host's loop takes as well.
        let source = Source::open(folder.as_deref())
            .map_err(|source| RegistryError::Source { hash: hash.to_string(), source: Box::new(source) })?;
        if source.hash != hash {
            let folder = folder.unwrap_or_else(|| "the embedded encoder".into());
            return Err(RegistryError::Changed { folder, wanted: hash.to_string(), found: source.hash });
        }
        let source = Arc::new(source);
        contents().open.insert(hash.to_string(), source.clone());
        Ok(source)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_no_run_needs_is_forgotten_also_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known.json");
        let registry = Registry::open(&path).unwrap();
        let source = Arc::new(Source::open(None).unwrap());
        registry
            .change(|contents| {
                for hash in ["kept", "gone"] {
                    contents.known.bundles.insert(hash.into(), Some(folder.path().join(hash)));
                    contents.open.insert(hash.into(), source.clone());
                }
            })
            .unwrap();
        for run in ["a-1", "a-2"] {
            registry.add_tests(run, Tests { files: vec![run.into()], reading: Reading::default() }).unwrap();
        }
        registry.keep_only(&["a-2"].into(), &["kept"].into()).unwrap();
        assert_eq!(Arc::strong_count(&source), 2, "the bundle that is gone is not held");
        for registry in [registry, Registry::open(&path).unwrap()] {
            assert!(registry.tests("a-1").files.is_empty() && registry.tests("a-2").files == [PathBuf::from("a-2")]);
            assert!(matches!(registry.folder("gone"), Err(RegistryError::Unknown(_))));
            assert_eq!(registry.folder("kept").unwrap(), Some(folder.path().join("kept")));
        }
    }
}
