//! A run's rounds, without I/O: time, messages and commands come in, messages and events go out.
//!
//! `selecting` waits for devices and picks the cohort, `collecting` takes its updates in, `closing` makes the next
//! global state of them, which `measuring` has measured; `resting` is everything in which no round goes on; `publishing` is how all of them speak. What
//! changes is written to the store's changes before anything is said about it, and the caller commits them before it
//! says it.

mod closing;
mod collecting;
mod event;
mod global;
mod measuring;
mod publishing;
mod resting;
mod selecting;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use fedtt_tt::{Parameter, TrainMask};
use fedtt_wire::message::{Need, Outcome, Parcel, Progress};
use fedtt_wire::{DeviceName, Digest, Layout, Plan, RunId, Topic, WireError, layout};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use crate::aggregate::AggregateError;
use crate::aggregate::mask;
use crate::record::{Refused, RoundRecord, RunSummary, Status, Traffic};
use crate::store::{Changes, Part, StoreError, Tensors};

pub use event::{RunEvent, What};
pub use global::Blueprint;
pub use publishing::Broadcast;
pub use resting::{Command, CommandError};

pub(crate) use publishing::Retained;

use global::Global;
use told::Told;

/// A fault of the host. A peer's fault is no error: it is counted and reported.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The round's updates could not be aggregated.
    #[error(transparent)]
    Aggregate(#[from] AggregateError),
    /// A message could not be made, or stored values are not the run's.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The plan's adapters do not fit the backbone.
    #[error(transparent)]
    Adapter(#[from] fedtt_tt::Error),
}

/// What goes out.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A message, as bytes; empty bytes clear a retained one.
    Publish {
        /// Where.
        topic: Topic,
        /// What.
        payload: Vec<u8>,
        /// Whether the broker keeps it for those who come later.
        retain: bool,
    },
    /// Many messages that the broker keeps.
    Broadcast(Broadcast),
    /// Something happened.
    Event(RunEvent),
    /// Something is wrong with a device, or with what it said outside all runs.
    Warning {
        /// Which.
        device: DeviceName,
        /// What.
        reason: String,
    },
    /// A round ended with the values the run has now; whoever has examples may measure them.
    RoundEnded {
        /// The run.
        run: RunId,
        /// The round.
        round: u32,
    },
}

/// A device that could take part.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub name: DeviceName,
    /// The groups it belongs to.
    pub labels: Vec<String>,
    /// Hashes of the bundles it has.
    pub bundles: Vec<String>,
    /// Whether it gets those it lacks.
    pub fetches: bool,
}

impl Candidate {
    /// Whether it may be asked for a plan's rounds.
    pub fn fits(&self, plan: &Plan) -> bool {
        let labels = &plan.selection.labels;
        (self.fetches || self.bundles.contains(&plan.model.bundle))
            && (labels.is_empty() || self.labels.iter().any(|label| labels.contains(label)))
    }
}

/// What a run is and how it stands, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    plan: Plan,
    blueprint: Blueprint,
    summary: RunSummary,
    phase: Phase,
    round: u32,
    /// Rounds to do before pausing; `step` sets it to one.
    allowance: Option<u32>,
    /// Evaluations since the best.
    stale: u32,
    counted: Vec<DeviceName>,
    /// The state before the last change, and the change's payload, which the store has.
    change: Option<(Digest, Parcel)>,
    /// Most chunks a retained payload ever had: so many topics are to be cleared in the end.
    chunks: u32,
    /// Number of the last manifest.
    issued: u64,
    /// The round whose adapter the host measures.
    to_be_measured: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Phase {
    Selecting(selecting::Selecting),
    Collecting(collecting::Collecting),
    Resting,
    /// All rounds are done, and the host measures the last adapter; why the run ends, where that needs saying.
    Measuring(Option<String>),
}

/// A round that goes on.
#[derive(Clone, Copy, Debug)]
pub struct Current<'a> {
    /// Who is asked.
    pub cohort: &'a [DeviceName],
    /// Whose updates are in.
    pub accepted: &'a BTreeSet<DeviceName>,
    /// How far the others are.
    pub progress: &'a BTreeMap<String, Progress>,
}

/// A run.
pub struct Run {
    id: RunId,
    record: Record,
    parameters: Vec<Parameter>,
    layout: Layout,
    global: Global,
    /// Devices whose updates of this round are stored.
    accepted: BTreeSet<DeviceName>,
    /// The payload of a change that is yet to be published.
    change: Option<Vec<u8>>,
    /// The state that is published as a whole, and since when.
    published: Option<(Digest, u64)>,
    progress: BTreeMap<String, Progress>,
    said_waiting: Option<(usize, usize)>,
    told: Told,
    /// Whether the host has examples to measure adapters on.
    measured_here: bool,
    /// The round whose adapter it was asked to measure.
    measure_asked: Option<u32>,
    effects: Vec<Effect>,
    dirty: bool,
}

impl Run {
    /// A new run.
    ///
    /// # Errors
    /// When the plan does not fit the backbone, or the store fails.
    pub fn start(id: RunId, plan: Plan, blueprint: Blueprint, now: u64, store: &Changes) -> Result<Self, RunError> {
        let set = blueprint.adapters(&plan)?;
        let parameters = set.parameters();
        let layout = Layout::of(&parameters);
        let values = layout::starting(&set);
        let summary = RunSummary {
            run: id.clone(),
            name: plan.name.clone(),
            status: Status::Running,
            reason: None,
            rounds_done: 0,
            rounds: plan.rounds,
            values: layout.values() as u64,
            began: now,
            ended: None,
            best: None,
            last: None,
            traffic: Traffic::default(),
            updates: 0,
            refused: Refused::default(),
            devices: Vec::new(),
        };
        let record = Record {
            plan,
            blueprint,
            summary,
            phase: Phase::Selecting(selecting::Selecting::default()),
            round: 0,
            allowance: None,
            stale: 0,
            counted: Vec::new(),
            change: None,
            chunks: 0,
            issued: 0,
            to_be_measured: None,
        };
        let global = Global::new(values);
        let mut run = Run::of(id, record, parameters, layout, global);
        let all: Vec<u32> = (0u32..).zip(&run.layout.0).map(|(place, _)| place).collect();
        run.global.store(&run.id, &all, store)?;
        run.dirty = true;
        run.say(now, What::Started);
        run.announce()?;
        run.publish_state(now)?;
        Ok(run)
    }

    /// A run as a host that was stopped, or killed, left it; everything retained is published again.
    ///
    /// # Errors
    /// When the store fails or holds something else.
    pub fn restore(id: RunId, now: u64, store: &Changes) -> Result<Option<Self>, RunError> {
        let Some(record) = store.get::<Record>(Part::Run, &id)? else { return Ok(None) };
        let set = record.blueprint.adapters(&record.plan)?;
        let parameters = set.parameters();
        let layout = Layout::of(&parameters);
        let is_over = record.summary.status.is_final();
        let global = if is_over { Some(Global::released()) } else { Global::restored(&id, &layout, store)? };
        let Some(global) = global else { return Ok(None) };
        let mut run = Run::of(id, record, parameters, layout, global);
        let updates = store.updates(&run.id, run.record.round)?;
        run.accepted.extend(updates.into_iter().map(|(_, kept)| kept.update.device));
        if !is_over {
            run.say(now, What::Restored);
            run.announce()?;
            run.publish_change(store)?;
            if let Phase::Collecting(collecting) = run.record.phase.clone() {
                run.publish_manifest(&collecting, now)?;
            }
        } else if let Some(retained) = run.record.summary.ended.map(|ended| run.retained(ended))
            && retained.is_recent(now)
        {
            run.effects.extend(retained.clear(&run.id));
        }
        Ok(Some(run))
    }

    fn of(id: RunId, record: Record, parameters: Vec<Parameter>, layout: Layout, global: Global) -> Self {
        Run {
            id,
            record,
            parameters,
            layout,
            global,
            accepted: BTreeSet::new(),
            change: None,
            published: None,
            progress: BTreeMap::new(),
            said_waiting: None,
            told: Told::default(),
            measured_here: false,
            measure_asked: None,
            effects: Vec::new(),
            dirty: false,
        }
    }

    /// Its id.
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// What it is.
    pub fn plan(&self) -> &Plan {
        &self.record.plan
    }

    /// Its parameters, in the order of the layout.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The tensors of its global state.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The global values; of a run that is over they are in the store alone.
    ///
    /// # Errors
    /// When the store fails, or lacks them.
    pub fn values(&self, store: &Changes) -> Result<Vec<ArrayD<f32>>, RunError> {
        if !self.record.summary.status.is_final() {
            return Ok(self.global.values.clone());
        }
        let stored = store.tensors(&self.id, Tensors::Global, &self.layout)?;
        Ok(stored.ok_or_else(|| StoreError::missing(&self.id, "the global state"))?)
    }

    /// What decides its parameters beside the plan.
    pub fn blueprint(&self) -> &Blueprint {
        &self.record.blueprint
    }

    /// How it stands.
    pub fn summary(&self) -> &RunSummary {
        &self.record.summary
    }

    /// The round that goes on or comes next, from 0.
    pub fn round(&self) -> u32 {
        self.record.round
    }

    /// The round that goes on, if one does.
    pub fn collecting(&self) -> Option<Current<'_>> {
        match &self.record.phase {
            Phase::Collecting(collecting) => {
                Some(Current { cohort: &collecting.cohort, accepted: &self.accepted, progress: &self.progress })
            }
            _ => None,
        }
    }

    /// When the round that goes on began, when it ends in any case, and who refused it.
    pub fn window(&self) -> Option<(u64, u64, &BTreeMap<String, String>)> {
        match &self.record.phase {
            Phase::Collecting(c) => {
                Some((c.began, c.began + self.record.plan.collection.longest(), &c.record.refusals))
            }
            _ => None,
        }
    }

    /// The values of the best adapter so far; the last ones where none was measured.
    ///
    /// # Errors
    /// When the store fails.
    pub fn best_values(&self, store: &Changes) -> Result<Vec<ArrayD<f32>>, RunError> {
        let best = match self.record.summary.best {
            Some(_) => store.tensors(&self.id, Tensors::Best, &self.layout)?,
            None => None,
        };
        best.map_or_else(|| self.values(store), Ok)
    }

    /// What is to be done now, after whatever has been handled; everything that changed is in `store` by then.
    ///
    /// # Errors
    /// When the store fails.
    pub fn finish(&mut self, store: &Changes) -> Result<Vec<Effect>, RunError> {
        if std::mem::take(&mut self.dirty) {
            store.put(Part::Run, &self.id, &self.record)?;
        }
        Ok(std::mem::take(&mut self.effects))
    }

    /// Time passes; without candidates (by name) no round begins.
    ///
    /// # Errors
    /// A fault of the host.
    pub fn tick(&mut self, now: u64, candidates: Option<&[Candidate]>, store: &Changes) -> Result<(), RunError> {
        self.ask_to_measure();
        // Closing a round leads to selecting the next, which may begin at once.
        loop {
            let before = std::mem::discriminant(&self.record.phase);
            match (&self.record.phase, candidates) {
                (Phase::Selecting(_), Some(candidates)) => self.select(now, candidates, store)?,
                (Phase::Selecting(_), None) => {}
                (Phase::Collecting(_), candidates) => {
                    candidates.into_iter().for_each(|there| self.look_for(there, now));
                    self.close_if_due(now, store)?;
                }
                (Phase::Measuring(reason), _) if self.record.to_be_measured.is_none() => {
                    let reason = reason.clone();
                    self.end(now, Status::Finished, reason);
                }
                (Phase::Measuring(_) | Phase::Resting, _) => {}
            }
            if before == std::mem::discriminant(&self.record.phase) {
                return Ok(());
            }
        }
    }

    /// When `tick` has something to do next, whatever else happens.
    pub fn due(&self) -> Option<u64> {
        match &self.record.phase {
            Phase::Selecting(selecting) => Some(selecting.not_before),
            Phase::Collecting(collecting) => {
                Some(collecting.next_due(&self.record.plan.collection, self.accepted.len()))
            }
            Phase::Measuring(_) | Phase::Resting => None,
        }
    }

    /// What there is to say to an update of an earlier round without looking into it.
    pub fn settled(&self, device: &DeviceName, round: u32) -> Option<Outcome> {
        let counted = round == self.record.round && self.accepted.contains(device)
            || round + 1 == self.record.round && self.record.counted.contains(device);
        let resting = !matches!(self.record.phase, Phase::Collecting(_));
        match counted {
            true => Some(Outcome::Duplicate),
            false => (round < self.record.round || resting && round == self.record.round).then_some(Outcome::Late),
        }
    }

    /// A device says how far it is.
    pub fn progressed(&mut self, device: &DeviceName, progress: Progress) {
        if progress.round == self.record.round {
            self.progress.insert(device.to_string(), progress);
        }
    }

    /// A device lacks the global state.
    ///
    /// # Errors
    /// When the state cannot be encoded.
    pub fn needed(&mut self, need: &Need, now: u64) -> Result<(), RunError> {
        if need.state == self.global.digest() && !self.record.summary.status.is_final() {
            self.publish_state(now)?;
        }
        Ok(())
    }

    fn say(&mut self, now: u64, what: What) {
        self.say_of(self.record.round, now, what);
    }

    fn say_of(&mut self, round: u32, now: u64, what: What) {
        let event = RunEvent { time: now, run: self.id.to_string(), round, what };
        self.effects.push(Effect::Event(event));
    }

    /// What trains in the current round.
    fn mask(&self) -> TrainMask {
        mask(&self.record.plan.schedule, u64::from(self.record.round), &self.parameters, &self.global.drift)
    }

    fn is_measuring(&self) -> bool {
        self.record.round >= self.record.plan.rounds
    }

    fn trained(&self) -> Vec<u32> {
        if self.is_measuring() { Vec::new() } else { layout::trained(&self.parameters, &self.mask()) }
    }

    fn set_status(&mut self, now: u64, status: Status, reason: Option<String>) {
        if self.record.summary.status == status {
            return;
        }
        self.record.summary.status = status;
        self.record.summary.reason.clone_from(&reason);
        self.dirty = true;
        self.say(now, What::Status { status, reason });
    }

    /// The record of the round that goes on.
    fn current(&mut self) -> Option<&mut RoundRecord> {
        match &mut self.record.phase {
            Phase::Collecting(collecting) => Some(&mut collecting.record),
            _ => None,
        }
    }
}
