//! Devices whose files cannot be read, or whose disk takes nothing.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fedtt_link::broker::{BrokerConfig, EmbeddedBroker};
use fedtt_link::{BrokerUrl, Delivery, Inbox, Link, LinkConfig, Publication};
use fedtt_runtime::{EngineChoice, EngineConfig};
use fedtt_wire::message::{self, End, Outcome, Presence, SMALL, Verdict};
use fedtt_wire::seal::unsealed;
use fedtt_wire::{Digest, Message, RunId, SigningKey, Topic, Topics};
use tokio::sync::watch;

use crate::daemon::place::begin_looking;
use crate::daemon::readiness::{Depth, Looking, Ready, Unready};
use crate::daemon::{DaemonError, EdgeConfig, Settings, StateDir, Told, take_part};
use crate::identity::Identity;
use crate::round::{Slot, stored};

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
        for topic in [Topic::Presence(settings.name.clone()), Topic::Up(settings.name.clone())] {
            link.subscribe(topics.name(&topic)).await.unwrap();
        }
        Host { link, inbox, topics, key: SigningKey::from_seed(&[1; 32]).unwrap() }
    }

    async fn hear<T>(&mut self, wanted: impl Fn(Message) -> Option<T>) -> T {
        let heard = async {
            loop {
                let Some(Delivery::Message { payload, .. }) = self.inbox.recv().await else { continue };
                if let Some(found) = wanted(Message::decode(unsealed(&payload).unwrap().0, SMALL).unwrap()) {
                    break found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("the device says so")
    }

    async fn presence(&mut self, wanted: impl Fn(&Presence) -> bool) -> Presence {
        let presence = |message| if let Message::Presence(presence) = message { Some(presence) } else { None };
        self.hear(|message| presence(message).filter(|presence| wanted(presence))).await
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
    fs::write(&data, [0xe9, b'\n']).unwrap();
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

/// A device that looks often; and what stops it.
fn start(settings: &Settings) -> (watch::Sender<bool>, tokio::task::JoinHandle<Result<(), DaemonError>>) {
    let (stop, stopping) = watch::channel(false);
    (stop, tokio::spawn(take_part(settings.clone(), LOOK_EVERY, stopping, Arc::new(|_| {}))))
}

async fn stop((stop, device): (watch::Sender<bool>, tokio::task::JoinHandle<Result<(), DaemonError>>)) {
    stop.send(true).unwrap();
    tokio::time::timeout(PATIENCE, device).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_was_made_is_delivered_by_a_device_that_waits_to_be_mended() {
    let broker = EmbeddedBroker::start(BrokerConfig::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(broker.url(), folder.path());
    let (payload, run) = (b"made before".to_vec(), RunId::new("r1").unwrap());
    let (store, _) = StateDir::open(&settings.state).unwrap();
    store.save(&run, Slot::Work, &stored::open_update(&payload)).unwrap();
    drop(store);
    let mut host = Host::start(&broker, &settings).await;
    Identity::open(&settings.state).unwrap().pin_host(host.key.public()).unwrap();
    let device = start(&settings);
    host.unready("reports.tsv").await;
    let part = host.hear(|message| if let Message::Chunk(chunk) = message { Some(chunk) } else { None }).await;
    assert_eq!((&part.run, part.parcel.digest), (&run, Digest::of(&payload)));
    let file = settings.state.join("runs/r1/work.ft");
    assert!(stored::is_open(&fs::read(&file).unwrap()));
    let verdict = Verdict { run, round: 0, update: Digest::of(&payload), outcome: Outcome::Accepted };
    host.say(Topic::Down(settings.name.clone()), verdict).await;
    let settled = async {
        while stored::is_open(&fs::read(&file).unwrap()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("it is written down");
    stop(device).await;
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_added_while_it_runs_are_announced() {
    let broker = EmbeddedBroker::start(BrokerConfig::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(broker.url(), folder.path());
    let data = folder.path().join("reports.tsv");
    let rows = "text\tlabel\nthe pump hums\tpump\nthe lamp is out\tlamp\n";
    fs::write(&data, rows).unwrap();
    let mut host = Host::start(&broker, &settings).await;
    let device = start(&settings);
    assert_eq!(host.ready().await.examples, 2);
    fs::write(&data, format!("{rows}the pump leaks\tpump\n")).unwrap();
    assert_eq!(host.presence(|presence| presence.examples == 3).await.problem, None);
    fs::remove_file(&data).unwrap();
    host.unready("reports.tsv").await;
    fs::write(&data, rows).unwrap();
    assert_eq!(host.ready().await.examples, 2);
    stop(device).await;
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_file_that_has_not_changed_is_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let plain = settings(BrokerUrl::tcp("127.0.0.1:1".parse().unwrap()), folder.path());
    let data = folder.path().join("reports.tsv");
    fs::write(&data, "text\tlabel\nthe pump hums\tpump\n").unwrap();
    let mut looking = Looking::new(&plain);
    for depth in [Depth::Disk, Depth::Files, Depth::State, Depth::Files] {
        let (ready, changed) = looking.look(depth).await.unwrap();
        assert_eq!((ready.presence.examples, changed), (1, depth == Depth::Disk), "{depth:?}");
    }
    fs::remove_file(&data).unwrap();
    looking.look(Depth::Files).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_before_there_were_keys_is_waited_for() {
    let broker = EmbeddedBroker::start(BrokerConfig::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("reports.tsv"), "text\tlabel\nthe pump hums\tpump\n").unwrap();
    let disk = folder.path().join("disk");
    fs::write(&disk, "no folder").unwrap();
    let settings = Settings { state: disk.join("state"), ..settings(broker.url(), folder.path()) };
    let (stop, stopping) = watch::channel(false);
    let told = Arc::new(Mutex::new(Vec::new()));
    let noted = told.clone();
    let tell = Arc::new(move |told| noted.lock().unwrap().push(told));
    let device = tokio::spawn(take_part(settings.clone(), LOOK_EVERY, stopping, tell));
    let said = async {
        while !told.lock().unwrap().iter().any(|told| matches!(told, Told::Unready { .. })) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, said).await.expect("it says so and goes on");
    let mut host = Host::start(&broker, &settings).await;
    fs::remove_file(&disk).unwrap();
    assert_eq!(host.ready().await.examples, 1);
    stop.send(true).unwrap();
    tokio::time::timeout(PATIENCE, device).await.unwrap().unwrap().unwrap();
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_enrolment_that_cannot_be_read_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let state = format!("state='{}'", folder.path().display());
    let config = EdgeConfig::read(None, &["name=d1".into(), state]).unwrap();
    let record = folder.path().join("identity/enrolled.toml");
    fs::create_dir_all(&record).unwrap();
    let (told_in, mut told) = tokio::sync::mpsc::unbounded_channel();
    let tell = Arc::new(move |told| drop(told_in.send(told)));
    let begun = tokio::spawn(async move { begin_looking(&config, None, LOOK_EVERY, tell).await });
    let Some(Told::Unready { reason }) = told.recv().await else { panic!() };
    assert!(reason.contains("enrolled.toml"), "{reason}");
    fs::remove_dir(&record).unwrap();
    let settings = tokio::time::timeout(PATIENCE, begun).await.unwrap().unwrap().unwrap();
    assert_eq!(settings.name.as_str(), "d1");
}

async fn look(settings: &Settings) -> Result<Ready, Unready> {
    Looking::new(settings).look(Depth::Disk).await.map(|(ready, _)| ready)
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
