//! All runs and devices of a fleet, without I/O: messages, commands and time in, effects out.
//!
//! A batch of inputs is one transaction of the store: what is answered to devices has been committed before.

use std::collections::BTreeMap;

use fedtt_wire::message::{Chunk, Outcome, Presence, Refusal, SMALL, Verdict};
use fedtt_wire::{DeviceName, Message, Plan, RunId, Topic, WireError, chunk::Assembly};

use crate::record::{Measured, Refused, Status, Traffic};
use crate::run::{Blueprint, Candidate, Command, CommandError, Effect, Run, RunError};
use crate::store::{Changes, Store, StoreError};

/// What comes in.
#[derive(Debug)]
pub enum Input {
    /// A message from the broker.
    Message {
        /// Where it was published.
        topic: Topic,
        /// Its bytes; empty where something retained was cleared.
        payload: Vec<u8>,
    },
    /// A message that goes no further.
    Untrusted {
        /// In whose name it came.
        device: DeviceName,
        /// What is wrong with it.
        kind: Untrusted,
        /// The same, for people.
        reason: String,
    },
    /// A device was put out of the fleet.
    Gone {
        /// Which.
        device: DeviceName,
    },
    /// The host measured what a round ended with.
    Measured {
        /// The run.
        run: RunId,
        /// The round.
        round: u32,
        /// The values measured.
        values: Vec<ndarray::ArrayD<f32>>,
        /// What came of it.
        measured: Measured,
    },
}

/// Why a message that came in the name of a device is not looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untrusted {
    /// It is not signed by that device, or by one that is not trusted.
    Forged,
    /// It is, and was said before something that is known already.
    Replayed,
}

/// What is known of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// What it said of itself.
    pub presence: Presence,
    /// Unix milliseconds of its last message.
    pub last_seen: u64,
    /// Why it refused last, and which run.
    pub last_refusal: Option<(RunId, String)>,
}

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

/// A run that the host cannot carry on, and why.
struct Faulty(RunId, Box<RunError>);

/// Most updates being put together at a time; beyond, the oldest is dropped and asked for again.
const MOST_ASSEMBLIES: usize = 4096;

/// Milliseconds without a further device after which those there are taken to be all that will come at once.
const QUIET: u64 = 300;

/// As long devices that announce themselves are waited for.
const GATHERING: u64 = 2_000;

/// Most devices that are remembered.
const MOST_DEVICES: usize = 100_000;

/// All runs and devices of a fleet.
pub struct Coordinator {
    store: Store,
    runs: BTreeMap<RunId, Run>,
    devices: BTreeMap<DeviceName, Device>,
    /// By device and run; with the time of the last chunk.
    assemblies: BTreeMap<(DeviceName, RunId), (u32, Assembly, u64)>,
    /// Since when, and until when, the devices of a broker that is new to the host are waited for.
    gathering: (u64, u64),
    /// Messages that belong to no run.
    refused: Refused,
    effects: Vec<Effect>,
}

impl Coordinator {
    /// Takes up the runs in `store`.
    ///
    /// # Errors
    /// When the store fails or a run in it is not understood.
    pub fn open(store: Store, now: u64) -> Result<Self, RunError> {
        let mut coordinator = Coordinator {
            store,
            runs: BTreeMap::new(),
            devices: BTreeMap::new(),
            assemblies: BTreeMap::new(),
            gathering: (0, 0),
            refused: Refused::default(),
            effects: Vec::new(),
        };
        coordinator.reload(now)?;
        Ok(coordinator)
    }

    fn reload(&mut self, now: u64) -> Result<(), RunError> {
        let changes = self.store.begin()?;
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
        let changes = self.store.begin()?;
        let outcome = self.take_in(inputs, now, &changes);
        match outcome {
            Ok(()) => changes.commit()?,
            Err(Faulty(_, error)) if matches!(*error, RunError::Store(_)) => return Err(*error),
            Err(Faulty(run, error)) => {
                drop(changes);
                self.effects.clear();
                self.pause_faulty(&run, &error, now)?;
            }
        }
        Ok(std::mem::take(&mut self.effects))
    }

    /// A run that cannot go on is put back to what the store has of it, and waits for an operator.
    fn pause_faulty(&mut self, run: &RunId, error: &RunError, now: u64) -> Result<(), RunError> {
        self.reload(now)?;
        let changes = self.store.begin()?;
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
                    self.effects.push(Effect::Dropped { device, reason });
                }
                Input::Gone { device } => {
                    self.devices.remove(&device);
                    self.assemblies.retain(|(of, _), _| *of != device);
                    self.runs.values_mut().for_each(|run| run.left(&device, now));
                }
                Input::Measured { run, round, values, measured } => {
                    if let Some(found) = self.runs.get_mut(&run) {
                        found.measured(round, values, measured, now, changes).map_err(|e| Faulty(run, e.into()))?;
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
            run.tick(now, candidates.as_deref(), changes).map_err(|e| Faulty(id.clone(), e.into()))?;
            self.effects.extend(run.finish(changes).map_err(|e| Faulty(id.clone(), e.into()))?);
        }
        Ok(())
    }

    fn candidates(&self) -> Vec<Candidate> {
        let online = self.devices.iter().filter(|(_, device)| device.presence.online);
        let candidate = |(name, device): (&DeviceName, &Device)| Candidate {
            name: name.clone(),
            labels: device.presence.labels.clone(),
            bundles: device.presence.bundles.clone(),
            fetches: device.presence.fetches,
        };
        online.map(candidate).collect()
    }

    fn presence(&mut self, name: DeviceName, payload: &[u8], now: u64) {
        if payload.is_empty() {
            self.devices.remove(&name);
            return;
        }
        match Message::decode(payload, SMALL) {
            // A fleet of more is split; a flood of made-up names is not remembered.
            Ok(Message::Presence(_)) if self.devices.len() >= MOST_DEVICES && !self.devices.contains_key(&name) => {
                self.refused.foreign += 1;
            }
            Ok(Message::Presence(presence)) => {
                if let (began, until @ 1..) = self.gathering {
                    self.gathering.1 = until.max(now + QUIET).min(began + GATHERING);
                }
                let known = self.devices.remove(&name);
                let coming =
                    |presence: &Presence, bundle: &String| presence.online && presence.fetching.contains(bundle);
                for run in self.runs.values_mut() {
                    let bundle = &run.plan().model.bundle;
                    let before = known.as_ref().is_some_and(|device| coming(&device.presence, bundle));
                    if coming(&presence, bundle) && !before {
                        run.fetching(&name, now);
                    }
                }
                let last_refusal = known.and_then(|device| device.last_refusal);
                self.devices.insert(name, Device { presence, last_seen: now, last_refusal });
            }
            Ok(other) => self.drop_message(&name, format!("a {} as presence", other.what())),
            Err(error) => self.drop_message(&name, format!("presence: {error}")),
        }
    }

    /// Counts a message that makes no sense.
    fn drop_message(&mut self, device: &DeviceName, reason: String) {
        self.refused.malformed += 1;
        self.effects.push(Effect::Dropped { device: device.clone(), reason });
    }

    fn uplink(&mut self, device: &DeviceName, payload: &[u8], now: u64, changes: &Changes) -> Result<(), Faulty> {
        if let Some(known) = self.devices.get_mut(device) {
            known.last_seen = now;
        }
        let message = match Message::decode(payload, SMALL) {
            Ok(message) => message,
            Err(error) => {
                self.drop_message(device, error.to_string());
                self.object(device, &error);
                return Ok(());
            }
        };
        let run = match &message {
            Message::Chunk(chunk) => &chunk.run,
            Message::Progress(progress) => &progress.run,
            Message::Refusal(refusal) => &refusal.run,
            Message::Need(need) => &need.run,
            other => {
                let reason = format!("a {}, which is not for the host", other.what());
                self.drop_message(device, reason);
                return Ok(());
            }
        }
        .clone();
        let Some(found) = self.runs.get_mut(&run) else {
            self.refused.foreign += 1;
            let reason = format!("a {} of run `{run}`, which is not here", message.what());
            self.effects.push(Effect::Dropped { device: device.clone(), reason });
            if let Message::Chunk(chunk) = message {
                let (round, update) = (chunk.round, chunk.parcel.digest);
                let outcome = Outcome::Late;
                self.say(device, Verdict { run, round, update, outcome });
            }
            return Ok(());
        };
        let outcome = match message {
            Message::Chunk(chunk) => return self.chunk(device, chunk, now, changes).map_err(|e| Faulty(run, e.into())),
            Message::Progress(progress) => {
                found.progressed(device, progress);
                Ok(())
            }
            Message::Need(need) => found.needed(&need, now),
            Message::Refusal(refusal) => {
                found.declined(device, &refusal, now);
                if let Some(known) = self.devices.get_mut(device) {
                    known.last_refusal = Some((refusal.run, refusal.reason.chars().take(500).collect()));
                }
                Ok(())
            }
            _ => Ok(()),
        };
        outcome.map_err(|e| Faulty(run, e.into()))
    }

    /// Puts an update's chunks together.
    fn chunk(&mut self, device: &DeviceName, chunk: Chunk, now: u64, changes: &Changes) -> Result<(), RunError> {
        let Some(run) = self.runs.get_mut(&chunk.run) else { return Ok(()) };
        let (round, digest, index, chunks) = (chunk.round, chunk.parcel.digest, chunk.index, chunk.parcel.chunks);
        if let Some(outcome) = run.settled(device, round) {
            // Once for an update, not for each of its chunks.
            return if index + 1 == chunks { run.settle(device, round, digest, outcome, now, changes) } else { Ok(()) };
        }
        if let Some(objection) = run.objection(device, round) {
            if index + 1 == chunks {
                run.refused(now, device, "foreign", objection.clone());
                return run.answer(device, round, digest, Outcome::Rejected(objection));
            }
            return Ok(());
        }
        let key = (device.clone(), chunk.run.clone());
        if self.assemblies.get(&key).is_some_and(|(of, assembly, _)| *of != round || assembly.parcel() != &chunk.parcel)
        {
            self.assemblies.remove(&key);
        }
        let limit = run.layout().limit();
        if !self.assemblies.contains_key(&key) {
            match Assembly::new(chunk.parcel, limit) {
                Ok(assembly) => {
                    drop_oldest(&mut self.assemblies);
                    self.assemblies.insert(key.clone(), (round, assembly, now));
                }
                Err(error) => {
                    run.refused(now, device, "malformed", error.to_string());
                    let outcome = Outcome::Rejected(error.to_string());
                    return run.answer(device, round, digest, outcome);
                }
            }
        }
        let Some((_, assembly, last)) = self.assemblies.get_mut(&key) else { return Ok(()) };
        *last = now;
        let again = !assembly.missing().contains(&index);
        let is_last = index + 1 == chunks;
        match assembly.add(chunk) {
            Ok(None) if again || is_last => {
                let missing = assembly.missing();
                run.answer(device, round, digest, Outcome::Missing(missing))
            }
            Ok(None) => Ok(()),
            Ok(Some(payload)) => {
                self.assemblies.remove(&key);
                match Message::decode(&payload, limit) {
                    Ok(Message::Update(update)) if update.run == key.1 => {
                        run.updated(device, &update, &payload, now, changes)
                    }
                    Ok(_) => {
                        let reason = "not an update of this run".to_string();
                        run.refused(now, device, "foreign", reason.clone());
                        run.answer(device, round, digest, Outcome::Rejected(reason))
                    }
                    Err(error) => {
                        run.refused(now, device, "malformed", error.to_string());
                        run.answer(device, round, digest, Outcome::Rejected(error.to_string()))
                    }
                }
            }
            Err(error) => {
                self.assemblies.remove(&key);
                run.refused(now, device, "malformed", error.to_string());
                // Damage on the way is mended by sending all of it again.
                run.answer(device, round, digest, Outcome::Missing((0..chunks).collect()))
            }
        }
    }

    /// Says what is wrong with a message that names no run.
    fn object(&mut self, device: &DeviceName, error: &WireError) {
        let Ok(run) = RunId::new("unknown") else { return };
        self.say(device, Refusal { run, round: 0, reason: error.to_string() });
    }

    fn say(&mut self, device: &DeviceName, message: impl Into<Message>) {
        if let Ok(payload) = message.into().encode(3) {
            self.effects.push(Effect::Publish { topic: Topic::Down(device.clone()), payload, retain: false });
        }
    }

    /// Starts a run, or finds the one started with the same token. The second value tells whether it is new.
    ///
    /// # Errors
    /// When the plan is refused or the store fails.
    pub fn start(
        &mut self,
        plan: Plan,
        blueprint: Blueprint,
        token: Option<&str>,
        now: u64,
    ) -> Result<(RunId, bool), RequestError> {
        plan.validate()?;
        let changes = self.store.begin()?;
        if let Some(token) = token
            && let Some(run) = changes.run_of_token(token)?
        {
            let id = RunId::new(run).map_err(|e| RequestError::NoRun(e.to_string()))?;
            return Ok((id, false));
        }
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
        let found = self.runs.get_mut(&id).ok_or_else(missing)?;
        let changes = self.store.begin()?;
        found.command(command, now)?;
        let effects = found.finish(&changes)?;
        changes.commit()?;
        self.effects.extend(effects);
        Ok(found.summary().status)
    }
}

fn drop_oldest(assemblies: &mut BTreeMap<(DeviceName, RunId), (u32, Assembly, u64)>) {
    if assemblies.len() >= MOST_ASSEMBLIES
        && let Some(oldest) = assemblies.iter().min_by_key(|(_, (_, _, last))| *last).map(|(key, _)| key.clone())
    {
        assemblies.remove(&oldest);
    }
}
