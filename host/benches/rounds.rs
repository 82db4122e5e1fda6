//! What a round costs beside training: `fedtt serve` as a process of its own, its embedded broker and database included, and
//! clients in this one, a connection each, that answer at once with values of the plan's size.
//!
//! `cargo bench -p fedtt --bench rounds -- [--clients N] [--values N] [--encoding f32|int8] [--level ZSTD] [--rounds N]
//! [--broker URL] [--json]`; `flower.py` beside it runs Flower's rounds between ours.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fedtt::control::{Client, Request};
use fedtt::record::RoundRecord;
use fedtt_link::{Delivery, Link, LinkConfig, Publication};
use fedtt_wire::chunk::{Assembly, split};
use fedtt_wire::message::{Goal, Manifest, Presence, RunPlan, Update};
use fedtt_wire::plan::{Bounds, Encoding};
use fedtt_wire::seal::unsealed;
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::{DeviceName, Digest, Layout, Message, Plan, SigningKey, Topic, Topics};
use rand::{Rng, SeedableRng};
use serde_json::Value;

/// What is measured: its key in JSON, its column.
const COLUMNS: [(&str, &str); 8] = [
    ("clients", "clients"),
    ("values", "values"),
    ("payload", "payload, B"),
    ("median_ms", "median, ms"),
    ("p90_ms", "p90, ms"),
    ("host_mb", "host, MB"),
    ("host_cpu_ms", "host CPU, ms"),
    ("clients_cpu_ms", "their CPU, ms"),
];

struct Settings {
    clients: usize,
    values: usize,
    encoding: Encoding,
    /// zstd level of the plan.
    level: i32,
    rounds: u32,
    broker: Option<String>,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let given = |name: &str| args.iter().position(|arg| arg == name).map(|i| args[i + 1].clone());
    let encoding = match given("--encoding").as_deref() {
        None | Some("f32") => Encoding::F32,
        Some("int8") => Encoding::Int8,
        Some(other) => panic!("{other} is not f32 or int8"),
    };
    let number = |name: &str| given(name).map(|text| text.parse::<usize>().unwrap());
    let values = number("--values").unwrap_or(60_000);
    let json = args.iter().any(|arg| arg == "--json");
    if !json {
        println!("no-op training, {encoding:?} both ways, on the disk of {}", std::env::temp_dir().display());
        println!("{}", COLUMNS.map(|(_, head)| format!("{head:>13}")).join(""));
    }
    let cases = number("--clients").map_or(vec![2, 8, 32], |clients| vec![clients]);
    for clients in cases {
        let rounds = number("--rounds").unwrap_or(100) as u32;
        let level = number("--level").map_or(Plan::default().wire.level, |level| level as i32);
        let found = measure(&Settings { clients, values, encoding, level, rounds, broker: given("--broker") });
        if json {
            let named = COLUMNS.iter().zip(found).map(|((key, _), number)| (key.to_string(), number.into()));
            println!("{}", Value::Object(named.collect()));
        } else {
            println!("{}", found.map(|number| format!("{number:>13}")).join(""));
        }
    }
}

/// The numbers of [`COLUMNS`].
fn measure(settings: &Settings) -> [u64; 8] {
    let own = std::process::id();
    let before = processor(own);
    let folder = tempfile::tempdir().unwrap();
    let (state, runs) = (folder.path().join("state"), folder.path().join("runs"));
    // A broker of one's own remembers who was there before.
    let fleet = format!("bench-{}-{}", std::process::id(), settings.clients);
    let (host, broker) = serve(&state, &runs, &fleet, settings.broker.as_deref());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let plan = plan(settings);
    let hash = fedtt_edge::source::Source::open(None).unwrap().hash;
    for i in 0..settings.clients {
        runtime.spawn(client(i, fleet.clone(), broker.clone(), hash.clone(), settings.encoding));
    }
    let path = folder.path().join("plan.toml");
    let mut client = Client::connect(&state).unwrap();
    while client.ask(Request::Devices).unwrap()["devices"].as_array().unwrap().len() < settings.clients {
        std::thread::sleep(Duration::from_millis(10));
    }
    let start = Request::Start {
        plan: toml::to_string(&plan).unwrap(),
        path,
        token: None,
        test: Vec::new(),
        reading: Default::default(),
    };
    let run = client.ask(start).unwrap()["run"].as_str().unwrap().to_string();
    // Only asked how it stands: to show all rounds takes the host's time.
    while client.ask(Request::List).unwrap()["runs"][0]["status"] == "running" {
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut shown = client.ask(Request::Show { run }).unwrap();
    assert_eq!(shown["summary"]["status"], "finished", "{}", shown["summary"]);
    let rounds: Vec<RoundRecord> = serde_json::from_value(shown["rounds"].take()).unwrap();
    let peak = memory(host.id());
    let per_round = |busy: u64| busy / u64::from(settings.rounds.max(1));
    let (host_busy, clients_busy) = (per_round(processor(host.id())), per_round(processor(own) - before));
    let mut times: Vec<u64> = rounds.windows(2).map(|pair| pair[1].began - pair[0].began).collect();
    times.sort_unstable();
    let payload = rounds[0].contributions.values().next().map_or(0, |c| c.payload);
    drop(Host(host));
    [
        settings.clients as u64,
        rounds[0].trained,
        payload,
        times[times.len() / 2],
        times[times.len() * 9 / 10],
        peak,
        host_busy,
        clients_busy,
    ]
}

/// Killed when dropped.
struct Host(Child);

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(state: &Path, runs: &Path, fleet: &str, broker: Option<&str>) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedtt"));
    command.args(["serve", "--json", "--no-web", "--fleet", fleet]).arg("--state").arg(state).arg("--runs").arg(runs);
    match broker {
        Some(url) => command.args(["--broker", url]),
        None => command.args(["--bind", "127.0.0.1:0"]),
    };
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = loop {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if let Some(url) = line["data"]["broker"].as_str() {
            break url.to_string();
        }
    };
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    (child, url)
}

/// Peak resident memory of a process, MB.
fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1000
}

/// Processor time of a process so far, ms: the system counts in hundredths of a second.
fn processor(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

/// A plan whose adapters have about so many values.
fn plan(settings: &Settings) -> Plan {
    let mut plan = Plan { name: "bench".into(), rounds: settings.rounds, ..Plan::default() };
    plan.model.labels = vec!["a".into(), "b".into()];
    plan.adapter.method = fedtt_tt::config::Method::Dense;
    plan.selection.min = settings.clients as u32;
    plan.collection.count = Bounds { min: Some(settings.clients as u32), max: None };
    plan.evaluation.clients = false;
    plan.wire.uplink.encoding = settings.encoding;
    plan.wire.downlink = settings.encoding;
    plan.wire.level = settings.level;
    let source = fedtt_edge::source::Source::open(None).unwrap();
    let count = |bottleneck| {
        let mut plan = plan.clone();
        plan.adapter.bottleneck = bottleneck;
        plan.model.bundle.clone_from(&source.hash);
        let set = fedtt::model::blueprint(&plan, &source).unwrap().adapters(&plan).unwrap();
        Layout::of(&set.parameters()).values()
    };
    let (one, two) = (count(1), count(2));
    plan.adapter.bottleneck = (1 + (settings.values.saturating_sub(one)) / (two - one)).clamp(1, 16_384);
    plan
}

async fn client(number: usize, fleet: String, broker: String, bundle: String, encoding: Encoding) {
    let name = DeviceName::new(format!("client-{number:03}")).unwrap();
    let topics = Topics::new(&fleet.parse().unwrap());
    let config = LinkConfig { max_packet: 72 << 20, ..LinkConfig::new(broker.parse().unwrap(), name.as_str()) };
    let (link, mut inbox) = Link::connect(config).await.unwrap();
    for filter in topics.device_filters(&name) {
        link.subscribe(filter).await.unwrap();
    }
    let (version, labels, engine) = ("bench".to_string(), Vec::new(), "none".to_string());
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
    let key = SigningKey::from_seed(&seed).unwrap();
    let presence = Presence {
        online: true,
        version,
        labels,
        engine,
        bundles: vec![bundle],
        fetches: false,
        fetching: Vec::new(),
        examples: 100,
        problem: None,
        key: Some(key.public()),
        session: 1,
        beat: 1,
    };
    publish(&link, &key, topics.name(&Topic::Presence(name.clone())), presence.into(), true).await;
    let mut host = None;
    let mut fake = Fake { name, encoding, plan: None, change: None, have: None, asked: None };
    while let Some(delivery) = inbox.recv().await {
        let Delivery::Message { topic, payload, .. } = delivery else { continue };
        if payload.is_empty() {
            continue;
        }
        let message = Message::decode(unsealed(&payload).unwrap().0, 1 << 30).unwrap();
        if let Message::Host(introduced) = &message {
            host = Some(introduced.key);
        }
        // As a device does; of what comes before the host is known nothing is needed here.
        if host.is_some_and(|host| host.open(&topic, &payload).is_err()) {
            panic!("forged, at {topic}");
        }
        for answer in fake.hear(topics.parse(&topic), message) {
            publish(&link, &key, topics.name(&Topic::Up(fake.name.clone())), answer, false).await;
        }
    }
}

async fn publish(link: &Link, key: &SigningKey, topic: String, message: Message, retain: bool) {
    let payload = key.seal(&topic, message.encode(1).unwrap()).into();
    link.publish(Publication { topic, payload, retain }).await.unwrap();
}

/// A client that answers at once.
struct Fake {
    name: DeviceName,
    encoding: Encoding,
    plan: Option<(RunPlan, Vec<EncodedTensor>)>,
    change: Option<Assembly>,
    have: Option<Digest>,
    asked: Option<Manifest>,
}

impl Fake {
    fn hear(&mut self, topic: Option<Topic>, message: Message) -> Vec<Message> {
        match (topic, message) {
            (Some(Topic::Plan(_)), Message::RunPlan(plan)) => {
                let tensors = self.tensors(&plan.layout);
                self.plan = Some((plan, tensors));
            }
            (Some(Topic::Change(..)), Message::Chunk(chunk)) => {
                if self.change.as_ref().is_none_or(|assembly| assembly.parcel() != &chunk.parcel) {
                    self.change = Some(Assembly::new(chunk.parcel, 1 << 30).unwrap());
                }
                let digest = chunk.parcel.digest;
                let whole = self.change.as_mut().and_then(|assembly| assembly.add(chunk).unwrap());
                if let Some(payload) = whole {
                    let Message::Tensors(tensors) = Message::decode(&payload, 1 << 30).unwrap() else {
                        panic!("no change")
                    };
                    if let Some((plan, _)) = &self.plan {
                        tensors.values(&plan.layout).unwrap();
                    }
                    self.have = Some(digest);
                }
            }
            (Some(Topic::Round(_)), Message::Manifest(manifest)) => self.asked = Some(manifest),
            _ => {}
        }
        self.answer()
    }

    fn tensors(&self, layout: &Layout) -> Vec<EncodedTensor> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(self.name.as_str().len() as u64);
        let tensor = |entry: &fedtt_wire::layout::Entry| {
            let values: Vec<f32> = (0..entry.len()).map(|_| rng.random_range(-0.01..0.01)).collect();
            let values = ndarray::ArrayD::from_shape_vec(entry.shape.clone(), values).unwrap();
            EncodedTensor::encode(values.view(), self.encoding, Some(false))
        };
        layout.0.iter().map(tensor).collect()
    }

    fn answer(&mut self) -> Vec<Message> {
        let ready = self.asked.as_ref().is_some_and(|manifest| {
            let at_hand = manifest.change.is_none_or(|(_, parcel)| self.have == Some(parcel.digest));
            manifest.goal == Goal::Train && manifest.cohort.contains(&self.name) && at_hand
        });
        let (Some((plan, tensors)), true) = (&self.plan, ready) else { return Vec::new() };
        let Some(manifest) = self.asked.take() else { return Vec::new() };
        let update = Update {
            run: manifest.run.clone(),
            began: manifest.began,
            round: manifest.round,
            state: manifest.state,
            device: self.name.clone(),
            examples: 100,
            steps: 1,
            tokens: 0,
            loss: 1.0,
            seconds: 0.0,
            joules: None,
            measured: None,
            sent: 0,
            received: 0,
            tensors: tensors.clone(),
        };
        let payload = Message::from(update).encode(plan.plan.wire.level).unwrap();
        split(&manifest.run, manifest.round, &payload, plan.plan.wire.chunk).into_iter().map(Message::from).collect()
    }
}
