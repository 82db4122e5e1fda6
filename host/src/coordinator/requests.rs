//! What an operator asks for.

use std::collections::BTreeMap;

use fedtt_wire::{Plan, RunId};

use super::Coordinator;
use crate::record::{Status, Traffic};
use crate::run::{Blueprint, Command, CommandError, Run, RunError};
use crate::store::StoreError;

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
        let id = self.fresh_id(&plan);
        let mut run = Run::start(id.clone(), plan, blueprint, now, &changes)?;
        run.count_from(self.counters());
        if let Some(token) = token {
            changes.put_token(token, &id)?;
        }
        let effects = run.finish(&changes)?;
        changes.commit()?;
        self.effects.extend(effects);
        self.runs.insert(id.clone(), run);
        Ok((id, true))
    }

    /// Every device's traffic as it was reported last, in whichever run.
    fn counters(&self) -> BTreeMap<String, Traffic> {
        let mut last: BTreeMap<String, Traffic> = BTreeMap::new();
        for (device, traffic) in self.runs.values().flat_map(|run| run.counters()) {
            let known = last.entry(device.clone()).or_default();
            if traffic.up + traffic.down > known.up + known.down {
                *known = *traffic;
            }
        }
        last
    }

    /// The plan's name, made safe, and a number that is free.
    fn fresh_id(&self, plan: &Plan) -> RunId {
        let safe: String = plan.name.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
        let stem = if safe.is_empty() { "run".to_string() } else { safe.to_lowercase() };
        let free = (1u64..).filter_map(|n| RunId::new(format!("{stem}-{n}")).ok());
        free.into_iter().find(|id| !self.runs.contains_key(id)).expect("there are more numbers than runs")
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
        changes.commit()?;
        self.effects.extend(effects);
        Ok(found.summary().status)
    }
}
