//! Virtual clients in one process: the host's coordinator, the devices' local training and every message of the wire, with
//! MQTT replaced by memory and the clock by a counter.

mod clients;
mod faults;
mod follower;
mod partition;

use std::collections::BTreeMap;

use fedtt_edge::batch::EncodedSet;
use fedtt_edge::data::Dataset;
use fedtt_edge::local::{LocalData, LocalError, LocalMemory, PlanModel};
use fedtt_edge::source::Source;
use fedtt_runtime::{Engine, SessionOptions};
use fedtt_wire::message::{Outcome, Presence};
use fedtt_wire::{DeviceName, FleetName, Message, Plan, RunId, Topic, Topics, WireError, chunk};
use ndarray::ArrayD;

use crate::coordinator::{Coordinator, Input, RequestError};
use crate::model;
use crate::record::{RoundRecord, RunSummary};
use crate::run::{Effect, RunError};
use crate::store::{Store, StoreError};

pub use faults::{Fault, Faults};
pub use partition::Partition;

use clients::Client;
use follower::{Follower, packet};

/// A simulation.
pub struct Simulation<'a> {
    /// The run.
    pub plan: Plan,
    /// Its backbone.
    pub source: &'a Source,
    /// What runs it.
    pub engine: &'a dyn Engine,
    /// Threads, each with the backbone's activations of one batch.
    pub threads: usize,
    /// Every client's examples.
    pub data: Vec<Dataset>,
    /// The host's own examples, measured after every so many rounds.
    pub test: Option<(Dataset, u32)>,
    /// What goes wrong.
    pub faults: Faults,
}

/// How a simulation went.
#[derive(Clone, Debug)]
pub struct Outcomes {
    /// The run, as the host sees it.
    pub summary: RunSummary,
    /// Its rounds.
    pub records: Vec<RoundRecord>,
    /// Bytes of all updates' payloads.
    pub payload: u64,
    /// Values that trained in a round, in the mean.
    pub trained: f64,
    /// The values of the best adapter.
    pub best: Vec<ArrayD<f32>>,
}

/// A simulation failed.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// A client failed.
    #[error("virtual client: {0}")]
    Local(#[from] LocalError),
    /// The run could not be started.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The host failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A message could not be made or understood.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The plan does not fit the backbone.
    #[error(transparent)]
    Model(#[from] model::ModelError),
    /// A name cannot be used.
    #[error(transparent)]
    Name(#[from] fedtt_wire::names::NameError),
    /// Nothing happens any more.
    #[error("the run stands still in round {0}: too few virtual clients answer")]
    Stalled(u32),
}

impl From<StoreError> for SimulationError {
    fn from(error: StoreError) -> Self {
        SimulationError::Run(error.into())
    }
}

/// Told of what goes on.
pub trait Watcher {
    /// A client of a cohort of so many is done with the round.
    fn trained(&self, round: u32, done: usize, of: usize);
    /// A round is over.
    fn round(&self, summary: &RunSummary, record: &RoundRecord);
}

/// A simulation under way.
struct World<'a> {
    plan: Plan,
    coordinator: Coordinator,
    run: RunId,
    topics: Topics,
    follower: Follower,
    clients: Vec<Client>,
    places: BTreeMap<DeviceName, usize>,
    models: Vec<PlanModel>,
    faults: Faults,
    now: u64,
    /// Round and attempt that the cohort has worked on.
    worked: Option<(u32, u32)>,
    /// Updates that arrive too late: whose, their bytes, their round.
    delayed: Vec<(usize, Vec<u8>, u32)>,
    test: Option<(EncodedSet, u32)>,
    payload: u64,
    watcher: &'a (dyn Watcher + Sync),
}

/// Runs a simulation to its end.
///
/// # Errors
/// When the plan does not fit, a client fails, or nobody answers any more.
pub fn simulate(simulation: Simulation<'_>, watcher: &(dyn Watcher + Sync)) -> Result<Outcomes, SimulationError> {
    let mut world = World::new(simulation, watcher)?;
    while !world.summary().status.is_final() {
        world.turn()?;
    }
    let changes = world.coordinator.store().begin()?;
    let records = changes.records(&world.run)?;
    let trained: u64 = records.iter().filter(|r| r.round < world.plan.rounds).map(|r| r.trained).sum();
    let rounds = world.summary().rounds_done.max(1);
    let best = world.coordinator.runs().get(&world.run).map(|run| run.best_values(&changes)).transpose()?;
    Ok(Outcomes {
        summary: world.summary().clone(),
        payload: world.payload,
        trained: trained as f64 / f64::from(rounds),
        best: best.unwrap_or_default(),
        records,
    })
}

impl<'a> World<'a> {
    fn new(simulation: Simulation<'_>, watcher: &'a (dyn Watcher + Sync)) -> Result<Self, SimulationError> {
        let Simulation { plan, source, engine, threads, data, test, faults } = simulation;
        let options = SessionOptions { threads: 1, ..SessionOptions::default() };
        let load = || PlanModel::load(&plan, source, engine, &options);
        let models = (0..threads.max(1)).map(|_| load()).collect::<Result<Vec<_>, _>>()?;
        let test = test.map(|(data, every)| Ok::<_, LocalError>((models[0].encode(&data)?, every))).transpose()?;
        let width = data.len().to_string().len();
        let client = |(i, data): (usize, &Dataset)| -> Result<Client, SimulationError> {
            Ok(Client {
                name: DeviceName::new(format!("client-{i:0width$}"))?,
                data: LocalData::split(&plan, models[0].encode(data)?),
                memory: LocalMemory::default(),
                before: None,
                sent: 0,
                received: 0,
            })
        };
        let clients = data.iter().enumerate().map(client).collect::<Result<Vec<_>, _>>()?;
        let places = clients.iter().enumerate().map(|(i, c)| (c.name.clone(), i)).collect();
        let mut coordinator = Coordinator::open(Store::memory()?, 0)?;
        let blueprint = model::blueprint(&plan, source)?;
        let (run, _) = coordinator.start(plan.clone(), blueprint, None, 0)?;
        let topics = Topics::new(&FleetName::new("simulated")?);
        let follower = Follower::new(models[0].layout().clone(), models[0].initial().to_vec());
        let mut world = World {
            coordinator,
            run,
            topics,
            follower,
            clients,
            places,
            models,
            faults,
            now: 0,
            worked: None,
            delayed: Vec::new(),
            test,
            payload: 0,
            watcher,
            plan,
        };
        world.join()?;
        Ok(world)
    }

    fn summary(&self) -> &RunSummary {
        self.coordinator.runs()[&self.run].summary()
    }

    /// Every client announces itself.
    fn join(&mut self) -> Result<(), SimulationError> {
        let mut inputs = Vec::with_capacity(self.clients.len());
        for client in &mut self.clients {
            let presence = Presence {
                online: true,
                version: env!("CARGO_PKG_VERSION").into(),
                // Of every group the plan asks for.
                labels: self.plan.selection.labels.clone(),
                engine: "simulated".into(),
                bundles: vec![self.plan.model.bundle.clone()],
                examples: client.data.train.rows.len() as u64,
                ..Presence::default()
            };
            let payload = Message::from(presence).encode(self.plan.wire.level)?;
            let topic = Topic::Presence(client.name.clone());
            client.sent += packet(&self.topics.name(&topic), payload.len()).0;
            inputs.push(Input::Message { topic, payload });
        }
        self.feed(inputs)
    }

    fn feed(&mut self, inputs: Vec<Input>) -> Result<(), SimulationError> {
        let effects = self.coordinator.handle(inputs, self.now)?;
        let mut measured = Vec::new();
        for effect in effects {
            match effect {
                Effect::Publish { topic: Topic::Down(device), payload, .. } => self.verdict(&device, &payload)?,
                Effect::Publish { topic, payload, .. } => {
                    let name = self.topics.name(&topic);
                    self.follower.hear(&topic, &name, &payload)?;
                }
                Effect::Broadcast(broadcast) => {
                    for message in broadcast.messages() {
                        let (topic, payload) = message?;
                        self.follower.hear(&topic, &self.topics.name(&topic), &payload)?;
                    }
                }
                Effect::Event(_) | Effect::Warning { .. } => {}
                Effect::RoundEnded { run, round } => {
                    if let Some((test, every)) = &self.test
                        && ((round + 1).is_multiple_of(*every) || round + 1 == self.plan.rounds)
                    {
                        let values = self.coordinator.runs()[&run].values(&self.coordinator.store().begin()?)?;
                        let found = self.models[0].measure(&values, test)?;
                        measured.push(Input::Measured { run, round, values, measured: found });
                    }
                    self.report(round, &measured)?;
                }
            }
        }
        if measured.is_empty() { Ok(()) } else { self.feed(measured) }
    }

    fn report(&self, round: u32, measured: &[Input]) -> Result<(), SimulationError> {
        if let Some(mut record) = self.coordinator.store().begin()?.record(&self.run, round)? {
            if let Some(Input::Measured { measured, .. }) = measured.last() {
                record.after = Some(measured.clone());
            }
            self.watcher.round(self.summary(), &record);
        }
        Ok(())
    }

    /// A client reads what became of its update.
    fn verdict(&mut self, device: &DeviceName, payload: &[u8]) -> Result<(), SimulationError> {
        let Some(&place) = self.places.get(device) else { return Ok(()) };
        let (down, up) = packet(&self.topics.name(&Topic::Down(device.clone())), payload.len());
        let client = &mut self.clients[place];
        client.received += down;
        client.sent += up;
        if let Message::Verdict(verdict) = Message::decode(payload, fedtt_wire::message::SMALL)?
            && !matches!(verdict.outcome, Outcome::Accepted | Outcome::Duplicate)
            && let Some((_, before)) = client.before.take_if(|(round, _)| *round == verdict.round)
        {
            client.memory = before;
        }
        Ok(())
    }

    /// The cohort works on the round that goes on, or time passes until something is due.
    fn turn(&mut self) -> Result<(), SimulationError> {
        let manifest = self.follower.manifest.clone();
        let fresh =
            manifest.filter(|m| m.goal != fedtt_wire::message::Goal::Rest && self.worked != Some((m.round, m.attempt)));
        let Some(manifest) = fresh else { return self.pass_time() };
        self.worked = Some((manifest.round, manifest.attempt));
        let Some(globals) = self.follower.state(&manifest.state).map(<[ArrayD<f32>]>::to_vec) else {
            return Err(WireError::Checksum("global state").into());
        };
        let run = &self.coordinator.runs()[&self.run];
        let counted = |name: &DeviceName| run.collecting().is_some_and(|current| current.accepted.contains(name));
        let asked = manifest.cohort.iter().filter(|name| !counted(name));
        let cohort: Vec<usize> = asked.filter_map(|name| self.places.get(name).copied()).collect();
        let (round, of, watcher) = (manifest.round, cohort.len(), self.watcher);
        let done = |count: usize| watcher.trained(round, count, of);
        let results = clients::train(&mut self.models, &self.clients, &cohort, &self.plan, &manifest, &globals, &done)?;
        self.now += 1000;
        for (place, bytes, round) in std::mem::take(&mut self.delayed) {
            self.deliver(place, &bytes, round)?;
        }
        for (place, result) in results {
            let client = &self.clients[place];
            let traffic = (client.sent, client.received + self.follower.received);
            let mut update =
                result.update((&manifest.run, manifest.began), manifest.round, manifest.state, &client.name, traffic);
            let fault = self.faults.draw(self.plan.seed, manifest.round, manifest.attempt, place);
            if let Some(fault) = fault {
                faults::spoil(&mut update, fault)?;
            }
            let bytes = Message::from(update).encode(self.plan.wire.level)?;
            match fault {
                Some(Fault::Dropout) => continue,
                Some(Fault::Delay) => {
                    self.delayed.push((place, bytes, manifest.round));
                    continue;
                }
                _ => {}
            }
            let client = &mut self.clients[place];
            client.before = Some((manifest.round, std::mem::replace(&mut client.memory, result.memory)));
            self.deliver(place, &bytes, manifest.round)?;
            if fault == Some(Fault::Duplicate) {
                self.deliver(place, &bytes, manifest.round)?;
            }
        }
        Ok(())
    }

    fn deliver(&mut self, place: usize, bytes: &[u8], round: u32) -> Result<(), SimulationError> {
        self.payload += bytes.len() as u64;
        let client = &mut self.clients[place];
        let topic = Topic::Up(client.name.clone());
        let name = self.topics.name(&topic);
        let mut inputs = Vec::new();
        for part in chunk::split(&self.run, round, bytes, self.plan.wire.chunk) {
            let payload = Message::from(part).encode(self.plan.wire.level)?;
            let (up, down) = packet(&name, payload.len());
            client.sent += up;
            client.received += down;
            inputs.push(Input::Message { topic: topic.clone(), payload });
        }
        self.feed(inputs)
    }

    fn pass_time(&mut self) -> Result<(), SimulationError> {
        let round = self.coordinator.runs()[&self.run].round();
        match self.coordinator.due() {
            Some(due) if due > self.now => self.now = due,
            _ => return Err(SimulationError::Stalled(round)),
        }
        self.feed(Vec::new())?;
        let paused = self.summary().status == crate::record::Status::Paused;
        if paused { Err(SimulationError::Stalled(round)) } else { Ok(()) }
    }
}
