//! A peer that means harm, in the cohort and out of it: counted, named, and without effect on the run or the host.

use std::time::Duration;

use fedtt_link::{BrokerUrl, Delivery, Link, LinkConfig, Publication};
use fedtt_wire::chunk;
use fedtt_wire::message::{Chunk, Goal, Manifest, Measurement, Parcel, Presence, Refusal, RunPlan, Update};
use fedtt_wire::plan::Encoding;
use fedtt_wire::seal::unsealed;
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::{DeviceName, Digest, FleetName, Message, RunId, SigningKey, Topic, Topics};
use ndarray::ArrayD;
use serde_json::Value;

use crate::fleet::Fleet;

const ROUNDS: u64 = 3;
const PLAN: &str = "name = 'hostile'\nrounds = 3\nseed = 7\n[model]\nlabels = ['a', 'b', 'c']\nmax_length = 16\n\
    [adapter]\nbottleneck = 8\nrank = 2\n[selection]\nmin = 3\n[collection]\ncount = { min = 2 }\n[wire]\nchunk = 4096\n";

fn device(name: &str) -> DeviceName {
    DeviceName::new(name).unwrap()
}

fn zeros(plan: &RunPlan, value: f32) -> Vec<EncodedTensor> {
    let tensors = plan.layout.zeros().into_iter();
    tensors.map(|zero| EncodedTensor::encode((zero + value).view(), Encoding::F32, Some(false))).collect()
}

fn chunks(update: &Update) -> Vec<Vec<u8>> {
    let payload = Message::from(update.clone()).encode(3).unwrap();
    let chunks = chunk::split(&update.run, update.round, &payload, 4096).into_iter();
    chunks.map(|chunk| Message::from(chunk).encode(0).unwrap()).collect()
}

/// What is published in a round: whose topic, and what, sealed with mallory's key unless it is replayed or garbage.
fn attacks(key: &SigningKey, plan: &RunPlan, manifest: &Manifest, replay: &[Vec<u8>]) -> Vec<(&'static str, Vec<u8>)> {
    let (run, round) = (&plan.run, manifest.round);
    let good = Update {
        run: run.clone(),
        began: manifest.began,
        round,
        state: manifest.state,
        device: device("mallory"),
        examples: 9,
        steps: 1,
        tokens: 0,
        loss: 1.0,
        seconds: 0.1,
        joules: None,
        measured: None,
        sent: 0,
        received: 0,
        tensors: zeros(plan, 1.0),
    };
    let bad = |change: &dyn Fn(&mut Update)| {
        let mut update = good.clone();
        change(&mut update);
        update
    };
    let long = || "a".repeat(64 << 20);
    let bomb = Measurement { examples: 1, loss: 1.0, metric: long(), value: 1.0 };
    let updates = [
        bad(&|u| u.tensors = zeros(plan, f32::NAN)),
        bad(&|u| u.loss = f64::INFINITY),
        bad(&|u| drop(u.tensors.pop())),
        bad(&|u| u.tensors[0].data = u.tensors[0].data[4..].to_vec().into()),
        bad(&|u| {
            let odd = ArrayD::<f32>::zeros(vec![3]);
            u.tensors[0] = EncodedTensor::encode(odd.view(), Encoding::F32, Some(false));
        }),
        bad(&|u| u.examples = 0),
        bad(&|u| u.examples = u64::MAX),
        bad(&|u| u.device = device("site-0")),
        bad(&|u| u.state = Digest::of(b"another")),
        bad(&|u| u.round += 5),
        bad(&|u| u.run = RunId::new("other-1").unwrap()),
        bad(&|u| u.measured = Some(bomb.clone())),
    ];
    let mut all: Vec<(&str, Vec<u8>)> =
        updates.iter().flat_map(chunks).map(|payload| ("up/mallory", payload)).collect();
    all.extend(chunks(&bad(&|u| u.device = device("stranger"))).into_iter().map(|payload| ("up/stranger", payload)));
    let parcel = Parcel { digest: Digest::of(b""), size: u64::MAX, chunks: u32::MAX };
    let whole = chunks(&good).remove(0);
    let mut version = whole.clone();
    version[2] = 9;
    let mut damaged = whole.clone();
    damaged[20] ^= 1;
    let chunk = |parcel, index| Chunk { run: run.clone(), round, parcel, index, data: vec![7; 100].into() };
    let frames: Vec<Vec<u8>> = vec![
        Message::from(chunk(parcel, 0)).encode(0).unwrap(),
        Message::from(chunk(Parcel { size: 100, chunks: u32::MAX, ..parcel }, 0)).encode(0).unwrap(),
        Message::from(chunk(Parcel { size: 100, chunks: 2, ..parcel }, 77)).encode(0).unwrap(),
        Message::from(chunk(Parcel { size: 100, chunks: 1, ..parcel }, 0)).encode(0).unwrap(),
        Message::from(Refusal { run: run.clone(), round, reason: long(), until: Some(u64::MAX) }).encode(3).unwrap(),
        Message::from(manifest.clone()).encode(3).unwrap(),
        whole[..whole.len() / 2].to_vec(),
        version,
        damaged,
        b"FT".to_vec(),
        vec![0xff; 1 << 20],
    ];
    all.extend(frames.iter().map(|frame| ("up/mallory", frame.clone())));
    for (topic, frame) in &mut all {
        *frame = key.seal(&format!("fedtt/fedtt/{topic}"), std::mem::take(frame));
    }
    for payload in replay {
        all.extend([("up/site-0", payload.clone()), ("up/mallory", payload.clone())]);
    }
    let garbage = ["presence/mallet", "down/site-0", "up/site-1", "run/hostile-1/plan", "run/hostile-1/round"];
    let more = ["run/hostile-1/change/0", "run/hostile-1/state/0", "run/nothing-1/plan", "run/hostile-1/else"];
    all.extend(garbage.into_iter().chain(more).map(|topic| (topic, vec![0x5a; 333])));
    all
}

/// Takes part as `mallory`, who declines every round, after attacks or without any.
async fn mallory(broker: BrokerUrl, bundle: String, attacking: bool) {
    let fleet = FleetName::new("fedtt").unwrap();
    let topics = Topics::new(&fleet);
    let (link, mut inbox) = Link::connect(LinkConfig::new(broker, "mallory")).await.unwrap();
    link.subscribe("fedtt/fedtt/run/#").await.unwrap();
    link.subscribe(topics.name(&Topic::Up(device("site-0")))).await.unwrap();
    let publish = |topic: String, payload: Vec<u8>, retain| {
        let publication = Publication { topic, payload: payload.into(), retain };
        async { link.publish(publication).await.unwrap() }
    };
    let key = SigningKey::from_seed(&[66; 32]).unwrap();
    // The stranger has nothing to train on.
    for (name, bundles) in [("mallory", vec![bundle]), ("stranger", vec![])] {
        let presence = Presence {
            online: true,
            version: "0".into(),
            labels: Vec::new(),
            engine: "none".into(),
            bundles,
            fetches: false,
            fetching: Vec::new(),
            examples: 9,
            problem: None,
            key: Some(key.public()),
            session: 1,
            beat: 1,
        };
        let topic = topics.name(&Topic::Presence(device(name)));
        let presence = key.seal(&topic, Message::from(presence).encode(3).unwrap());
        publish(topic, presence, true).await;
    }
    let up = topics.name(&Topic::Up(device("mallory")));
    let (mut plan, mut seen, mut replay) = (None, None, Vec::new());
    while let Some(delivery) = inbox.recv().await {
        let Delivery::Message { topic, payload, .. } = delivery else { continue };
        let Ok((frame, _)) = unsealed(&payload) else { continue };
        let message = Message::decode(frame, 64 << 20);
        match (topics.parse(&topic), message) {
            (Some(Topic::Up(_)), Ok(Message::Chunk(_))) if replay.len() < 8 => replay.push(payload.to_vec()),
            (Some(Topic::Plan(_)), Ok(Message::RunPlan(announced))) => plan = Some(announced),
            (Some(Topic::Round(run)), Ok(Message::Manifest(manifest))) if seen != Some(manifest.round) => {
                seen = Some(manifest.round);
                let Some(plan) = &plan else { continue };
                if attacking && manifest.goal == Goal::Train {
                    for (topic, payload) in attacks(&key, plan, &manifest, &replay) {
                        publish(format!("fedtt/fedtt/{topic}"), payload, false).await;
                    }
                }
                let refusal = Refusal { run, round: manifest.round, reason: "no more today".into(), until: None };
                let refusal = key.seal(&up, Message::from(refusal).encode(3).unwrap());
                publish(up.clone(), refusal, false).await;
            }
            _ => {}
        }
    }
}

/// What the host told, the run's summary, its adapter, the most memory the host had.
fn run(attacking: bool) -> (Vec<Value>, Value, Vec<u8>, u64) {
    let mut fleet = Fleet::start(None, 0, PLAN, 2, Duration::from_millis(100));
    let attack = mallory(BrokerUrl::tcp(fleet.broker()), fleet.bundle().to_string(), attacking);
    let attack = fleet.runtime.spawn(attack);
    let told = fleet.wait();
    assert!(!attack.is_finished(), "the attack ran into trouble of its own");
    let memory = fleet.host_memory();
    let (summary, adapter) = fleet.outcome(ROUNDS, &["site-0", "site-1"]);
    (told, summary, adapter, memory)
}

#[test]
fn hostile_peers_are_counted_and_named_and_change_nothing() {
    let (_, clean, expected, usual) = run(false);
    assert_eq!(clean["refused"]["foreign"], 0, "{clean}");
    let (told, summary, adapter, memory) = run(true);
    assert!(adapter == expected, "the adapter is that of a run without attacks");
    assert!(memory < usual + (96 << 20), "{} MB, against {} MB without attacks", memory >> 20, usual >> 20);
    let count = |kind: &str| summary["refused"][kind].as_u64().unwrap();
    for (kind, least) in [("foreign", 4 * ROUNDS), ("malformed", 8 * ROUNDS), ("outlying", 2 * ROUNDS)] {
        assert!(count(kind) >= least, "{kind}: {summary}");
    }
    assert!(count("duplicate") + count("late") > 0, "what was replayed: {summary}");
    let refused = |who: &str, what: &str| {
        told.iter().any(|line| {
            let event = &line["event"];
            let by_event = event["device"] == who && event["reason"].as_str().is_some_and(|r| r.contains(what));
            by_event || line["source"] == who && line["warning"].as_str().is_some_and(|w| w.contains(what))
        })
    };
    for (who, what) in [
        ("mallory", "not a number"),
        ("mallory", "in the name of `site-0`"),
        ("mallory", "another global state"),
        ("mallory", "which has not begun"),
        ("mallory", "examples"),
        ("mallory", "bytes for shape"),
        ("mallory", "version 9"),
        ("mallory", "of run `other-1`"),
        ("mallory", "not for the host"),
        ("stranger", "cohort"),
        ("mallet", "FT"),
        ("mallory", "signature"),
        ("site-1", "signature"),
    ] {
        assert!(refused(who, what), "nothing told of {who} and {what}: {told:#?}");
    }
}
