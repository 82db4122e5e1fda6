//! Removing runs that are over: from the database, from all the host remembers beside it, and, if asked to, from the disk.

use std::collections::BTreeSet;

use super::answer::{Answer, refused};
use super::hub::Hub;
use super::scribe::Removal;
use super::{DaemonError, now};

impl Hub {
    /// Removes runs; `answer` is told once their folders are gone too, or known to stay.
    pub(super) fn remove(&mut self, runs: &[String], files: bool, answer: Answer) -> Result<(), DaemonError> {
        let runs = match refused(self.coordinator.remove(runs, now()))? {
            Ok(runs) => runs,
            Err(error) => {
                // An error: whoever asked is gone.
                let _ = answer.send(Err(error));
                return Ok(());
            }
        };
        for run in &runs {
            self.state.forget(run);
            self.measuring.forget(run.clone());
        }
        self.turn(Vec::new())?;
        self.scribe.remove(Removal { runs, files, reply: answer });
        Ok(())
    }

    /// Has the registry forget what no run needs: not while files are written, for which it is asked.
    pub(super) fn tidy_registry(&mut self) {
        if !self.state.untidy || !self.scribe.is_idle() {
            return;
        }
        self.state.untidy = false;
        let runs = self.coordinator.runs();
        let ids: BTreeSet<&str> = runs.keys().map(|run| run.as_str()).collect();
        let bundles: BTreeSet<&str> = runs.values().map(|run| run.plan().model.bundle.as_str()).collect();
        if let Err(error) = self.registry.keep_only(&ids, &bundles) {
            self.teller.warn("registry", error.to_string());
        }
    }
}
