//! All runs and devices of a fleet, without I/O: messages, commands and time in, effects out.
//!
//! A batch of inputs is one transaction of the store: what is answered to devices has been committed before.

mod assemblies;
mod input;
mod limits;
mod requests;
mod uplink;

use std::collections::{BTreeMap, BTreeSet};

use fedtt_wire::{DeviceName, RunId, Topic};

use crate::record::Refused;
use crate::run::{Candidate, Effect, Run, RunError};
use crate::store::{Changes, Store, StoreError};

pub use input::{Device, Input, Untrusted};
pub use limits::Limits;
pub use requests::RequestError;

use assemblies::Assemblies;

/// A run that the host cannot carry on, and why.
struct Faulty(RunId, Box<RunError>);

/// Milliseconds without a further device after which those there are taken to be all that will come at once.
const QUIET: u64 = 300;

/// All runs and devices of a fleet.
pub struct Coordinator {
    store: Store,
    limits: Limits,
    runs: BTreeMap<RunId, Run>,
    devices: BTreeMap<DeviceName, Device>,
    assemblies: Assemblies,
    /// Runs that the host measures on examples of its own.
    measured: BTreeSet<RunId>,
    /// Since when, and until when, the devices of a broker that is new to the host are waited for.
    gathering: (u64, u64),
    /// Messages that belong to no run.
    refused: Refused,
    /// What was taken in and is not committed yet.
    open: Option<Changes>,
    effects: Vec<Effect>,
}

impl Coordinator {
    /// Takes up the runs in `store`.
    ///
    /// # Errors
    /// When the store fails or a run in it is not understood.
    pub fn open(store: Store, now: u64) -> Result<Self, RunError> {
        let mut coordinator = Coordinator {
            limits: Limits::default(),
            runs: BTreeMap::new(),
            devices: BTreeMap::new(),
            assemblies: Assemblies::new(store.files().cloned()),
            store,
            measured: BTreeSet::new(),
            gathering: (0, 0),
            refused: Refused::default(),
            open: None,
            effects: Vec::new(),
        };
        coordinator.reload(now)?;
        Ok(coordinator)
    }

    /// Refuses runs whose messages are beyond what the broker takes.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Coordinator { limits, ..self }
    }

    fn reload(&mut self, now: u64) -> Result<(), RunError> {
        let changes = self.begin()?;
        self.runs.clear();
        self.assemblies.clear();
        for id in changes.runs()? {
            let refuse =
                |e: fedtt_wire::names::NameError| StoreError::Content { what: "a run".into(), reason: e.to_string() };
            let id = RunId::new(id).map_err(refuse)?;
            if let Some(mut run) = Run::restore(id.clone(), now, &changes)? {
                self.effects.extend(run.finish(&changes)?);
                self.runs.insert(id, run);
            }
        }
        for (id, retained) in changes.removed()? {
            if retained.is_recent(now) {
                self.effects.extend(retained.clear(&id));
            }
        }
        changes.commit()?;
        Ok(())
    }

    /// Everything retained, again: for a broker that may have lost it. Devices count as away until it says otherwise: of those
    /// that left together with a broker nobody ever hears. No round begins until those that are there had time to say so.
    ///
    /// # Errors
    /// When the store fails.
    pub fn republish(&mut self, now: u64) -> Result<Vec<Effect>, RunError> {
        self.devices.values_mut().for_each(|device| device.presence.online = false);
        self.gathering = (now, now + QUIET);
        self.reload(now)?;
        Ok(std::mem::take(&mut self.effects))
    }

    /// The host has examples of its own for a run: what it measures is waited for at the run's end.
    pub fn measures(&mut self, run: RunId) {
        self.measured.insert(run);
    }

    /// The runs, by id.
    pub fn runs(&self) -> &BTreeMap<RunId, Run> {
        &self.runs
    }

    /// The devices, by name.
    pub fn devices(&self) -> &BTreeMap<DeviceName, Device> {
        &self.devices
    }

    /// Messages that belonged to no run and were dropped.
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// The store, for reading.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// When time alone brings something next.
    pub fn due(&self) -> Option<u64> {
        let (began, until) = self.gathering;
        let gathered = (until > began).then_some(until);
        self.runs.values().filter_map(Run::due).chain(gathered).filter(|&due| due != u64::MAX).min()
    }

    /// Takes inputs in and lets time pass.
    ///
    /// # Errors
    /// When the store fails: nothing has been answered then, and devices send again.
    pub fn handle(&mut self, inputs: Vec<Input>, now: u64) -> Result<Vec<Effect>, RunError> {
        self.take(inputs, now)?;
        self.commit()
    }

    /// The same without the effects: they come with [`Coordinator::commit`], and with what was taken in until then.
    ///
    /// # Errors
    /// When the store fails.
    pub fn take(&mut self, inputs: Vec<Input>, now: u64) -> Result<(), RunError> {
        let changes = match self.open.take() {
            Some(open) => open,
            None => self.store.begin()?,
        };
        match self.take_in(inputs, now, &changes) {
            Ok(()) => self.open = Some(changes),
            Err(Faulty(_, error)) if matches!(*error, RunError::Store(_)) => return Err(*error),
            Err(Faulty(run, error)) => {
                drop(changes);
                self.effects.clear();
                self.pause_faulty(&run, &error, now)?;
            }
        }
        Ok(())
    }

    /// Makes what was taken in last, and says what comes of it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn commit(&mut self) -> Result<Vec<Effect>, RunError> {
        self.open.take().map_or(Ok(()), Changes::commit)?;
        Ok(std::mem::take(&mut self.effects))
    }

    /// Whether a commit could wait for more: updates were taken in, and others of their round are to come.
    pub fn expects_more(&self) -> bool {
        self.open.as_ref().is_some_and(Changes::is_written) && self.runs.values().any(Run::expects_more)
    }

    /// Changes of their own, after all before.
    fn begin(&mut self) -> Result<Changes, StoreError> {
        self.open.take().map_or(Ok(()), Changes::commit)?;
        self.store.begin()
    }

    /// A run that cannot go on is put back to what the store has of it, and waits for an operator.
    fn pause_faulty(&mut self, run: &RunId, error: &RunError, now: u64) -> Result<(), RunError> {
        self.reload(now)?;
        let changes = self.begin()?;
        if let Some(run) = self.runs.get_mut(run) {
            run.suspend(now, error.to_string());
            self.effects.extend(run.finish(&changes)?);
        }
        changes.commit()?;
        Ok(())
    }

    fn take_in(&mut self, inputs: Vec<Input>, now: u64, changes: &Changes) -> Result<(), Faulty> {
        for input in inputs {
            match input {
                Input::Message { topic: Topic::Presence(device), payload } => self.presence(device, &payload, now),
                Input::Message { topic: Topic::Up(device), payload } => {
                    self.uplink(&device, &payload, now, changes)?;
                }
                Input::Message { .. } => self.refused.foreign += 1,
                Input::Untrusted { device, kind, reason } => {
                    match kind {
                        Untrusted::Forged => self.refused.forged += 1,
                        Untrusted::Replayed => self.refused.replayed += 1,
                    }
                    self.effects.push(Effect::Warning { device, reason });
                }
                Input::Gone { device } => {
                    self.devices.remove(&device);
                    self.assemblies.forget(&device);
                    self.runs.values_mut().for_each(|run| run.left(&device, now));
                }
                Input::Measured { run, round, values, measured } => {
                    if let Some(found) = self.runs.get_mut(&run) {
                        found.measured(round, values, measured, now, changes).map_err(|e| Faulty(run, e.into()))?;
                    }
                }
                Input::Unmeasured { run, round, reason } => {
                    if let Some(found) = self.runs.get_mut(&run) {
                        found.unmeasured(round, &reason);
                    }
                }
            }
        }
        let (began, until) = self.gathering;
        // A clock that was set back is waited for no longer.
        if !(began..until).contains(&now) {
            self.gathering = (0, 0);
        }
        let candidates = (self.gathering == (0, 0)).then(|| self.candidates());
        for (id, run) in &mut self.runs {
            run.measured_here(self.measured.contains(id));
            let was_over = run.summary().status.is_final();
            run.tick(now, candidates.as_deref(), changes).map_err(|e| Faulty(id.clone(), e.into()))?;
            if !was_over && run.summary().status.is_final() {
                self.assemblies.forget_run(id);
            }
            self.effects.extend(run.finish(changes).map_err(|e| Faulty(id.clone(), e.into()))?);
        }
        Ok(())
    }

    fn candidates(&self) -> Vec<Candidate> {
        self.devices.iter().filter_map(|(name, device)| device.candidate(name)).collect()
    }
}
