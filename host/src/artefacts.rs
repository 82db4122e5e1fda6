//! `runs/<id>/`: what a run leaves behind.
//!
//! | file | what |
//! |---|---|
//! | `plan.toml` | the plan as devices have it |
//! | `events.jsonl` | what happened, a line each, appended |
//! | `rounds.jsonl` | one [`RoundRecord`](crate::record::RoundRecord) per line |
//! | `summary.json` | the [`RunSummary`](crate::record::RunSummary) |
//! | `report.html` | both for people |
//! | `adapter.safetensors` | the best adapter so far, at every pause and at the end |

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fedtt_edge::source::Source;
use fedtt_wire::{Plan, RunId};
use ndarray::ArrayD;

use crate::files::{open_log, write_atomically};
use crate::model::{ModelError, write_adapter};
use crate::report::{self, RunReport};
use crate::run::RunEvent;

/// A run's folder cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArtefactError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The adapter cannot be written.
    #[error(transparent)]
    Adapter(#[from] ModelError),
}

/// The folders of all runs.
#[derive(Debug)]
pub struct Artefacts {
    runs: PathBuf,
    logs: BTreeMap<String, File>,
}

fn content(path: &Path, reason: impl ToString) -> ArtefactError {
    ArtefactError::Content { path: path.to_path_buf(), reason: reason.to_string() }
}

impl Artefacts {
    /// The runs in the folder `runs`, which is made if there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(runs: &Path) -> Result<Self, ArtefactError> {
        std::fs::create_dir_all(runs).map_err(|source| ArtefactError::Io { path: runs.into(), source })?;
        Ok(Artefacts { runs: runs.to_path_buf(), logs: BTreeMap::new() })
    }

    /// The folder of a run, which is made if there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, run: &str) -> Result<PathBuf, ArtefactError> {
        let folder = self.runs.join(run);
        match std::fs::create_dir_all(&folder) {
            Ok(()) => Ok(folder),
            Err(source) => Err(ArtefactError::Io { path: folder, source }),
        }
    }

    /// Appends events to the logs of their runs.
    ///
    /// # Errors
    /// When a log cannot be written.
    pub fn events(&mut self, events: &[RunEvent]) -> Result<(), ArtefactError> {
        let mut lines: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for event in events {
            let lines = lines.entry(&event.run).or_default();
            serde_json::to_writer(&mut *lines, event).map_err(|e| content(Path::new("events.jsonl"), e))?;
            lines.push(b'\n');
        }
        for (run, lines) in lines {
            let path = self.folder(run)?.join("events.jsonl");
            let refuse = |source| ArtefactError::Io { path: path.clone(), source };
            let mut log = match self.logs.remove(run) {
                Some(log) => log,
                None => open_log(&path).map_err(refuse)?,
            };
            log.write_all(&lines).map_err(refuse)?;
            self.logs.insert(run.to_string(), log);
        }
        Ok(())
    }

    /// Writes plan, rounds, summary and report.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn report(&mut self, report: &RunReport) -> Result<(), ArtefactError> {
        let folder = self.folder(report.summary.run.as_str())?;
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            write_atomically(&path, bytes).map_err(|source| ArtefactError::Io { path, source })
        };
        let plan = toml::to_string(&report.plan).map_err(|e| content(&folder.join("plan.toml"), e))?;
        write("plan.toml", plan.as_bytes())?;
        let mut rounds = Vec::new();
        for round in &report.rounds {
            serde_json::to_writer(&mut rounds, round).map_err(|e| content(&folder.join("rounds.jsonl"), e))?;
            rounds.push(b'\n');
        }
        write("rounds.jsonl", &rounds)?;
        let mut summary =
            serde_json::to_vec_pretty(&report.summary).map_err(|e| content(&folder.join("summary.json"), e))?;
        summary.push(b'\n');
        write("summary.json", &summary)?;
        write("report.html", report::html(std::slice::from_ref(report)).as_bytes())?;
        if report.summary.status.is_final() {
            self.logs.remove(report.summary.run.as_str());
        }
        Ok(())
    }

    /// Lets go of the folder of a run that was removed, and with `files` removes it too. Returns it where it stays.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&mut self, run: &RunId, files: bool) -> Result<Option<PathBuf>, ArtefactError> {
        self.logs.remove(run.as_str());
        // A run's id is a plain name: nothing but a folder, or a link, within `runs`.
        let folder = self.runs.join(run.as_str());
        if !files {
            return Ok(Some(folder).filter(|folder| folder.exists()));
        }
        match std::fs::remove_dir_all(&folder) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ArtefactError::Io { path: folder, source }),
            _ => Ok(None),
        }
    }

    /// Writes an adapter and returns its path.
    ///
    /// # Errors
    /// When the values are not the plan's, or it cannot be written.
    pub fn adapter(
        &self,
        run: &RunId,
        plan: &Plan,
        source: &Source,
        values: &[ArrayD<f32>],
    ) -> Result<PathBuf, ArtefactError> {
        let path = self.folder(run.as_str())?.join("adapter.safetensors");
        write_adapter(&path, plan, source, values)?;
        Ok(path)
    }
}

/// Whether the folder of a run in `runs` says what `summary` says: its report is what is written last.
pub fn is_current(runs: &Path, summary: &crate::record::RunSummary) -> bool {
    let written = read_report(&runs.join(summary.run.as_str()));
    written.is_ok_and(|written| written.summary == *summary)
}

/// Reads back what [`Artefacts::report`] wrote into `folder`.
///
/// # Errors
/// When a file is missing or not understood.
pub fn read_report(folder: &Path) -> Result<RunReport, ArtefactError> {
    let read = |name: &str| {
        let path = folder.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok((text, path)),
            Err(source) => Err(ArtefactError::Io { path, source }),
        }
    };
    let (text, path) = read("summary.json")?;
    let summary = serde_json::from_str(&text).map_err(|e| content(&path, e))?;
    let (text, path) = read("plan.toml")?;
    let plan = toml::from_str(&text).map_err(|e| content(&path, e))?;
    let (text, path) = read("rounds.jsonl")?;
    let rounds = text.lines().map(serde_json::from_str).collect::<Result<_, _>>().map_err(|e| content(&path, e))?;
    Ok(RunReport { summary, plan, rounds })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_folder_of_the_run_is_removed_and_only_if_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, beside) = (folder.path().join("runs"), folder.path().join("beside"));
        let mut artefacts = Artefacts::open(&runs).unwrap();
        let id = |name: &str| RunId::new(name).unwrap();
        std::fs::create_dir(&beside).unwrap();
        for file in
            [beside.join("a"), artefacts.folder("a-1").unwrap().join("a"), artefacts.folder("a-11").unwrap().join("a")]
        {
            std::fs::write(file, "").unwrap();
        }
        std::os::unix::fs::symlink(&beside, runs.join("a-2")).unwrap();
        assert_eq!(artefacts.remove(&id("a-1"), false).unwrap(), Some(runs.join("a-1")));
        assert!(runs.join("a-1/a").is_file());
        for run in ["a-1", "a-2", "a-3"] {
            assert_eq!(artefacts.remove(&id(run), true).unwrap(), None);
            assert!(!runs.join(run).exists(), "{run}");
            assert_eq!(artefacts.remove(&id(run), false).unwrap(), None);
        }
        assert!(beside.join("a").is_file() && runs.join("a-11/a").is_file());
    }
}
