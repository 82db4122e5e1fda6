#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use fedtt_tt::{HeadSize, Site, SiteKind};
use fedtt_wire::message::{End, Manifest, Outcome, Presence, Refusal, Tensors, Update, Verdict};
use fedtt_wire::plan::{Bounds, CoreRule, Encoding};
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::{DeviceName, Digest, Message, Plan, RunId, Topic, chunk, chunk::Assembly, layout};
use ndarray::ArrayD;

use super::{Blueprint, Command, Effect, What};
use crate::coordinator::{Coordinator, Input, Untrusted};
use crate::record::Status;
use crate::store::Store;

#[path = "batch_tests.rs"]
mod batch;
#[path = "long_tests.rs"]
mod long;
#[path = "measuring_tests.rs"]
mod measuring;

fn device(i: usize) -> DeviceName {
    DeviceName::new(format!("d{i}")).unwrap()
}

fn blueprint() -> Blueprint {
    let site = |block| Site { id: format!("b{block}"), kind: SiteKind::Mlp, block, input: 16, output: 16 };
    Blueprint { sites: vec![site(0), site(1)], head: Some(HeadSize { input: 16, outputs: 2 }), norms: Vec::new() }
}

fn plan(devices: u32) -> Plan {
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
struct Fleet {
    coordinator: Coordinator,
    now: u64,
    retained: BTreeMap<String, Vec<u8>>,
    verdicts: Vec<(DeviceName, Verdict)>,
    events: Vec<What>,
    run: RunId,
    /// What devices said of themselves.
    presences: BTreeMap<DeviceName, Vec<u8>>,
    /// Feed every input to a coordinator that was just restarted.
    crash: bool,
    /// Whether devices were told that it is over.
    ended: bool,
    /// Rounds whose adapters the host was asked to measure.
    asked: Vec<u32>,
}

impl Fleet {
    fn new(plan: Plan, devices: usize) -> Self {
        Self::over(Store::memory().unwrap(), plan, devices)
    }

    fn over(store: Store, plan: Plan, devices: usize) -> Self {
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

    fn join(&mut self, i: usize, labels: &[&str], bundle: &str) {
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

    fn send(&mut self, topic: Topic, payload: Vec<u8>) {
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
    fn reconnect(&mut self) {
        let effects = self.coordinator.republish(self.now).unwrap();
        self.take(effects);
    }

    fn wait(&mut self, ms: u64) {
        self.now += ms;
        let effects = self.coordinator.handle(Vec::new(), self.now).unwrap();
        self.take(effects);
    }

    fn take(&mut self, effects: Vec<Effect>) {
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
                    let began = self.coordinator.runs()[&run].summary().began;
                    assert_eq!(Message::decode(&payload, 1 << 20).unwrap(), End { run, began }.into());
                    assert!(self.status().is_final());
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
                Effect::Dropped { .. } => {}
            }
        }
    }

    fn command(&mut self, command: Command) {
        self.coordinator.command(self.run.as_str(), command, self.now).unwrap();
        self.wait(1);
    }

    fn manifest(&self) -> Manifest {
        let bytes = &self.retained[&format!("{:?}", Topic::Round(self.run.clone()))];
        match Message::decode(bytes, 1 << 20).unwrap() {
            Message::Manifest(manifest) => manifest,
            other => panic!("{other:?}"),
        }
    }

    fn status(&self) -> Status {
        self.coordinator.runs()[&self.run].summary().status
    }

    fn tensors(&self, topic: fn(RunId, u32) -> Topic) -> Tensors {
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
    fn update(&self, i: usize, by: f32, examples: u64) -> Update {
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

    fn deliver(&mut self, i: usize, update: Update) -> Outcome {
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

    fn round(&mut self, changes: &[f32]) {
        for (i, &by) in changes.iter().enumerate() {
            assert_eq!(self.deliver(i, self.update(i, by, 10)), Outcome::Accepted);
        }
    }
}

#[test]
fn a_run_goes_through_its_rounds_and_leaves_nothing_retained() {
    let mut fleet = Fleet::new(plan(3), 3);
    let start = fleet.tensors(Topic::State);
    let layout = fleet.coordinator.runs()[&fleet.run].layout().clone();
    let mut values: Vec<ArrayD<f32>> = start.values(&layout).unwrap().into_iter().map(|(_, v)| v).collect();
    assert_eq!(Digest::of_values(&values), fleet.manifest().state);
    for round in 0..3 {
        assert_eq!(fleet.manifest().round, round);
        // Weighted by examples: (1*1 + 2*2 + 4*5) / 8
        for (i, (by, examples)) in [(1.0, 1), (2.0, 2), (4.0, 5)].into_iter().enumerate() {
            assert_eq!(fleet.deliver(i, fleet.update(i, by, examples)), Outcome::Accepted);
        }
        let change = fleet.tensors(Topic::Change);
        for (place, value) in change.values(&layout).unwrap() {
            assert!(value.iter().all(|x| (x - 25.0 / 8.0).abs() < 1e-5), "{value}");
            values[place] += &value;
        }
        assert_eq!(
            Digest::of_values(&values),
            fleet.manifest().state,
            "devices that follow the changes hold the state"
        );
        assert_eq!(fleet.manifest().counted, [device(0), device(1), device(2)]);
    }
    assert_eq!(fleet.manifest().goal, fedtt_wire::message::Goal::Measure);
    fleet.round(&[0.0, 0.0, 0.0]);
    assert_eq!(fleet.status(), Status::Finished);
    assert_eq!(fleet.retained, BTreeMap::new());
    assert!(fleet.ended);
    let changes = fleet.coordinator.store().begin().unwrap();
    let records = changes.records(&fleet.run).unwrap();
    assert_eq!(
        records.iter().map(|r| (r.round, r.contributions.len())).collect::<Vec<_>>(),
        [(0, 3), (1, 3), (2, 3), (3, 3)]
    );
}

#[test]
fn what_must_not_count_is_counted_apart_and_named() {
    let mut fleet = Fleet::new(plan(2), 2);
    let good = fleet.update(0, 1.0, 10);
    let bad = |change: &dyn Fn(&mut Update)| {
        let mut update = good.clone();
        change(&mut update);
        update
    };
    let nan = |update: &mut Update| {
        let poisoned = ArrayD::from_elem(vec![update.tensors[0].data.len() / 4], f32::NAN);
        update.tensors[0] = EncodedTensor::encode(poisoned.view(), Encoding::F32, Some(false));
    };
    let cases: [(&str, Update); 8] = [
        ("another run of this name", bad(&|u| u.began += 1)),
        ("in the name of `d1`", bad(&|u| u.device = device(1))),
        ("another global state", bad(&|u| u.state = Digest::of(b"else"))),
        ("of round 7", bad(&|u| u.round = 7)),
        ("not a number", bad(&nan)),
        ("expected", bad(&|u| drop(u.tensors.pop()))),
        ("bytes for shape", bad(&|u| u.tensors[0].data = u.tensors[0].data[4..].to_vec().into())),
        ("0 examples", bad(&|u| u.examples = 0)),
    ];
    for (reason, update) in cases {
        match fleet.deliver(0, update) {
            Outcome::Rejected(said) => assert!(said.contains(reason), "{said}"),
            other => panic!("{reason}: {other:?}"),
        }
    }
    fleet.join(5, &[], "another bundle");
    let stranger = Update { device: device(5), ..good.clone() };
    assert!(matches!(fleet.deliver(5, stranger), Outcome::Rejected(reason) if reason.contains("cohort")));
    assert_eq!(fleet.deliver(0, good.clone()), Outcome::Accepted);
    assert_eq!(fleet.deliver(0, good.clone()), Outcome::Duplicate);
    assert_eq!(fleet.deliver(1, fleet.update(1, 3.0, 10)), Outcome::Accepted);
    assert_eq!(fleet.manifest().round, 1);
    assert_eq!(fleet.deliver(0, good.clone()), Outcome::Duplicate, "the answer may have been lost");
    fleet.round(&[1.0, 1.0]);
    assert_eq!(fleet.deliver(0, good), Outcome::Duplicate, "what counted is never called late");
    let refused = &fleet.coordinator.runs()[&fleet.run].summary().refused;
    assert_eq!((refused.foreign, refused.malformed, refused.outlying), (5, 3, 1));
    assert_eq!((refused.duplicate, refused.late), (3, 0));
    for garbage in [&b""[..], b"FT", b"FT\x02\x04aaaabbbb", b"FT\x01\x63aaaa", &[0xff; 40]] {
        fleet.send(Topic::Up(device(0)), garbage.to_vec());
    }
    assert_eq!(fleet.coordinator.refused().malformed, 5);
}

#[test]
fn a_host_that_is_restarted_before_every_message_ends_with_the_same_adapter() {
    let finish = |crash: bool| {
        let mut fleet = Fleet::new(Plan { rounds: 4, ..plan(3) }, 3);
        fleet.crash = crash;
        for round in 0..4 {
            fleet.round(&[round as f32, 0.5, -1.5]);
        }
        (fleet.manifest().state, fleet.coordinator.runs()[&fleet.run].summary().updates)
    };
    let undisturbed = finish(false);
    assert_eq!(undisturbed.1, 12);
    assert_eq!(finish(true), undisturbed);
}

#[test]
fn devices_that_left_with_a_broker_are_not_asked_and_those_there_get_time_to_say_so() {
    let mut fleet = Fleet::new(plan(3), 2);
    fleet.reconnect();
    [0, 2, 3, 4].into_iter().for_each(|i| fleet.join(i, &[], "bundle"));
    assert_eq!(fleet.coordinator.runs()[&fleet.run].collecting().map(|_| ()), None);
    fleet.wait(400);
    assert_eq!(fleet.manifest().cohort, [device(0), device(2), device(3), device(4)]);
}

#[test]
fn devices_put_out_of_the_fleet_are_waited_for_no_longer_and_what_was_forged_is_counted() {
    let mut fleet = Fleet::new(plan(2), 2);
    fleet.join(2, &[], "bundle");
    fleet.round(&[1.0, 1.0]);
    assert_eq!(fleet.manifest().cohort.len(), 3);
    let issued = fleet.manifest().issued;
    fleet.deliver(0, fleet.update(0, 1.0, 10));
    fleet.deliver(1, fleet.update(1, 1.0, 10));
    assert_eq!(fleet.manifest().round, 1);
    let forged = |kind| Input::Untrusted { device: device(2), kind, reason: "forged".into() };
    let inputs = vec![forged(Untrusted::Forged), forged(Untrusted::Replayed), Input::Gone { device: device(2) }];
    let effects = fleet.coordinator.handle(inputs, fleet.now + 1).unwrap();
    fleet.take(effects);
    assert_eq!(fleet.manifest().round, 2, "nothing is left to wait for");
    assert!(fleet.manifest().issued > issued);
    assert_eq!(fleet.manifest().cohort, [device(0), device(1)]);
    let refused = fleet.coordinator.refused();
    assert_eq!((refused.forged, refused.replayed), (1, 1));
}

#[test]
fn the_order_of_arrival_does_not_matter() {
    let state = |order: [usize; 3]| {
        let mut fleet = Fleet::new(plan(3), 3);
        for i in order {
            let update = fleet.update(i, [0.1, 0.7, 1e-7][i], [3, 5, 7][i]);
            fleet.deliver(i, update);
        }
        fleet.manifest().state
    };
    assert_eq!(state([0, 1, 2]), state([2, 0, 1]));
}

#[test]
fn operators_pause_step_resume_and_stop() {
    let mut fleet = Fleet::new(plan(1), 1);
    fleet.command(Command::Pause);
    assert_eq!(fleet.status(), Status::Pausing);
    fleet.round(&[1.0]);
    assert_eq!((fleet.status(), fleet.manifest().goal), (Status::Paused, fedtt_wire::message::Goal::Rest));
    fleet.wait(1_000_000);
    assert_eq!(fleet.manifest().goal, fedtt_wire::message::Goal::Rest);
    fleet.command(Command::Step);
    assert_eq!((fleet.status(), fleet.manifest().round), (Status::Running, 1));
    fleet.round(&[1.0]);
    assert_eq!(fleet.status(), Status::Paused);
    fleet.command(Command::Resume);
    fleet.round(&[1.0]);
    assert_eq!(fleet.manifest().round, 3);
    fleet.command(Command::Stop);
    assert_eq!((fleet.status(), fleet.retained.len()), (Status::Stopped, 0));
    let error = fleet.coordinator.command(fleet.run.as_str(), Command::Resume, 0).unwrap_err().to_string();
    assert!(error.contains("test-1 is stopped"), "{error}");
    assert!(fleet.coordinator.command("none", Command::Stop, 0).is_err());
}

#[test]
fn a_round_closes_with_enough_and_fails_with_too_few() {
    let mut fleet = Fleet::new(plan(4), 4);
    fleet.deliver(0, fleet.update(0, 1.0, 1));
    fleet.wait(59_000);
    assert_eq!(fleet.manifest().round, 0);
    fleet.wait(2_000);
    assert!(fleet.events.iter().any(|e| matches!(e, What::RoundFailed { reason } if reason.contains("2 needed"))));
    fleet.wait(6_000);
    assert_eq!((fleet.manifest().round, fleet.manifest().attempt), (0, 1));
    assert_eq!(
        fleet.deliver(0, fleet.update(0, 1.0, 1)),
        Outcome::Duplicate,
        "finished work counts in the next attempt"
    );
    fleet.deliver(1, fleet.update(1, 1.0, 1));
    fleet.wait(61_000);
    assert_eq!(fleet.manifest().round, 1);
    for attempt in 1..=4 {
        fleet.wait(61_000);
        fleet.wait(5_000 * attempt + 1);
    }
    assert_eq!(fleet.status(), Status::Paused);
    let reason = fleet.coordinator.runs()[&fleet.run].summary().reason.clone().unwrap();
    assert!(reason.contains("round 1 failed 4 times"), "{reason}");
}

#[test]
fn refusals_are_not_waited_for() {
    let mut fleet = Fleet::new(plan(3), 3);
    let refusal = Refusal { run: fleet.run.clone(), round: 0, reason: "quiet hours".into() };
    fleet.send(Topic::Up(device(2)), Message::from(refusal).encode(3).unwrap());
    fleet.deliver(0, fleet.update(0, 1.0, 1));
    fleet.deliver(1, fleet.update(1, 1.0, 1));
    assert_eq!(fleet.manifest().round, 1);
    let device = &fleet.coordinator.devices()[&device(2)];
    assert_eq!(device.last_refusal.as_ref().unwrap().1, "quiet hours");
}

#[test]
fn cohorts_hold_only_devices_that_fit() {
    let mut wanted = plan(2);
    wanted.selection.labels = vec!["north".into()];
    let mut fleet = Fleet::new(wanted, 1);
    fleet.join(1, &["north"], "bundle");
    fleet.join(2, &["north"], "another bundle");
    assert!(!fleet.retained.contains_key(&format!("{:?}", Topic::Round(fleet.run.clone()))));
    fleet.join(3, &["south", "north"], "bundle");
    assert_eq!(fleet.manifest().cohort, [device(1), device(3)]);
}

#[test]
fn the_same_token_starts_a_run_once() {
    let mut fleet = Fleet::new(plan(1), 1);
    let again = fleet.coordinator.start(plan(1), blueprint(), Some("token"), 5).unwrap();
    assert_eq!(again, (fleet.run.clone(), false));
    let other = fleet.coordinator.start(plan(1), blueprint(), None, 5).unwrap();
    assert_eq!((other.0.as_str(), other.1), ("test-2", true));
}

#[test]
fn lost_chunks_are_asked_for() {
    let mut fleet = Fleet::new(plan(1), 1);
    let update = fleet.update(0, 1.0, 1);
    let payload = Message::from(update).encode(3).unwrap();
    let chunks = chunk::split(&fleet.run.clone(), 0, &payload, payload.len() / 5);
    assert!(chunks.len() > 3);
    let mut send = |i: usize| {
        fleet.send(Topic::Up(device(0)), Message::from(chunks[i].clone()).encode(3).unwrap());
        fleet.verdicts.pop().map(|(_, verdict)| verdict.outcome)
    };
    let last = chunks.len() - 1;
    (1..last).filter(|&i| i != 2).for_each(|i| assert_eq!(send(i), None));
    assert_eq!(send(last), Some(Outcome::Missing(vec![0, 2])));
    assert_eq!(send(0), None);
    assert_eq!(send(2), Some(Outcome::Accepted));
}

#[test]
fn with_one_core_only_its_bytes_travel() {
    let mut one = plan(1);
    one.schedule.cores = CoreRule::One;
    one.schedule.biases = 0;
    one.schedule.head = 0;
    let mut fleet = Fleet::new(one, 1);
    let layers = fleet.coordinator.runs()[&fleet.run].parameters().iter().map(|p| p.layer.clone());
    let trains = layers.filter(|layer| !layer.starts_with("head")).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(fleet.update(0, 1.0, 1).tensors.len(), trains);
    fleet.round(&[1.0]);
    assert_eq!(fleet.tensors(Topic::Change).places.len(), trains);
}

#[test]
fn a_device_that_gets_the_bundle_first_is_told_of_once() {
    let mut fleet = Fleet::new(plan(1), 1);
    let say = |fleet: &mut Fleet, fetching: &[&str]| {
        let fetching = fetching.iter().map(ToString::to_string).collect();
        let presence = Presence { online: true, fetches: true, fetching, ..Presence::default() };
        fleet.send(Topic::Presence(device(0)), Message::from(presence).encode(3).unwrap());
    };
    for fetching in [&["bundle"][..], &["bundle", "other"], &[], &["other"], &["bundle"]] {
        say(&mut fleet, fetching);
    }
    let told = |what: &&What| matches!(what, What::Fetching { device } if device == "d0");
    assert_eq!(fleet.events.iter().filter(told).count(), 2);
}
