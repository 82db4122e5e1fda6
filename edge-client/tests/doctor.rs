//! The doctor against a broker and a host played by hand.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{SystemTime, UNIX_EPOCH};

use fedtt_edge::board::Board;
use fedtt_edge::daemon::EdgeConfig;
use fedtt_edge::doctor::{Check, Level, examine};
use fedtt_link::broker::{BrokerConfig, EmbeddedBroker};
use fedtt_link::{BrokerUrl, Delivery, Link, LinkConfig, Publication};
use fedtt_wire::message::{Greeting, Host, SMALL};
use fedtt_wire::{DeviceName, FleetName, Message, SigningKey, Topic, Topics};

/// How far the host's clock is behind, in milliseconds.
const BEHIND: u64 = 90_000;

async fn examined(broker: &EmbeddedBroker) -> Vec<Check> {
    let state = tempfile::tempdir().unwrap();
    let set = [
        "name=d1".to_string(),
        "engine.engine=tract".into(),
        format!("state={}", state.path().display()),
        format!("broker=mqtt://{}", broker.address()),
    ];
    examine(EdgeConfig::read(None, &set).unwrap(), &Board::default()).await
}

fn one<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no {name}: {checks:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_is_asked_whether_it_hears_and_what_time_it_has() {
    let broker = EmbeddedBroker::start(BrokerConfig::default()).await.unwrap();
    let checks = examined(&broker).await;
    assert_eq!((one(&checks, "broker").level, one(&checks, "host").level), (Level::Ok, Level::Warn));
    assert_eq!(one(&checks, "host").finding, "no host has said that it is there");

    let (topics, device) = (Topics::new(&FleetName::new("fedtt").unwrap()), DeviceName::new("d1").unwrap());
    let key = SigningKey::from_seed(&[7; 32]).unwrap();
    let (link, mut inbox) = Link::connect(LinkConfig::new(BrokerUrl::tcp(broker.address()), "host")).await.unwrap();
    let say = |topic: Topic, message: Message, retain| {
        let topic = topics.name(&topic);
        let payload = key.seal(&topic, message.encode(0).unwrap()).into();
        link.publish(Publication { topic, payload, retain })
    };
    let up = topics.name(&Topic::Up(device.clone()));
    link.subscribe(up.clone()).await.unwrap();
    say(Topic::Host, Host { key: key.public(), version: "9".into() }.into(), true).await.unwrap();
    link.flush().await.unwrap();
    let answer = async {
        loop {
            let Some(Delivery::Message { topic, payload, .. }) = inbox.recv().await else { continue };
            let frame = fedtt_wire::seal::unsealed(&payload).unwrap().0;
            let Message::Hello(hello) = Message::decode(frame, SMALL).unwrap() else { panic!("{topic}") };
            assert!(hello.key.open(&up, &payload).is_ok(), "it is the device's own");
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
            let greeting = Greeting { nonce: hello.nonce, time: now - BEHIND, version: "9".into() };
            say(Topic::Down(device.clone()), greeting.into(), false).await.unwrap();
        }
    };
    let checks = tokio::select! {
        checks = examined(&broker) => checks,
        () = answer => unreachable!("it answers without end"),
    };
    assert_eq!(one(&checks, "host").finding, "fedtt 9 hears this device and takes its messages");
    let clock = one(&checks, "clock");
    assert!(clock.level == Level::Warn && clock.finding.ends_with("s ahead of the host's"), "{clock:?}");
    // Without an answer, it is said that a host is there.
    let checks = examined(&broker).await;
    let host = one(&checks, "host");
    assert!(host.level == Level::Warn && host.finding.contains("does not answer this device"), "{host:?}");
    link.shutdown().await;
    broker.shutdown().await.unwrap();
}
