//! A fleet in memory around a coordinator.

use std::collections::BTreeMap;

use fedtt_tt::{HeadSize, Site, SiteKind};
use fedtt_wire::message::{End, Manifest, Outcome, Presence, Tensors, Update, Verdict};
use fedtt_wire::plan::{Bounds, Encoding};
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::{DeviceName, Digest, Message, Plan, RunId, Topic, chunk, chunk::Assembly, layout};
use ndarray::ArrayD;

use super::super::{Blueprint, Command, Effect, What};
use crate::coordinator::{Coordinator, Input};
use crate::record::Status;
use crate::store::Store;

pub(super) fn device(i: usize) -> DeviceName {
    DeviceName::new(format!("d{i}")).unwrap()
}

pub(super) fn blueprint() -> Blueprint {
    let site = |block| Site { id: format!("b{block}"), kind: SiteKind::Mlp, block, input: 16, output: 16 };
    Blueprint { sites: vec![site(0), site(1)], head: Some(HeadSize { input: 16, outputs: 2 }), norms: Vec::new() }
}

pub(super) fn plan(devices: u32) -> Plan {
    let mut plan = Plan { name: "test".into(), rounds: 3, ..Plan::default() };
    plan.model.labels = vec!["a".into(), "b".into()];
    plan.model.bundle = "bundle".into();
    plan.adapter.bottleneck = 4;
    plan.adapter.rank = Some(fedtt_tt::config::Rank::Uniform(2));
    plan.selection.min = devices;
    plan.collection.time = Bounds { min: Some(60), max: Some(60) };
    plan.wire.uplink.encoding = Encoding::F32;
    plan.wire.downlink = Encoding::F32;
    plan
}

/// A coordinator and everything its broker retains and its devices were told.
pub(super) struct Fleet {
    pub(super) coordinator: Coordinator,
    pub(super) now: u64,
    pub(super) retained: BTreeMap<String, Vec<u8>>,
    pub(super) verdicts: Vec<(DeviceName, Verdict)>,
    pub(super) events: Vec<What>,
    pub(super) run: RunId,
    /// What devices said of themselves.
    pub(super) presences: BTreeMap<DeviceName, Vec<u8>>,
    /// Feed every input to a coordinator that was just restarted.
    pub(super) crash: bool,
    /// Whether devices were told that it is over.
    pub(super) ended: bool,
    /// Rounds whose adapters the host was asked to measure.
    pub(super) asked: Vec<u32>,
}

impl Fleet {
    pub(super) fn new(plan: Plan, devices: usize) -> Self {
        Self::over(Store::memory().unwrap(), plan, devices)
    }

    pub(super) fn over(store: Store, plan: Plan, devices: usize) -> Self {
        let mut coordinator = Coordinator::open(store, 0).unwrap();
        let (run, fresh) = coordinator.start(plan, blueprint(), Some("token"), 0).unwrap();
        assert!(fresh);
        let (retained, verdicts, events) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut fleet = Fleet {
            coordinator,
            now: 0,
            retained,
            verdicts,
            events,
            run,
            presences: BTreeMap::new(),
            crash: false,
            ended: false,
            asked: Vec::new(),
        };
        (0..devices).for_each(|i| fleet.join(i, &[], "bundle"));
        fleet
    }

    pub(super) fn join(&mut self, i: usize, labels: &[&str], bundle: &str) {
        let presence = Presence {
            online: true,
            version: "0".into(),
            labels: labels.iter().map(|l| l.to_string()).collect(),
            engine: "none".into(),
            bundles: vec![bundle.into()],
            examples: 10,
            ..Presence::default()
        };
        let payload = Message::from(presence).encode(3).unwrap();
        self.presences.insert(device(i), payload.clone());
        self.send(Topic::Presence(device(i)), payload);
    }

    pub(super) fn send(&mut self, topic: Topic, payload: Vec<u8>) {
        self.now += 1;
        if self.crash {
            self.reconnect();
            let presence = |(name, payload): (&DeviceName, &Vec<u8>)| Input::Message {
                topic: Topic::Presence(name.clone()),
                payload: payload.clone(),
            };
            let presences = self.presences.iter().map(presence).collect();
            let effects = self.coordinator.handle(presences, self.now).unwrap();
            self.take(effects);
            self.now += 1000;
        }
        let effects = self.coordinator.handle(vec![Input::Message { topic, payload }], self.now).unwrap();
        self.take(effects);
    }

    /// The host finds another broker, or itself anew.
    pub(super) fn reconnect(&mut self) {
        let effects = self.coordinator.republish(self.now).unwrap();
        self.take(effects);
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.now += ms;
        let effects = self.coordinator.handle(Vec::new(), self.now).unwrap();
        self.take(effects);
    }

    pub(super) fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Publish { topic, payload, retain: true } => {
                    let name = format!("{topic:?}");
                    let _ = match payload.is_empty() {
                        true => self.retained.remove(&name),
                        false => self.retained.insert(name, payload),
                    };
                }
                Effect::Publish { topic: Topic::Down(device), payload, .. } => {
                    match Message::decode(&payload, 1 << 20).unwrap() {
                        Message::Verdict(verdict) => self.verdicts.push((device, verdict)),
                        Message::Refusal(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
                Effect::Publish { topic: Topic::Plan(run), payload, .. } => {
                    if let Some(ended) = self.coordinator.runs().get(&run) {
                        assert!(ended.summary().status.is_final());
                    }
                    // That of all runs here.
                    let began = 0;
                    assert_eq!(Message::decode(&payload, 1 << 20).unwrap(), End { run, began }.into());
                    self.ended = true;
                }
                Effect::Publish { topic, .. } => panic!("{topic:?}"),
                Effect::Broadcast(broadcast) => {
                    for message in broadcast.messages() {
                        let (topic, payload) = message.unwrap();
                        self.retained.insert(format!("{topic:?}"), payload);
                    }
                }
                Effect::Event(event) => self.events.push(event.what),
                Effect::RoundEnded { round, .. } => self.asked.push(round),
                Effect::Warning { .. } => {}
            }
        }
    }

    pub(super) fn command(&mut self, command: Command) {
        self.coordinator.command(self.run.as_str(), command, self.now).unwrap();
        self.wait(1);
    }

    pub(super) fn manifest(&self) -> Manifest {
        let bytes = &self.retained[&format!("{:?}", Topic::Round(self.run.clone()))];
        match Message::decode(bytes, 1 << 20).unwrap() {
            Message::Manifest(manifest) => manifest,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn status(&self) -> Status {
        self.coordinator.runs()[&self.run].summary().status
    }

    /// The run's values.
    pub(super) fn values(&self) -> Vec<ArrayD<f32>> {
        let changes = self.coordinator.store().begin().unwrap();
        self.coordinator.runs()[&self.run].values(&changes).unwrap()
    }

    /// Hash of the run's values.
    pub(super) fn adapter(&self) -> Digest {
        Digest::of_values(&self.values())
    }

    pub(super) fn tensors(&self, topic: fn(RunId, u32) -> Topic) -> Tensors {
        let mut assembly: Option<Assembly> = None;
        for index in 0.. {
            let Message::Chunk(chunk) =
                Message::decode(&self.retained[&format!("{:?}", topic(self.run.clone(), index))], 1 << 20).unwrap()
            else {
                panic!("no chunk")
            };
            let whole = assembly.get_or_insert_with(|| Assembly::new(chunk.parcel, 1 << 20).unwrap()).add(chunk);
            if let Some(bytes) = whole.unwrap() {
                let Message::Tensors(tensors) = Message::decode(&bytes, 1 << 20).unwrap() else { panic!("no tensors") };
                return tensors;
            }
        }
        unreachable!()
    }

    /// An update that moves every trained value by `by`.
    pub(super) fn update(&self, i: usize, by: f32, examples: u64) -> Update {
        let manifest = self.manifest();
        let run = &self.coordinator.runs()[&self.run];
        let measuring = manifest.goal == fedtt_wire::message::Goal::Measure;
        let trained = if measuring { Vec::new() } else { layout::trained(run.parameters(), &manifest.mask) };
        let tensor = |&place: &u32| {
            let change = ArrayD::from_elem(run.layout().0[place as usize].shape.clone(), by);
            EncodedTensor::encode(change.view(), Encoding::F32, None)
        };
        Update {
            run: self.run.clone(),
            began: manifest.began,
            round: manifest.round,
            state: manifest.state,
            device: device(i),
            examples,
            steps: 1,
            tokens: 0,
            loss: 1.0,
            seconds: 1.0,
            joules: None,
            measured: None,
            sent: 0,
            received: 0,
            tensors: trained.iter().map(tensor).collect(),
        }
    }

    pub(super) fn deliver(&mut self, i: usize, update: Update) -> Outcome {
        let payload = Message::from(update.clone()).encode(3).unwrap();
        let before = self.verdicts.len();
        for chunk in chunk::split(&self.run.clone(), update.round, &payload, 1024) {
            self.send(Topic::Up(device(i)), Message::from(chunk).encode(3).unwrap());
        }
        let (to, verdict) = self.verdicts.last().cloned().unwrap();
        assert!(self.verdicts.len() == before + 1, "one answer, not {:?}", &self.verdicts[before..]);
        assert_eq!((to, verdict.update), (device(i), Digest::of(&payload)));
        verdict.outcome
    }

    pub(super) fn round(&mut self, changes: &[f32]) {
        for (i, &by) in changes.iter().enumerate() {
            assert_eq!(self.deliver(i, self.update(i, by, 10)), Outcome::Accepted);
        }
    }
}
