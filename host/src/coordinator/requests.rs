//! What an operator asks for.

use std::collections::BTreeSet;

use fedtt_wire::{Plan, RunId};

use super::Coordinator;
use crate::record::Status;
use crate::run::{Blueprint, Command, CommandError, Run, RunError};
use crate::store::{Changes, StoreError};

/// A run could not be started or commanded.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There is no such run.
    #[error("there is no run `{0}`; see `fedtt run list`")]
    NoRun(String),
    /// It makes no sense now.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The plan is refused.
    #[error(transparent)]
    Plan(#[from] fedtt_wire::plan::PlanError),
    /// A fault of the host.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl From<StoreError> for RequestError {
    fn from(error: StoreError) -> Self {
        RequestError::Run(error.into())
    }
}

impl Coordinator {
    /// Starts a run, or finds the one started with the same token. The second value tells whether it is new.
    ///
    /// # Errors
    /// When the plan is refused or the store fails.
    pub fn start(
        &mut self,
        mut plan: Plan,
        blueprint: Blueprint,
        token: Option<&str>,
        now: u64,
    ) -> Result<(RunId, bool), RequestError> {
        plan.validate()?;
        let changes = self.begin()?;
        if let Some(token) = token
            && let Some(run) = changes.run_of_token(token)?
        {
            let id = RunId::new(run).map_err(|e| RequestError::NoRun(e.to_string()))?;
            return Ok((id, false));
        }
        // Said, since devices of other versions may have another rate in mind.
        plan.local.rate.get_or_insert(plan.adapter.usual_rate());
        let id = self.fresh_id(&plan, &changes)?;
        let mut run = Run::start(id.clone(), plan, blueprint, now, &changes)?;
        if let Some(token) = token {
            changes.put_token(token, &id)?;
        }
        let effects = run.finish(&changes)?;
        self.limits.check(&run, &effects)?;
        changes.commit()?;
        self.effects.extend(effects);
        self.runs.insert(id.clone(), run);
        Ok((id, true))
    }

    /// The plan's name, made safe, and a number that no run ever had: what a removed one left in its folder, and in devices, is not
    /// taken for another's.
    fn fresh_id(&self, plan: &Plan, changes: &Changes) -> Result<RunId, StoreError> {
        let safe: String = plan.name.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
        let stem = if safe.is_empty() { "run".to_string() } else { safe.to_lowercase() };
        let mut free = (1u64..).filter_map(|n| RunId::new(format!("{stem}-{n}")).ok());
        loop {
            let id = free.next().expect("there are more numbers than runs");
            if !self.runs.contains_key(&id) && !changes.was_removed(&id)? {
                return Ok(id);
            }
        }
    }

    /// Removes runs that are over from the store and from memory: all of them, or none where one cannot be removed. Their tokens
    /// start runs anew.
    ///
    /// # Errors
    /// When one is not there or not over, or the store fails.
    pub fn remove(&mut self, runs: &[String], now: u64) -> Result<BTreeSet<RunId>, RequestError> {
        let mut gone = BTreeSet::new();
        for run in runs {
            let missing = || RequestError::NoRun(run.clone());
            let id = RunId::new(run.as_str()).map_err(|_| missing())?;
            self.runs.get(&id).ok_or_else(missing)?.removable()?;
            gone.insert(id);
        }
        let changes = self.begin()?;
        let mut effects = Vec::new();
        for id in &gone {
            if let Some(run) = self.runs.get(id) {
                effects.extend(run.remove(now, &changes)?);
            }
        }
        changes.commit()?;
        self.effects.extend(effects);
        for id in &gone {
            self.runs.remove(id);
            self.measured.remove(id);
            self.assemblies.forget_run(id);
            self.devices.values_mut().for_each(|device| drop(device.last_refusal.take_if(|(of, _)| of == id)));
        }
        Ok(gone)
    }

    /// Carries a command out.
    ///
    /// # Errors
    /// When there is no such run, or the command makes no sense as it stands.
    pub fn command(&mut self, run: &str, command: Command, now: u64) -> Result<Status, RequestError> {
        let missing = || RequestError::NoRun(run.to_string());
        let id = RunId::new(run).map_err(|_| missing())?;
        let changes = self.begin()?;
        let found = self.runs.get_mut(&id).ok_or_else(missing)?;
        found.command(command, now)?;
        let effects = found.finish(&changes)?;
        let status = found.summary().status;
        if status.is_final() {
            changes.drop_updates(&id, found.round())?;
        }
        changes.commit()?;
        self.effects.extend(effects);
        if status.is_final() {
            self.assemblies.forget_run(&id);
        }
        Ok(status)
    }
}
