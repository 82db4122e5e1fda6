//! When no round goes on: between rounds, paused, ended; and what an operator can do about it.

use fedtt_wire::Topic;
use fedtt_wire::message::{Goal, Manifest};

use super::global::Global;
use super::selecting::Selecting;
use super::{Effect, Phase, Run, RunError};
use crate::record::Status;
use crate::store::Changes;

/// What an operator can do to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Finish the round and wait.
    Pause,
    /// Go on.
    Resume,
    /// Go on for one round.
    Step,
    /// End it; the round that goes on does not count.
    Stop,
}

/// A command that makes no sense as the run stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("run {run} is {status}: {hint}")]
pub struct CommandError {
    /// The run.
    pub run: String,
    /// How it stands.
    pub status: &'static str,
    /// What to do instead.
    pub hint: String,
}

impl Status {
    /// As people say it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Pausing => "pausing",
            Status::Paused => "paused",
            Status::Finished => "finished",
            Status::Stopped => "stopped",
        }
    }
}

impl Run {
    fn not_now(&self, hint: impl Into<String>) -> CommandError {
        CommandError { run: self.id.to_string(), status: self.record.summary.status.word(), hint: hint.into() }
    }

    /// Whether it may be removed.
    ///
    /// # Errors
    /// When it is not over.
    pub fn removable(&self) -> Result<(), CommandError> {
        match self.record.summary.status.is_final() {
            true => Ok(()),
            false => Err(self.not_now(format!("stop it first: `fedtt run stop {}`", self.id))),
        }
    }

    /// Removes it from the store; what is to be cleared at the broker.
    ///
    /// # Errors
    /// When the store fails.
    pub fn remove(&self, now: u64, store: &Changes) -> Result<Vec<Effect>, RunError> {
        let retained = self.retained(now);
        store.remove_run(&self.id, &retained)?;
        Ok(retained.clear(&self.id))
    }

    /// Carries a command out.
    ///
    /// # Errors
    /// When it makes no sense as the run stands.
    pub fn command(&mut self, command: Command, now: u64) -> Result<(), CommandError> {
        let status = self.record.summary.status;
        if status.is_final() {
            return Err(self.not_now("nothing can be done to it any more; start a new run"));
        }
        if matches!(self.record.phase, Phase::Measuring(_)) && command != Command::Stop {
            return Err(self.not_now("its rounds are done, and the host measures the last adapter; wait, or stop it"));
        }
        self.dirty = true;
        match command {
            Command::Pause => match (status, &self.record.phase) {
                (Status::Paused, _) | (Status::Pausing, Phase::Collecting(_)) => {}
                (_, Phase::Collecting(_)) => self.set_status(now, Status::Pausing, None),
                _ => self.rest(now, Status::Paused, None),
            },
            Command::Resume | Command::Step => {
                self.record.allowance = (command == Command::Step).then_some(1);
                if status == Status::Paused {
                    self.set_status(now, Status::Running, None);
                    let record = match &self.record.phase {
                        Phase::Selecting(selecting) => selecting.record.clone(),
                        _ => Default::default(),
                    };
                    self.record.phase = Phase::Selecting(Selecting { record, ..Selecting::default() });
                } else if command == Command::Resume {
                    self.set_status(now, Status::Running, None);
                }
            }
            Command::Stop => self.end(now, Status::Stopped, None),
        }
        Ok(())
    }

    /// What comes after a round.
    pub(super) fn next(&mut self, now: u64) {
        self.record.phase = Phase::Selecting(Selecting { not_before: now, ..Selecting::default() });
        let plan = &self.record.plan;
        if let Some(patience) = plan.evaluation.patience
            && self.record.stale >= patience
        {
            let reason = format!("no lower loss in {patience} evaluations");
            return self.finished(now, Some(reason));
        }
        if self.record.round >= plan.rounds && !plan.evaluation.clients {
            return self.finished(now, None);
        }
        let spent = self.record.allowance.as_mut().is_some_and(|left| {
            *left = left.saturating_sub(1);
            *left == 0
        });
        if spent {
            self.record.allowance = None;
        }
        if self.record.summary.status == Status::Pausing || spent {
            self.rest(now, Status::Paused, None);
        }
    }

    /// No round until further notice: devices stop what they do.
    pub(super) fn rest(&mut self, now: u64, status: Status, reason: Option<String>) {
        self.set_status(now, status, reason);
        self.dirty = true;
        if let Phase::Selecting(selecting) = &mut self.record.phase {
            selecting.not_before = u64::MAX;
        } else {
            self.record.phase = Phase::Resting;
        }
        self.call_off(now);
    }

    /// All rounds are done: the run is over as soon as the host has measured what is to be measured.
    pub(super) fn finished(&mut self, now: u64, reason: Option<String>) {
        if self.record.to_be_measured.is_none() {
            return self.end(now, Status::Finished, reason);
        }
        self.record.phase = Phase::Measuring(reason);
        self.dirty = true;
        self.call_off(now);
    }

    /// Nothing is asked of devices until further notice.
    fn call_off(&mut self, now: u64) {
        let manifest = Manifest {
            run: self.id.clone(),
            began: self.record.summary.began,
            issued: self.issue(now),
            round: self.record.round,
            attempt: 0,
            goal: Goal::Rest,
            cohort: Vec::new(),
            mask: self.mask(),
            rate: 0.0,
            state: self.global.digest(),
            change: None,
            seconds: 0,
            counted: self.record.counted.clone(),
        };
        // A manifest of plain values always has a CBOR form.
        if self.publish(Topic::Round(self.id.clone()), manifest, true).is_err() {
            self.clear(Topic::Round(self.id.clone()));
        }
    }

    /// The host cannot go on with the run as it is.
    pub fn suspend(&mut self, now: u64, reason: String) {
        if !self.record.summary.status.is_final() {
            let record = self.current().map(|record| record.clone()).unwrap_or_default();
            self.record.phase = Phase::Selecting(Selecting { not_before: u64::MAX, record, ..Selecting::default() });
            self.rest(now, Status::Paused, Some(reason));
        }
    }

    /// The run is over: devices are told, and nothing retained is left behind. Its values are in the store; nothing makes a
    /// run that is over go on again.
    pub(super) fn end(&mut self, now: u64, status: Status, reason: Option<String>) {
        self.set_status(now, status, reason);
        self.record.summary.ended = Some(now);
        self.record.phase = Phase::Resting;
        (self.global, self.change) = (Global::released(), None);
        self.effects.extend(self.retained(now).clear(&self.id));
    }
}
