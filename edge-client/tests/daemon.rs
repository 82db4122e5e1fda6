//! The daemon over a real broker, with a host played by hand.
#![allow(clippy::unwrap_used, clippy::panic)]

mod tap;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fedtt_edge::daemon::{self, Data, EdgeConfig, Settings, Told};
use fedtt_edge::data::{Columns, Dataset, Labels, ReadOptions};
use fedtt_edge::local::adapter_header;
use fedtt_edge::round::What;
use fedtt_edge::source::{FieldSplit, Source, field_reports};
use fedtt_edge::task::TaskKind;
use fedtt_link::broker::{BrokerConfig, EmbeddedBroker};
use fedtt_link::{BrokerUrl, Delivery, Inbox, Link, LinkConfig, Publication};
use fedtt_runtime::{EngineChoice, EngineConfig};
use fedtt_tt::{Parameter, TrainMask};
use fedtt_wire::chunk::{self, Assembly};
use fedtt_wire::layout::{starting, trained};
use fedtt_wire::message::{self, Goal, Manifest, Outcome, RunPlan, Tensors, Update, Verdict};
use fedtt_wire::plan::{Encoding, LocalPlan, ModelPlan, WirePlan};
use fedtt_wire::seal::unsealed;
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::{DeviceName, Digest, FleetName, Layout, Message, Plan, PublicKey, RunId, SigningKey, Topic, Topics};
use ndarray::ArrayD;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use tap::{Packet, Said, Tap};

/// A real device trains two steps here, unoptimised and beside other tests.
const PATIENCE: Duration = Duration::from_secs(120);

/// So many that work is killed before it is done.
const STEPS: u32 = 12;

fn run_id() -> RunId {
    RunId::new("r1").unwrap()
}

fn device() -> DeviceName {
    DeviceName::new("site-1").unwrap()
}

/// Reports cut to one length, so that one shape occurs.
fn reports() -> Dataset {
    let mut reports = field_reports(FieldSplit::Train);
    reports.examples.retain(|e| e.text.split_whitespace().count() >= 14);
    reports.examples.truncate(20);
    reports
}

/// A host with one run, and everything the broker passes on to it.
struct Host {
    link: Link,
    inbox: Inbox,
    topics: Topics,
    plan: RunPlan,
    parameters: Vec<Parameter>,
    values: Vec<ArrayD<f32>>,
    key: SigningKey,
    /// What the device signs with, once it has said so.
    device: Option<PublicKey>,
}

impl Host {
    async fn start(broker: &EmbeddedBroker, source: &Source, steps: u32) -> Self {
        let labels = Labels::collect(&field_reports(FieldSplit::Train)).unwrap().names().to_vec();
        let plan = Plan {
            model: ModelPlan { bundle: source.hash.clone(), labels, max_length: 16, ..ModelPlan::default() },
            local: LocalPlan { steps, batch: 4, ..LocalPlan::default() },
            wire: WirePlan { chunk: 4096, ..WirePlan::default() },
            ..Plan::default()
        };
        let header = adapter_header(&plan, source).unwrap();
        let set = header.fresh(source, &header.objective(source).unwrap()).unwrap();
        let parameters = set.parameters();
        let plan = RunPlan { run: run_id(), began: 1, plan, layout: Layout::of(&parameters) };
        let config = LinkConfig::new(BrokerUrl::tcp(broker.address()), "host");
        let (link, inbox) = Link::connect(config).await.unwrap();
        let topics = Topics::new(&FleetName::new("test").unwrap());
        for filter in topics.host_filters() {
            link.subscribe(filter).await.unwrap();
        }
        let key = SigningKey::from_seed(&[1; 32]).unwrap();
        let host = Host { link, inbox, topics, plan, parameters, values: starting(&set), key, device: None };
        let key = host.key.public();
        host.say(Topic::Host, message::Host { key, version: "0".into() }, true).await;
        host.say(Topic::Plan(run_id()), host.plan.clone(), true).await;
        host
    }

    async fn say(&self, topic: Topic, message: impl Into<Message>, retain: bool) {
        let topic = self.topics.name(&topic);
        let payload = self.key.seal(&topic, message.into().encode(3).unwrap()).into();
        self.link.publish(Publication { topic, payload, retain }).await.unwrap();
    }

    async fn begin(&self, round: u32, change: Option<(Digest, Vec<u8>)>) {
        let size = self.plan.plan.wire.chunk;
        for chunk in change.iter().flat_map(|(_, payload)| chunk::split(&run_id(), round, payload, size)) {
            self.say(Topic::Change(run_id(), chunk.index), chunk, true).await;
        }
        let manifest = Manifest {
            run: run_id(),
            began: 1,
            issued: u64::from(round),
            round,
            attempt: 0,
            goal: Goal::Train,
            cohort: vec![device()],
            mask: TrainMask::default(),
            rate: 1.0,
            state: Digest::of_values(&self.values),
            change: change.map(|(before, payload)| (before, chunk::parcel(&payload, size))),
            seconds: 600,
            counted: if round > 0 { vec![device()] } else { vec![] },
        };
        self.say(Topic::Round(run_id()), manifest, true).await;
    }

    /// What a device says next, presence aside.
    async fn hear(&mut self) -> Message {
        loop {
            let delivery = tokio::time::timeout(PATIENCE, self.inbox.recv()).await.expect("a device says something");
            let Delivery::Message { topic, payload, .. } = delivery.unwrap() else { continue };
            let frame =
                self.device.map_or_else(|| unsealed(&payload).unwrap().0, |key| key.open(&topic, &payload).unwrap());
            let topic = self.topics.parse(&topic).unwrap();
            let message = Message::decode(frame, 1 << 24).unwrap();
            if let Message::Presence(presence) = &message {
                assert!(self.device.is_none_or(|key| presence.key == Some(key)));
                self.device = presence.key;
            }
            if matches!(topic, Topic::Up(_)) {
                return message;
            }
        }
    }

    /// The next update, with its digest. Chunks of the one before, sent again, are passed over.
    async fn update(&mut self, round: u32) -> (Update, Digest) {
        let mut assembly: Option<Assembly> = None;
        loop {
            let Message::Chunk(part) = self.hear().await else { continue };
            if part.round != round {
                continue;
            }
            let (digest, last) = (part.parcel.digest, part.index + 1 == part.parcel.chunks);
            let whole = assembly.get_or_insert_with(|| Assembly::new(part.parcel, 1 << 24).unwrap());
            if let Some(payload) = whole.add(part).unwrap() {
                let Message::Update(update) = Message::decode(&payload, 1 << 24).unwrap() else { panic!() };
                return (update, digest);
            }
            if last {
                let missing = Outcome::Missing(whole.missing());
                self.answer(round, digest, missing).await;
            }
        }
    }

    async fn answer(&self, round: u32, update: Digest, outcome: Outcome) {
        self.say(Topic::Down(device()), Verdict { run: run_id(), round, update, outcome }, false).await;
    }

    /// Adds an update to the global state; returns the state before and the change, as a payload.
    fn apply(&mut self, update: &Update) -> (Digest, Vec<u8>) {
        let before = Digest::of_values(&self.values);
        let places = trained(&self.parameters, &TrainMask::default());
        let changes = update.values(&self.plan.layout, &places).unwrap();
        let mut tensors = Vec::new();
        for (&place, change) in places.iter().zip(&changes) {
            let encoded = EncodedTensor::encode(change.view(), Encoding::Int8, None);
            self.values[place as usize] += &encoded.decode("", change.shape()).unwrap();
            tensors.push(encoded);
        }
        let state = Digest::of_values(&self.values);
        (before, Message::from(Tensors { run: run_id(), state, places, tensors }).encode(3).unwrap())
    }
}

type Log = Arc<Mutex<Vec<What>>>;

/// A device as a task; sending, or dropping, the other end stops it.
struct Device {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    log: Log,
}

/// A device that trains on a thread of its own.
fn start(broker: BrokerUrl, source: &Arc<Source>, state: &Path) -> Device {
    let data = Data::Given(Arc::new(reports()));
    launch(broker, state, |plain| Settings { sources: vec![source.clone().into()], data, ..plain })
}

/// A device that trains in a process of its own, on `data`.
fn start_apart(broker: BrokerUrl, state: &Path, data: &Path) -> Device {
    let paths = vec![data.to_path_buf()];
    let options = ReadOptions {
        format: None,
        encoding: None,
        header: None,
        columns: Columns::default(),
        labelled: true,
        task: TaskKind::Classify,
    };
    let program = PathBuf::from(env!("CARGO_BIN_EXE_fedtt-edge"));
    launch(broker, state, |plain| Settings { data: Data::Files { paths, options }, workshop: Some(program), ..plain })
}

fn launch(broker: BrokerUrl, state: &Path, more: impl FnOnce(Settings) -> Settings) -> Device {
    let overrides = ["name=site-1", "fleet=test"].map(String::from);
    let plain = EdgeConfig::read(None, &overrides).unwrap().settings().unwrap();
    let settings = more(Settings {
        broker,
        state: state.to_path_buf(),
        engine: EngineConfig { choice: EngineChoice::Tract, threads: 1, ..EngineConfig::default() },
        ..plain
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let log = Log::default();
    let noted = log.clone();
    let tell = move |told| match told {
        Told::Notice(notice) => noted.lock().unwrap().push(notice.what),
        Told::Unreadable { topic, reason } => panic!("{topic}: {reason}"),
        Told::Forged { topic, reason, .. } => panic!("{topic}: {reason}"),
        _ => {}
    };
    let task = tokio::spawn(async move {
        let shutdown = async { drop(stopped.await) };
        daemon::run(settings, shutdown, tell).await.unwrap();
    });
    Device { stop, task, log }
}

impl Device {
    async fn stop(self) -> Vec<What> {
        drop(self.stop);
        tokio::time::timeout(PATIENCE, self.task).await.expect("a device stops").unwrap();
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

fn trainings(log: &[What]) -> Vec<u32> {
    let round = |what: &What| match what {
        What::Training { round, .. } => Some(*round),
        _ => None,
    };
    log.iter().filter_map(round).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_takes_part_is_restarted_and_says_nothing_of_its_data() {
    let broker = EmbeddedBroker::start(BrokerConfig::default()).await.unwrap();
    let tap = Tap::start(broker.address()).await;
    let source = Arc::new(Source::open(None).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(&broker, &source, 2).await;
    host.begin(0, None).await;

    let first_life = start(tap.url(), &source, folder.path());
    let (update, _) = host.update(0).await;
    assert_eq!((update.device.as_str(), update.examples, update.steps), ("site-1", 16, 2));
    assert!(update.sent > 0 && update.received > 0);
    assert_eq!(update.measured.as_ref().unwrap().examples, 4);
    // It is stopped before it has heard what becomes of its update.
    let log = first_life.stop().await;
    assert_eq!(trainings(&log), [0]);

    let second_life = start(tap.url(), &source, folder.path());
    let (again, digest) = host.update(0).await;
    assert_eq!(again, update, "made once, sent twice");
    host.answer(0, digest, Outcome::Accepted).await;
    let change = host.apply(&update);
    host.begin(1, Some(change)).await;
    let (next, last) = host.update(1).await;
    assert_eq!(next.state, Digest::of_values(&host.values));
    host.answer(1, last, Outcome::Accepted).await;
    let log = second_life.stop().await;
    assert_eq!(trainings(&log), [1]);
    assert!(!log.iter().any(|what| matches!(what, What::Fetching { .. })), "the change is all it needs: {log:?}");

    let gone = loop {
        let delivery = tokio::time::timeout(PATIENCE, host.inbox.recv()).await.expect("the device takes leave");
        if let Some(Delivery::Message { topic, payload, .. }) = delivery
            && let Ok(Message::Presence(presence)) = Message::decode(unsealed(&payload).unwrap().0, 1 << 20)
            && host.topics.parse(&topic) == Some(Topic::Presence(device()))
            && !presence.online
        {
            break presence;
        }
    };
    assert_eq!((gone.examples, gone.bundles.as_slice()), (20, std::slice::from_ref(&source.hash)));

    nothing_of_the_data(&tap, &host, [(update, digest), (next, last)]);
    host.link.shutdown().await;
    broker.shutdown().await.unwrap();
}

/// The process of `device` that trains, once there is one.
async fn process_that_trains() -> Pid {
    let of_us = format!("PPid:\t{}", std::process::id());
    let trains = |folder: &Path| {
        let status = std::fs::read_to_string(folder.join("status")).ok()?;
        let command = std::fs::read_to_string(folder.join("cmdline")).ok()?;
        let is_it = status.contains(&of_us) && command.ends_with("\0workshop\0site-1\0");
        is_it.then(|| Pid::from_raw(folder.file_name()?.to_str()?.parse().ok()?)).flatten()
    };
    let found = async {
        loop {
            let folders = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
            if let Some(pid) = folders.filter_map(|folder| trains(&folder)).next() {
                break pid;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("a process is started to train")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_killed_costs_a_round_and_training_apart_makes_the_same_update() {
    let broker = EmbeddedBroker::start(BrokerConfig::default()).await.unwrap();
    let source = Arc::new(Source::open(None).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("reports.tsv");
    let lines = reports().examples.into_iter().map(|e| format!("{}\t{}\n", e.text, e.label.unwrap()));
    std::fs::write(&data, format!("text\tlabel\n{}", lines.collect::<String>())).unwrap();
    let mut host = Host::start(&broker, &source, STEPS).await;
    host.begin(0, None).await;

    let apart = start_apart(broker.url(), &folder.path().join("apart"), &data);
    let training = async {
        while trainings(&apart.log.lock().unwrap()).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, training).await.expect("it trains");
    let killed = process_that_trains().await;
    kill_process(killed, Signal::KILL).unwrap();
    let Message::Refusal(refusal) = host.hear().await else { panic!("an engine was killed and nothing is refused") };
    assert!(refusal.reason.starts_with("the process that trains was killed; if for want of memory"), "{refusal:?}");

    host.begin(1, None).await;
    let (update, digest) = host.update(1).await;
    let resting = process_that_trains().await;
    assert_ne!(resting, killed);
    host.answer(1, digest, Outcome::Accepted).await;

    // One that is at rest costs nothing.
    kill_process(resting, Signal::KILL).unwrap();
    while std::fs::read(format!("/proc/{}/cmdline", resting.as_raw_pid())).is_ok_and(|line| !line.is_empty()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    host.begin(2, None).await;
    host.update(2).await;
    let log = apart.stop().await;
    assert_eq!(trainings(&log), [0, 1, 2]);

    host.link.shutdown().await;
    broker.shutdown().await.unwrap();

    let broker = EmbeddedBroker::start(BrokerConfig::default()).await.unwrap();
    let mut host = Host::start(&broker, &source, STEPS).await;
    host.begin(1, None).await;
    let thread = start(broker.url(), &source, &folder.path().join("thread"));
    let (same, _) = host.update(1).await;
    thread.stop().await;
    let Update { seconds, sent, received, .. } = same;
    assert_eq!(Update { seconds, sent, received, ..update }, same);
    host.link.shutdown().await;
    broker.shutdown().await.unwrap();
}

/// Of all that the device wrote to the socket every packet is one of the specification, and none holds a word of its examples.
fn nothing_of_the_data(tap: &Tap, host: &Host, updates: [(Update, Digest); 2]) {
    let key = host.device.unwrap();
    let mut said = format!("{updates:?}");
    let mut kinds = BTreeSet::new();
    let mut hear = |heard: Said| {
        let message = Message::decode(key.open(&heard.topic, &heard.payload).unwrap(), 1 << 24).unwrap();
        kinds.insert(message.what());
        match &message {
            // What they hold is an update that the host put together.
            Message::Chunk(chunk) => assert!(updates.iter().any(|(_, digest)| *digest == chunk.parcel.digest)),
            message => said.push_str(&format!("{} {message:?}", heard.topic)),
        }
        assert!(host.topics.parse(&heard.topic).is_some(), "{}", heard.topic);
    };
    let mut filters = Vec::new();
    for packet in tap.packets() {
        match packet {
            Packet::Connect { will } => hear(will),
            Packet::Publish(published) => hear(published),
            Packet::Filters(bytes) => filters.extend(bytes),
            Packet::Bare => {}
        }
    }
    kinds.remove("progress");
    assert_eq!(kinds, ["chunk", "presence"].into(), "and progress, where work takes long");
    said.push_str(&String::from_utf8_lossy(&filters));
    for example in reports().examples {
        for word in example.text.split_whitespace().filter(|word| word.len() > 6) {
            assert!(!said.contains(word), "`{word}` left the device");
        }
    }
}
