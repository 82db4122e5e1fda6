//! All runs of a device.

use std::collections::BTreeMap;

use fedtt_wire::message::{Presence, SMALL};
use fedtt_wire::{DeviceName, FleetName, Message, RunId, Topic, Topics, WireError};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::kept::{State, Work};
use super::ledger::Ledger;
use super::retry::Pace;
use super::run::{Run, adopted};
use super::{Effect, Event, LocalPolicy, Notice, Slot, What};

/// So many runs are followed at a time.
const MOST_RUNS: usize = 64;

/// Largest message about tensors that comes in, well beyond the largest chunk a plan may ask for.
const LARGEST: usize = 65 * 1024 * 1024;

/// Who a device is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name.
    pub device: DeviceName,
    /// The fleet it belongs to.
    pub fleet: FleetName,
    /// What it says of itself.
    pub presence: Presence,
}

/// A device in its runs.
pub struct Participant {
    identity: Identity,
    policy: LocalPolicy,
    pace: Pace,
    topics: Topics,
    rng: ChaCha8Rng,
    jobs: u64,
    connected: bool,
    /// When it last asked what rounds there are, and when it does again.
    listened: (u64, u64),
    ledger: Ledger,
    runs: BTreeMap<RunId, Run>,
}

/// What a device finds of its own when it starts.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The files of its runs.
    pub files: Vec<(RunId, Slot, Vec<u8>)>,
    /// How far runs were followed, also those that are gone.
    pub ledger: Option<Vec<u8>>,
}

/// What a run is given to act on the world.
pub(super) struct Context<'a> {
    pub(super) now: u64,
    pub(super) identity: &'a Identity,
    pub(super) policy: &'a LocalPolicy,
    pub(super) pace: Pace,
    pub(super) topics: &'a Topics,
    pub(super) connected: bool,
    pub(super) rng: &'a mut ChaCha8Rng,
    pub(super) jobs: &'a mut u64,
    pub(super) ledger: &'a mut Ledger,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl Context<'_> {
    /// Says something to the host.
    pub(super) fn up(&mut self, message: impl Into<Message>) {
        let topic = Topic::Up(self.identity.device.clone());
        self.effects.push(Effect::Publish { topic, message: Box::new(message.into()), retain: false });
    }

    pub(super) fn tell(&mut self, run: &RunId, what: What) {
        self.effects.push(Effect::Tell(Notice { run: Some(run.clone()), what }));
    }

    /// Keeps the ledger for good.
    pub(super) fn keep_ledger(&mut self, run: &RunId) {
        match self.ledger.encode() {
            Ok(bytes) => self.effects.push(Effect::Remember(bytes)),
            Err(error) => self.ignore(run, format!("the ledger cannot be kept: {error}")),
        }
    }

    pub(super) fn ignore(&mut self, run: &RunId, reason: impl Into<String>) {
        self.tell(run, What::Ignored { reason: reason.into() });
    }
}

/// What was received, as an event; `None` where it is nothing of this fleet's.
///
/// # Errors
/// When the payload is no message.
pub fn receive(topics: &Topics, topic: &str, payload: &[u8]) -> Result<Option<Event>, WireError> {
    let Some(topic) = topics.parse(topic) else { return Ok(None) };
    if payload.is_empty() {
        return Ok(Some(Event::Cleared { topic }));
    }
    let limit = if matches!(topic, Topic::Change(..) | Topic::State(..)) { LARGEST } else { SMALL };
    Ok(Some(Event::Message { message: Box::new(Message::decode(payload, limit)?), topic }))
}

impl Participant {
    /// A device with what its process left behind. `seed` is for the spread of repetitions alone.
    pub fn new(identity: Identity, policy: LocalPolicy, seed: u64, found: Found) -> (Self, Vec<Effect>) {
        let mut effects = Vec::new();
        let mut kept: BTreeMap<RunId, (Option<State>, Work)> = BTreeMap::new();
        let ledger = found.ledger.map_or_else(|| Ok(Ledger::default()), |bytes| Ledger::decode(&bytes));
        let ledger = ledger.unwrap_or_else(|error| {
            let reason = format!("the ledger of runs: {error}");
            effects.push(Effect::Tell(Notice { run: None, what: What::SetAside { reason } }));
            Ledger::default()
        });
        for (run, slot, bytes) in found.files {
            let entry = kept.entry(run.clone()).or_default();
            let read = match slot {
                Slot::State => State::decode(&bytes).map(|state| entry.0 = Some(state)),
                Slot::Work => Work::decode(&bytes).map(|work| entry.1 = work),
            };
            if let Err(error) = read {
                let reason = format!("{slot:?} of {run}: {error}").to_lowercase();
                effects.push(Effect::SetAside { run: run.clone(), slot });
                effects.push(Effect::Tell(Notice { run: Some(run), what: What::SetAside { reason } }));
            }
        }
        let restore = |(id, (state, work)): (RunId, (Option<State>, Work))| (id.clone(), Run::new(id, state, work));
        let participant = Participant {
            topics: Topics::new(&identity.fleet),
            identity,
            policy,
            pace: Pace::default(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            jobs: 0,
            connected: false,
            listened: (0, 0),
            ledger,
            runs: kept.into_iter().map(restore).collect(),
        };
        (participant, effects)
    }

    /// The same at another pace.
    pub fn paced(self, pace: Pace) -> Self {
        Participant { pace, ..self }
    }

    /// What the device subscribes to, before it is connected.
    pub fn filters(&self) -> Vec<String> {
        self.topics.device_filters(&self.identity.device)
    }

    /// What the broker publishes when the device vanishes, and the device itself when it leaves.
    pub fn farewell(&self) -> (Topic, Presence) {
        let presence = Presence { online: false, fetching: Vec::new(), ..self.identity.presence.clone() };
        (Topic::Presence(self.identity.device.clone()), presence)
    }

    /// The fleet's topics.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// When time alone brings something next, in Unix milliseconds.
    pub fn due(&self) -> Option<u64> {
        let runs = self.runs.values().filter_map(|run| run.due(&self.policy, self.connected));
        runs.chain(self.connected.then_some(self.listened.1)).min()
    }

    fn announce(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let listen = self.pace.listen.max(2);
        self.listened = (now, now + self.rng.random_range(listen / 2..=listen));
        let topic = Topic::Presence(self.identity.device.clone());
        let message = Box::new(self.identity.presence.clone().into());
        effects.push(Effect::Publish { topic, message, retain: true });
    }

    /// What is to be done about `event` at `now`, in Unix milliseconds.
    pub fn handle(&mut self, event: Event, now: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut mended = false;
        match &event {
            Event::Connected => {
                self.connected = true;
                effects.push(Effect::Tell(Notice { run: None, what: What::Connected }));
                self.announce(now, &mut effects);
            }
            Event::Disconnected => self.connected = false,
            Event::Fetched { bundle, outcome } => {
                let presence = &mut self.identity.presence;
                presence.fetching.retain(|coming| coming != bundle);
                if outcome.is_ok() && !presence.bundles.contains(bundle) {
                    presence.bundles.push(bundle.clone());
                }
                if self.connected {
                    self.announce(now, &mut effects);
                }
            }
            Event::Presence(presence) => {
                let now_so =
                    Presence { fetching: self.identity.presence.fetching.clone(), ..presence.as_ref().clone() };
                if self.identity.presence != now_so {
                    mended = self.identity.presence.problem.is_some() && now_so.problem.is_none();
                    self.identity.presence = now_so;
                    if self.connected {
                        self.announce(now, &mut effects);
                    }
                }
            }
            // Before its time also when the clock was set back.
            Event::Tick if self.connected && !(self.listened.0..self.listened.1).contains(&now) => {
                self.announce(now, &mut effects);
                // To a new subscription the broker says again what it keeps.
                effects.extend(self.topics.announcements().map(Effect::Subscribe));
            }
            _ => {}
        }
        let mut cx = Context {
            now,
            identity: &self.identity,
            policy: &self.policy,
            pace: self.pace,
            topics: &self.topics,
            connected: self.connected,
            rng: &mut self.rng,
            jobs: &mut self.jobs,
            ledger: &mut self.ledger,
            effects: &mut effects,
        };
        let runs = &mut self.runs;
        match event {
            Event::Connected => runs.values_mut().for_each(|run| run.connected(&mut cx)),
            Event::Disconnected => {}
            Event::Presence(_) => runs.values_mut().for_each(|run| run.found(mended, &mut cx)),
            Event::Tick => {
                runs.values_mut().for_each(|run| run.tick(&mut cx));
                runs.retain(|_, run| !run.is_forgotten(&mut cx));
            }
            Event::Message { topic, message } => received(runs, &topic, *message, &mut cx),
            Event::Cleared { topic: Topic::Plan(run) } => {
                if let Some(run) = runs.get_mut(&run) {
                    run.unannounced(&cx);
                }
            }
            Event::Cleared { .. } => {}
            Event::Prepared { run, outcome } => {
                if let Some(run) = runs.get_mut(&run) {
                    run.prepared(outcome, &mut cx);
                }
            }
            Event::Looked { run, objection } => {
                if let Some(run) = runs.get_mut(&run) {
                    run.looked(objection, &mut cx);
                }
            }
            Event::Paused { job, reason } => {
                if let Some(run) = runs.values_mut().find(|run| run.has(job)) {
                    run.paused(reason, &mut cx);
                }
            }
            Event::Fetched { bundle, outcome } => {
                if outcome.is_ok() {
                    let what = What::FetchedBundle { bundle: bundle.clone() };
                    cx.effects.push(Effect::Tell(Notice { run: None, what }));
                }
                runs.values_mut().for_each(|run| run.fetched(&bundle, &outcome, &mut cx));
            }
            Event::Adopted { run, round, outcome } => {
                let goes_on = runs.contains_key(&run);
                adopted(&run, round, outcome, goes_on, &mut cx);
            }
            Event::Progressed { job, stepped } => {
                runs.values_mut().for_each(|run| run.progressed(job, stepped, &mut cx));
            }
            Event::Trained { job, outcome, traffic } => {
                if let Some(run) = runs.values_mut().find(|run| run.has(job)) {
                    run.trained(outcome, traffic, &mut cx);
                }
            }
        }
        self.tell_of_fetching(now, &mut effects);
        effects
    }

    /// Has the host know of bundles that are about to come in: their runs have to wait for this device.
    fn tell_of_fetching(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let fetching = &mut self.identity.presence.fetching;
        let before = fetching.len();
        for effect in effects.iter() {
            if let Effect::Fetch(bundle) = effect
                && !fetching.contains(bundle)
            {
                fetching.push(bundle.clone());
            }
        }
        if fetching.len() > before && self.connected {
            self.announce(now, effects);
        }
    }
}

/// Gives a message to the run it is about, if it stands where such a message may.
fn received(runs: &mut BTreeMap<RunId, Run>, topic: &Topic, message: Message, cx: &mut Context<'_>) {
    let own = match (topic, &message) {
        (Topic::Plan(run), Message::RunPlan(plan)) if plan.run == *run => Some(run),
        (Topic::Plan(run), Message::End(end)) if end.run == *run => {
            let meant = |run: &Run| run.began().is_none_or(|began| began == end.began);
            if runs.get(run).is_some_and(meant)
                && let Some(mut run) = runs.remove(run)
            {
                run.over(cx);
            }
            if cx.ledger.ended(run, end.began) {
                cx.keep_ledger(run);
            }
            return;
        }
        (Topic::Round(run), Message::Manifest(manifest)) if manifest.run == *run => Some(run),
        (Topic::Change(run, i) | Topic::State(run, i), Message::Chunk(chunk))
            if chunk.run == *run && chunk.index == *i =>
        {
            Some(run)
        }
        (Topic::Down(device), Message::Verdict(verdict)) if *device == cx.identity.device => Some(&verdict.run),
        (Topic::Down(_), Message::Refusal(refusal)) => {
            // The host's word on a message it could not read, which names no run.
            let what = What::Ignored { reason: format!("by the host: {}", refusal.reason) };
            return cx.effects.push(Effect::Tell(Notice { run: None, what }));
        }
        _ => None,
    };
    let Some(id) = own.cloned() else {
        let reason = format!("a {} at {}", message.what(), cx.topics.name(topic));
        return cx.effects.push(Effect::Tell(Notice { run: None, what: What::Ignored { reason } }));
    };
    let began = match &message {
        Message::RunPlan(plan) => Some(plan.began),
        Message::Manifest(manifest) => Some(manifest.began),
        _ => None,
    };
    if let Some(reason) = began.and_then(|began| cx.ledger.objection(&id, began)) {
        return cx.ignore(&id, format!("a {}: {reason}", message.what()));
    }
    if !runs.contains_key(&id) {
        if matches!(topic, Topic::Down(_)) {
            return;
        }
        if runs.len() >= MOST_RUNS {
            return cx.ignore(&id, format!("{MOST_RUNS} runs are followed already"));
        }
        runs.insert(id.clone(), Run::new(id.clone(), None, Work::default()));
    }
    let Some(run) = runs.get_mut(&id) else { return };
    match (topic, message) {
        (_, Message::RunPlan(plan)) => run.announced(plan, cx),
        (_, Message::Manifest(manifest)) => run.begins(manifest, cx),
        (Topic::Change(..), Message::Chunk(chunk)) => run.changes(chunk, cx),
        (_, Message::Chunk(chunk)) => run.state_comes(chunk, cx),
        (_, Message::Verdict(verdict)) => run.judged(verdict, cx),
        _ => {}
    }
}
