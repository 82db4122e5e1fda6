//! Devices whose files cannot be read, or whose disk takes nothing.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fedtt_link::broker::{BrokerConfig, EmbeddedBroker};
use fedtt_link::{BrokerUrl, Delivery, Inbox, Link, LinkConfig, Publication};
use fedtt_runtime::{EngineChoice, EngineConfig};
use fedtt_wire::message::{self, End, Presence, SMALL};
use fedtt_wire::seal::unsealed;
use fedtt_wire::{Message, RunId, SigningKey, Topic, Topics};
use tokio::sync::watch;

use crate::daemon::readiness::look;
use crate::daemon::{DaemonError, EdgeConfig, Settings, Told, take_part};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn settings(broker: BrokerUrl, folder: &Path) -> Settings {
    let data = format!("data.files=['{}']", folder.join("reports.tsv").display());
    let plain = EdgeConfig::read(None, &["name=d1".into(), data]).unwrap().settings().unwrap();
    let engine = EngineConfig { choice: EngineChoice::Tract, threads: 1, ..EngineConfig::default() };
    Settings { broker, state: folder.join("state"), engine, ..plain }
}

/// What the host sees of the device.
struct Host {
    link: Link,
    inbox: Inbox,
    topics: Topics,
    key: SigningKey,
}

impl Host {
    async fn start(broker: &EmbeddedBroker, settings: &Settings) -> Self {
        let (link, inbox) = Link::connect(LinkConfig::new(broker.url(), "host")).await.unwrap();
        let topics = Topics::new(&settings.fleet);
        link.subscribe(topics.name(&Topic::Presence(settings.name.clone()))).await.unwrap();
        Host { link, inbox, topics, key: SigningKey::from_seed(&[1; 32]).unwrap() }
    }

    async fn presence(&mut self, wanted: impl Fn(&Presence) -> bool) -> Presence {
        let heard = async {
            loop {
                let Some(Delivery::Message { payload, .. }) = self.inbox.recv().await else { continue };
                let Message::Presence(presence) = Message::decode(unsealed(&payload).unwrap().0, SMALL).unwrap() else {
                    panic!()
                };
                if wanted(&presence) {
                    break presence;
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("the device says so")
    }

    async fn unready(&mut self, why: &str) {
        let says = |presence: &Presence| presence.problem.as_ref().is_some_and(|problem| problem.contains(why));
        let presence = self.presence(|presence| presence.online && says(presence)).await;
        assert_eq!((presence.examples, presence.bundles.len()), (0, 0));
    }

    async fn ready(&mut self) -> Presence {
        self.presence(|presence| presence.online && presence.problem.is_none()).await
    }

    async fn say(&self, topic: Topic, message: impl Into<Message>) {
        let topic = self.topics.name(&topic);
        let payload = self.key.seal(&topic, message.into().encode(3).unwrap()).into();
        self.link.publish(Publication { topic, payload, retain: false }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_device_is_said_to_its_host_until_it_is_mended() {
    let broker = EmbeddedBroker::start(BrokerConfig::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(broker.url(), folder.path());
    let mut host = Host::start(&broker, &settings).await;
    let (stop, stopping) = watch::channel(false);
    let told = Arc::new(Mutex::new(Vec::new()));
    let noted = told.clone();
    let tell = Arc::new(move |told: Told| {
        if let Told::Unready { reason } = told {
            noted.lock().unwrap().push(reason);
        }
    });
    let device = tokio::spawn(take_part(settings.clone(), LOOK_EVERY, stopping, tell));

    let data = folder.path().join("reports.tsv");
    host.unready("reports.tsv").await;
    fs::write(&data, [0xff, 0xfe, 0x00]).unwrap();
    host.unready("UTF-8").await;
    fs::write(&data, "text\tlabel\nthe pump hums\tpump\nthe lamp is out\tlamp\n").unwrap();
    let presence = host.ready().await;
    assert!(
        presence.examples == 2 && presence.bundles.len() == 1 && presence.engine.starts_with("tract"),
        "{presence:?}"
    );

    // A disk that takes nothing, while it works.
    let ledger = settings.state.join("ledger.ft");
    fs::create_dir(&ledger).unwrap();
    host.say(Topic::Host, message::Host { key: host.key.public(), version: "0".into() }).await;
    let run = RunId::new("r1").unwrap();
    host.say(Topic::Plan(run.clone()), End { run, began: 1 }).await;
    host.unready("ledger.ft").await;
    fs::remove_dir(&ledger).unwrap();
    host.ready().await;

    stop.send(true).unwrap();
    assert!(!host.presence(|presence| !presence.online).await.online);
    tokio::time::timeout(PATIENCE, device).await.unwrap().unwrap().unwrap();
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert!(told.len() >= 3, "{told:?}");
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn each_thing_a_device_needs_is_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let away = BrokerUrl::tcp("127.0.0.1:1".parse().unwrap());
    let plain = settings(away, folder.path());
    fs::write(folder.path().join("reports.tsv"), "text\tlabel\nthe pump hums\tpump\n").unwrap();
    assert_eq!(look(&plain).await.unwrap().presence.examples, 1);
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let engine =
        EngineConfig { choice: EngineChoice::Ort, library: Some("/nowhere/lib.so".into()), ..plain.engine.clone() };
    for (settings, why) in [
        (Settings { bundles: vec![folder.path().join("bundle")], ..plain.clone() }, "bundle"),
        (Settings { state: file, ..plain.clone() }, "cannot write to"),
        (Settings { engine, ..plain.clone() }, "/nowhere/lib.so"),
    ] {
        let problem = look(&settings).await.unwrap_err().to_string();
        assert!(problem.contains(why), "{problem}");
    }
}

#[tokio::test]
async fn a_state_in_use_is_an_error_whatever_else_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let away = BrokerUrl::tcp("127.0.0.1:1".parse().unwrap());
    let settings = settings(away, folder.path());
    let _held = crate::daemon::StateDir::open(&settings.state).unwrap();
    let (_stop, stopping) = watch::channel(false);
    let error = take_part(settings, LOOK_EVERY, stopping, Arc::new(|_| {})).await.unwrap_err();
    assert!(matches!(error, DaemonError::Store(_)) && error.to_string().contains("in use"), "{error}");
}
