//! A device on a disk in memory, a host of one device, and what stands for training.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fedtt_tt::TrainMask;
use fedtt_wire::chunk::{self, Assembly};
use fedtt_wire::layout::Entry;
use fedtt_wire::message::{Goal, Manifest, Outcome, Presence, RunPlan, Tensors, Update, Verdict};
use fedtt_wire::plan::{Encoding, ModelPlan, WirePlan};
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::{DeviceName, Digest, FleetName, Layout, Message, Plan, RunId, Topic};
use ndarray::{ArrayD, IxDyn};

use crate::local::{LocalMemory, LocalResult};
use crate::round::{Effect, Event, Found, Identity, Job, LocalPolicy, Notice, Participant, Prepared, Slot, What};

/// When the run began, in Unix milliseconds.
pub(super) const BEGAN: u64 = 1_690_000_000_000;

pub(super) const BUNDLE: &str = "b0";

pub(super) fn run_id() -> RunId {
    RunId::new("r1").unwrap()
}

pub(super) fn name() -> DeviceName {
    DeviceName::new("d1").unwrap()
}

pub(super) fn layout() -> Layout {
    let entry = |name: &str, n: usize| Entry { name: name.into(), shape: vec![n] };
    Layout(vec![entry("a", 700), entry("b", 2)])
}

/// Values of the state a round begins with. Odd ones, so that nothing compresses to a single chunk.
pub(super) fn values(round: u32) -> Vec<ArrayD<f32>> {
    let value = |i: usize| ((i as f32 + 0.37) * 1.618).sin() + round as f32;
    let tensor = |entry: &Entry| ArrayD::from_shape_fn(IxDyn(&entry.shape), |i| value(i[0]));
    layout().0.iter().map(tensor).collect()
}

/// What takes the state of `round - 1` to that of `round`, applied as a device applies it.
fn step(from: &[ArrayD<f32>], round: u32) -> (Vec<ArrayD<f32>>, Vec<EncodedTensor>) {
    let change = |v: &ArrayD<f32>| v.mapv(|x| (x * 3.1 + round as f32).cos());
    let encoded: Vec<_> = from.iter().map(|v| EncodedTensor::encode(change(v).view(), Encoding::Int8, None)).collect();
    let apply = |(v, e): (&ArrayD<f32>, &EncodedTensor)| v + &e.decode("", v.shape()).unwrap();
    (from.iter().zip(&encoded).map(apply).collect(), encoded)
}

pub(super) fn plan() -> RunPlan {
    let plan = Plan {
        model: ModelPlan { bundle: BUNDLE.into(), labels: vec!["x".into(), "y".into()], ..ModelPlan::default() },
        wire: WirePlan { chunk: 1024, ..WirePlan::default() },
        ..Plan::default()
    };
    RunPlan { run: run_id(), began: BEGAN, plan, layout: layout() }
}

/// A device whose files outlive it.
pub(super) struct Device {
    pub(super) participant: Participant,
    pub(super) disk: BTreeMap<(RunId, Slot), Vec<u8>>,
    pub(super) ledger: Option<Vec<u8>>,
    /// What it published and nobody has read yet.
    pub(super) sent: Vec<(Topic, Message)>,
    pub(super) jobs: Vec<Job>,
    pub(super) loading: Vec<Arc<RunPlan>>,
    pub(super) fetching: Vec<String>,
    pub(super) offered: Vec<(u32, Digest)>,
    /// How often the board was asked for.
    pub(super) looks: usize,
    pub(super) stopped: Vec<u64>,
    pub(super) filters: BTreeSet<String>,
    pub(super) told: Vec<Notice>,
    pub(super) now: u64,
    /// Effects carried out, and after how many the power fails.
    pub(super) effects: usize,
    pub(super) fails_after: Option<usize>,
    pub(super) policy: LocalPolicy,
    /// Rounds whose work was on the disk when a job for them began; must stay empty.
    pub(super) repeated: Vec<u32>,
    finished: BTreeSet<u32>,
}

pub(super) fn identity() -> Identity {
    let presence = Presence {
        online: true,
        version: "0".into(),
        labels: vec![],
        engine: "mock".into(),
        bundles: vec![BUNDLE.into()],
        examples: 9,
        ..Presence::default()
    };
    Identity { device: name(), fleet: FleetName::new("f").unwrap(), presence }
}

impl Device {
    pub(super) fn new(policy: LocalPolicy) -> Self {
        let (participant, effects) = Participant::new(identity(), policy.clone(), 1, Found::default());
        assert!(effects.is_empty());
        Device {
            participant,
            disk: BTreeMap::new(),
            ledger: None,
            sent: Vec::new(),
            jobs: Vec::new(),
            loading: Vec::new(),
            fetching: Vec::new(),
            offered: Vec::new(),
            looks: 0,
            stopped: Vec::new(),
            filters: BTreeSet::new(),
            told: Vec::new(),
            now: 1_700_000_000_000,
            effects: 0,
            fails_after: None,
            policy,
            repeated: Vec::new(),
            finished: BTreeSet::new(),
        }
    }

    /// The process is gone; what is on the disk and what was published stays.
    pub(super) fn restart(&mut self) {
        let files = self.disk.iter().map(|((run, slot), bytes)| (run.clone(), *slot, bytes.clone())).collect();
        let (participant, effects) =
            Participant::new(identity(), self.policy.clone(), 2, Found { files, ledger: self.ledger.clone() });
        self.participant = participant;
        self.jobs.clear();
        self.loading.clear();
        self.filters.clear();
        self.fails_after = None;
        self.carry_out(effects);
    }

    /// Whether the power held.
    pub(super) fn event(&mut self, event: Event) -> bool {
        let effects = self.participant.handle(event, self.now);
        self.carry_out(effects)
    }

    pub(super) fn message(&mut self, topic: Topic, message: impl Into<Message>) -> bool {
        self.event(Event::Message { topic, message: Box::new(message.into()) })
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> bool {
        for effect in effects {
            if self.fails_after.is_some_and(|limit| self.effects >= limit) {
                return false;
            }
            self.effects += 1;
            match effect {
                Effect::Publish { topic, message, .. } => self.sent.push((topic, *message)),
                Effect::Subscribe(filter) => drop(self.filters.insert(filter)),
                Effect::Unsubscribe(filter) => assert!(self.filters.remove(&filter), "not subscribed"),
                Effect::Prepare(plan) => self.loading.push(plan),
                Effect::Look(_) => self.looks += 1,
                Effect::Fetch(bundle) => self.fetching.push(bundle),
                Effect::Adopt(adoption) => self.offered.push((adoption.round, adoption.digest)),
                Effect::Train(job) => {
                    if self.finished.contains(&job.round) {
                        self.repeated.push(job.round);
                    }
                    self.jobs.push(*job);
                }
                Effect::Stop(job) => {
                    self.jobs.retain(|known| known.id != job);
                    self.stopped.push(job);
                }
                Effect::Save { run, slot, bytes } => {
                    if slot == Slot::Work
                        && let Some(done) = crate::round::kept::Work::decode(&bytes).unwrap().last
                    {
                        self.finished.insert(done.task.round);
                    }
                    self.disk.insert((run, slot), bytes);
                }
                Effect::Forget(run) => self.disk.retain(|(of, _), _| *of != run),
                Effect::SetAside { run, slot } => drop(self.disk.remove(&(run, slot))),
                Effect::Remember(bytes) => self.ledger = Some(bytes),
                Effect::Tell(notice) => self.told.push(notice),
            }
        }
        true
    }

    /// Loads the models asked for.
    pub(super) fn load(&mut self) -> bool {
        let plans = std::mem::take(&mut self.loading);
        plans.into_iter().all(|plan| {
            let prepared = Prepared { layout: plan.layout.clone(), initial: values(0), examples: 9 };
            self.event(Event::Prepared { run: plan.run.clone(), outcome: Ok(prepared) })
        })
    }

    /// Does the jobs asked for.
    pub(super) fn work(&mut self) -> bool {
        let jobs = std::mem::take(&mut self.jobs);
        jobs.into_iter().all(|job| {
            let outcome = Ok(Box::new(result(&job)));
            self.event(Event::Trained { job: job.id, outcome, traffic: (10, 20) })
        })
    }

    /// What it said to the host, drained.
    pub(super) fn said(&mut self) -> Vec<Message> {
        let up = Topic::Up(name());
        self.sent.drain(..).filter(|(topic, _)| *topic == up).map(|(_, message)| message).collect()
    }

    pub(super) fn tells(&self, what: impl Fn(&What) -> bool) -> usize {
        self.told.iter().filter(|notice| what(&notice.what)).count()
    }
}

/// Stands for training: a function of the round, the state and what was kept.
fn result(job: &Job) -> LocalResult {
    let kept = job.memory.residual.as_ref().map_or(0.0, |r| r[0][0]);
    let tensor = |v: &ArrayD<f32>| EncodedTensor::encode((v * 0.5 + kept).view(), Encoding::F32, None);
    let residual = layout().zeros().into_iter().map(|zero| zero + (kept + 1.0)).collect();
    LocalResult {
        tensors: if job.goal == Goal::Train { job.globals.iter().map(tensor).collect() } else { Vec::new() },
        examples: 9,
        steps: 3,
        tokens: 90,
        joules: Some(4.5),
        loss: f64::from(job.round),
        seconds: 1.0,
        measured: None,
        memory: LocalMemory { residual: Some(residual), moments: None },
    }
}

/// A host that wants `rounds` updates of one device.
pub(super) struct Host {
    pub(super) rounds: u32,
    pub(super) round: u32,
    pub(super) values: Vec<ArrayD<f32>>,
    change: Option<(Digest, Vec<u8>)>,
    assembly: Option<Assembly>,
    /// The updates counted, as bytes.
    pub(super) counted: Vec<Vec<u8>>,
    pub(super) snapshots: usize,
}

impl Host {
    pub(super) fn new(rounds: u32) -> Self {
        Host { rounds, round: 0, values: values(0), change: None, assembly: None, counted: vec![], snapshots: 0 }
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::of_values(&self.values)
    }

    pub(super) fn manifest(&self) -> Manifest {
        let over = self.round >= self.rounds;
        Manifest {
            run: run_id(),
            began: BEGAN,
            issued: BEGAN + 10 * u64::from(self.round),
            round: self.round,
            attempt: 0,
            goal: if over { Goal::Rest } else { Goal::Train },
            cohort: if over { vec![] } else { vec![name()] },
            mask: TrainMask::default(),
            rate: 1.0,
            state: self.digest(),
            change: self.change.as_ref().map(|(before, payload)| (*before, chunk::parcel(payload, 512))),
            seconds: 60,
            counted: if self.round > 0 { vec![name()] } else { vec![] },
        }
    }

    /// What the broker keeps, as the host last published it.
    pub(super) fn retained(&self) -> Vec<(Topic, Message)> {
        let mut all = vec![(Topic::Plan(run_id()), plan().into())];
        all.extend(self.changes());
        all.push((Topic::Round(run_id()), self.manifest().into()));
        all
    }

    pub(super) fn changes(&self) -> Vec<(Topic, Message)> {
        let chunks = self.change.iter().flat_map(|(_, payload)| chunk::split(&run_id(), self.round, payload, 512));
        chunks.map(|chunk| (Topic::Change(run_id(), chunk.index), chunk.into())).collect()
    }

    pub(super) fn snapshot(&mut self) -> Vec<(Topic, Message)> {
        self.snapshots += 1;
        let whole = Tensors {
            run: run_id(),
            state: self.digest(),
            places: vec![0, 1],
            tensors: self.values.iter().map(|v| EncodedTensor::lossless(v.view())).collect(),
        };
        let payload = Message::from(whole).encode(3).unwrap();
        let chunks = chunk::split(&run_id(), self.round, &payload, 512).into_iter();
        chunks.map(|chunk| (Topic::State(run_id(), chunk.index), chunk.into())).collect()
    }

    /// Begins the next round.
    pub(super) fn advance(&mut self) -> Vec<(Topic, Message)> {
        let before = self.digest();
        let (values, tensors) = step(&self.values, self.round + 1);
        self.values = values;
        self.round += 1;
        let change = Tensors { run: run_id(), state: self.digest(), places: vec![0, 1], tensors };
        self.change = Some((before, Message::from(change).encode(3).unwrap()));
        let mut said = self.changes();
        said.push((Topic::Round(run_id()), self.manifest().into()));
        said
    }

    pub(super) fn verdict(&self, round: u32, update: Digest, outcome: Outcome) -> (Topic, Message) {
        (Topic::Down(name()), Verdict { run: run_id(), round, update, outcome }.into())
    }

    /// What the host answers to something a device said.
    pub(super) fn hears(&mut self, message: Message) -> Vec<(Topic, Message)> {
        let chunk = match message {
            Message::Need(need) if need.state == self.digest() => return self.snapshot(),
            Message::Chunk(chunk) => chunk,
            _ => return vec![],
        };
        let (round, digest, last) = (chunk.round, chunk.parcel.digest, chunk.index + 1 == chunk.parcel.chunks);
        if round != self.round || self.round >= self.rounds {
            let counted = self.counted.iter().any(|payload| Digest::of(payload) == digest);
            let outcome = if counted { Outcome::Duplicate } else { Outcome::Late };
            return if last { vec![self.verdict(round, digest, outcome)] } else { vec![] };
        }
        let fresh = self.assembly.take().filter(|a| *a.parcel() == chunk.parcel);
        let mut assembly = fresh.unwrap_or_else(|| Assembly::new(chunk.parcel, layout().limit()).unwrap());
        match assembly.add(chunk).unwrap() {
            None => {
                let missing = Outcome::Missing(assembly.missing());
                self.assembly = Some(assembly);
                if last { vec![self.verdict(round, digest, missing)] } else { vec![] }
            }
            Some(payload) => {
                let update = read(&payload);
                assert_eq!((update.round, update.state, update.device), (self.round, self.digest(), name()));
                self.counted.push(payload);
                let mut said = vec![self.verdict(round, digest, Outcome::Accepted)];
                said.extend(self.advance());
                said
            }
        }
    }
}

pub(super) fn read(payload: &[u8]) -> Update {
    match Message::decode(payload, layout().limit()).unwrap() {
        Message::Update(update) => update,
        other => panic!("{other:?}"),
    }
}
