//! A broker that means harm: it has nobody's key, but repeats, moves, changes, clears and makes up whatever it likes. Counted
//! and named, and the adapter is that of a run without it.

use std::collections::BTreeMap;
use std::time::Duration;

use fedtt_link::{BrokerUrl, Delivery, Link, LinkConfig, Publication};
use fedtt_wire::message::{End, Goal, Host, Manifest, Outcome, Presence, RunPlan, Verdict};
use fedtt_wire::seal::unsealed;
use fedtt_wire::{DeviceName, Digest, FleetName, Message, SigningKey, Topic, Topics};
use serde_json::Value;

use crate::fleet::Fleet;

const ROUNDS: u64 = 4;
const PLAN: &str = "name = 'broker'\nrounds = 4\nseed = 7\n[model]\nlabels = ['a', 'b', 'c']\nmax_length = 16\n\
    [adapter]\nbottleneck = 8\nrank = 2\n[selection]\nmin = 2\n[collection]\ncount = { min = 2 }\n[wire]\nchunk = 4096\n";

/// Everything that was published, by topic, in order.
type Heard = BTreeMap<String, Vec<Vec<u8>>>;

/// What is done in a round: where, what, and whether it is to be kept.
fn harm(key: &SigningKey, heard: &Heard, plan: &RunPlan, manifest: &Manifest) -> Vec<(String, Vec<u8>, bool)> {
    let topics = Topics::new(&FleetName::new("fedtt").unwrap());
    let site = || DeviceName::new("site-0").unwrap();
    let (run, began) = (plan.run.clone(), plan.began);
    let mut all = Vec::new();
    // Made up: what would stop the run, or lead it astray.
    let mut asks = manifest.clone();
    (asks.issued, asks.round, asks.goal) = (manifest.issued + 1_000_000, manifest.round + 1, Goal::Train);
    let rest = Manifest { goal: Goal::Rest, cohort: Vec::new(), ..asks.clone() };
    let mut other = plan.clone();
    (other.began, other.plan.seed) = (began + 1, 99);
    let verdict = |update: &[u8]| {
        let update = Digest::of(update);
        Verdict { run: run.clone(), round: manifest.round, update, outcome: Outcome::Rejected("no".into()) }
    };
    let gone = |online| Presence { online, session: u64::MAX, key: Some(key.public()), ..Presence::default() };
    let made_up: Vec<(Topic, Message)> = vec![
        (Topic::Round(run.clone()), asks.into()),
        (Topic::Round(run.clone()), rest.into()),
        (Topic::Plan(run.clone()), other.into()),
        (Topic::Plan(run.clone()), End { run: run.clone(), began }.into()),
        (Topic::Down(site()), verdict(b"payload").into()),
        (Topic::Presence(site()), gone(false).into()),
        (Topic::Presence(site()), gone(true).into()),
        (Topic::Host, Host { key: key.public(), version: "0".into() }.into()),
    ];
    for (topic, message) in made_up {
        let name = topics.name(&topic);
        let frame = message.encode(3).unwrap();
        all.push((name.clone(), key.seal(&name, frame.clone()), false));
        all.push((name, frame, false));
    }
    for (topic, payloads) in heard {
        // Cleared, then repeated from the beginning, so that in the end the broker keeps what it should.
        let kept = !topic.contains("/up/") && !topic.contains("/down/");
        if kept && !topic.ends_with("/host") {
            all.push((topic.clone(), Vec::new(), true));
        }
        for payload in payloads {
            let mut damaged = payload.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 1;
            all.push((topic.clone(), damaged, false));
            all.push((topic.clone(), payload.clone(), kept));
            let elsewhere = match topic.contains("site-0") {
                true => topic.replace("site-0", "site-1"),
                false => topics.name(&Topic::Down(site())),
            };
            all.push((elsewhere, payload.clone(), false));
        }
    }
    all
}

/// Listens to everything and does harm in every round.
async fn mallory(broker: BrokerUrl) {
    let topics = Topics::new(&FleetName::new("fedtt").unwrap());
    let (link, mut inbox) = Link::connect(LinkConfig::new(broker, "mallory")).await.unwrap();
    link.subscribe("fedtt/fedtt/#").await.unwrap();
    let key = SigningKey::from_seed(&[66; 32]).unwrap();
    let (mut heard, mut plan, mut host, mut seen) = (Heard::new(), None, None, 0);
    while let Some(delivery) = inbox.recv().await {
        let Delivery::Message { topic, payload, .. } = delivery else { continue };
        let Ok((frame, _)) = unsealed(&payload) else { continue };
        let Ok(message) = Message::decode(frame, 64 << 20) else { continue };
        if let (Message::Host(introduced), None) = (&message, host) {
            host = Some(introduced.key);
            // To a new subscription the broker says again what it keeps.
            link.subscribe("fedtt/fedtt/#").await.unwrap();
        }
        let by_host = host.is_some_and(|host| host.open(&topic, &payload).is_ok());
        let by_device = matches!(topics.parse(&topic), Some(Topic::Up(_) | Topic::Presence(_)));
        let before = heard.entry(topic.clone()).or_default();
        if (by_host || by_device) && before.len() < 40 && !before.contains(&payload.to_vec()) {
            before.push(payload.to_vec());
        }
        match message {
            Message::RunPlan(announced) if by_host => plan = Some(announced),
            Message::Manifest(manifest) if by_host && manifest.issued > seen => {
                seen = manifest.issued;
                let Some(plan) = &plan else { continue };
                for (topic, payload, retain) in harm(&key, &heard, plan, &manifest) {
                    link.publish(Publication { topic, payload: payload.into(), retain }).await.unwrap();
                }
            }
            _ => {}
        }
    }
}

/// What the host told, the run's summary, its adapter, what the devices told.
fn run(attacking: bool) -> (Vec<Value>, Value, Vec<u8>, String) {
    let mut fleet = Fleet::start(None, 0, PLAN, 2, Duration::from_millis(300));
    let harm = attacking.then(|| fleet.runtime.spawn(mallory(BrokerUrl::tcp(fleet.broker()))));
    let told = fleet.wait();
    assert!(harm.is_none_or(|harm| !harm.is_finished()), "the attack ran into trouble of its own");
    let log = |i: u32| std::fs::read_to_string(fleet.path(&format!("site-{i}.log"))).unwrap();
    let logs = log(0) + &log(1);
    let (summary, adapter) = fleet.outcome(ROUNDS, &["site-0", "site-1"]);
    (told, summary, adapter, logs)
}

#[test]
fn a_hostile_broker_is_told_and_changes_nothing() {
    let (_, _, expected, quiet) = run(false);
    assert!(!quiet.contains("Forged"), "{quiet}");
    let (told, summary, adapter, logs) = run(true);
    assert!(adapter == expected, "the adapter is that of a run left alone");
    let warned = |who: &str, what: &str| {
        told.iter().any(|line| line["source"] == who && line["warning"].as_str().is_some_and(|w| w.contains(what)))
    };
    for (who, what) in [("site-0", "signature"), ("site-1", "signature"), ("site-0", "another key")] {
        assert!(warned(who, what), "nothing told of {who} and {what}: {told:#?}");
    }
    for topic in ["run/broker-1/round", "run/broker-1/plan", "down/site-0", "fedtt/fedtt/host"] {
        let line = |line: &str| line.contains("Forged") && line.contains(topic);
        assert!(logs.lines().any(line), "no device told of {topic}:\n{logs}");
    }
    let refused = &summary["refused"];
    assert!(refused["duplicate"].as_u64().unwrap() + refused["late"].as_u64().unwrap() > 0, "{summary}");
    let trained = |round: u64| logs.matches(&format!("Training {{ round: {round},")).count();
    for round in 0..ROUNDS {
        assert_eq!(trained(round), 2, "round {round}: each device once:\n{logs}");
    }
    assert_eq!(trained(ROUNDS + 1), 0);
}
