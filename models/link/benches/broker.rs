//! The embedded broker beside mosquitto, where it is installed: time and memory for a fleet's round, and the latency of a
//! hop. Each broker is a process of its own; all clients are in this one.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fedtt_link::broker::{BrokerConfig, EmbeddedBroker};
use fedtt_link::testing::Mosquitto;
use fedtt_link::{BrokerUrl, Delivery, Inbox, Link, LinkConfig, Publication};

const CLIENTS: usize = 500;
const PAYLOAD: usize = 100_000;
const ROUNDS: usize = 3;
/// Large updates in chunks, all at once to one receiver.
const SENDERS: usize = 8;
const PARTS: usize = 175;
const PART: usize = 96_000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if std::env::args().any(|argument| argument == "--serve") {
        return runtime.block_on(serve());
    }
    println!("{CLIENTS} clients; a round is one retained message of {PAYLOAD} bytes to all, and one from each");
    println!(
        "{:<10} {:>9} {:>8} {:>16} {:>8} {:>20} {:>18} {:>18}",
        "broker",
        "connect",
        "idle MB",
        "rounds, s",
        "peak MB",
        "8 x 16.8 MB, peak",
        "hop 200 B p50/p99",
        "hop 100 kB p50/p99"
    );
    runtime.block_on(measure("embedded", &Running::embedded()));
    match Mosquitto::start().unwrap() {
        Some(mosquitto) => runtime.block_on(measure("mosquitto", &Running::Mosquitto(mosquitto))),
        None => println!("mosquitto is not installed"),
    }
}

async fn serve() {
    let broker = EmbeddedBroker::start(BrokerConfig::default()).await.unwrap();
    println!("{}", broker.address());
    std::io::stdout().flush().unwrap();
    std::future::pending().await
}

/// A broker in a process of its own.
enum Running {
    Embedded(Child, SocketAddr),
    Mosquitto(Mosquitto),
}

impl Running {
    fn embedded() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.arg("--serve").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self::Embedded(child, line.trim().parse().unwrap())
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Embedded(_, address) => *address,
            Self::Mosquitto(mosquitto) => mosquitto.address(),
        }
    }

    /// A line of `/proc/PID/status` that is in kB, in MB.
    fn memory(&self, field: &str) -> f64 {
        let pid = match self {
            Self::Embedded(child, _) => child.id(),
            Self::Mosquitto(mosquitto) => mosquitto.pid().unwrap(),
        };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|line| line.trim_matches([':', ' ', '\t', 'k', 'B']).parse::<f64>().ok()).unwrap_or(f64::NAN)
            / 1e3
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Embedded(child, _) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn open(address: SocketAddr, id: &str, filters: &[&str]) -> (Link, Inbox) {
    let config = LinkConfig { incoming_bytes: 1 << 30, ..LinkConfig::new(BrokerUrl::tcp(address), id) };
    let (link, inbox) = Link::connect(config).await.unwrap();
    for filter in filters {
        link.subscribe(*filter).await.unwrap();
    }
    (link, inbox)
}

async fn message(inbox: &mut Inbox) -> usize {
    loop {
        match inbox.recv().await.unwrap() {
            Delivery::Message { payload, .. } => return payload.len(),
            Delivery::Disconnected { reason, .. } => panic!("{reason}"),
            Delivery::Connected { .. } => {}
        }
    }
}

async fn measure(name: &str, broker: &Running) {
    let begun = Instant::now();
    let opening = (0..CLIENTS).map(|n| {
        let address = broker.address();
        tokio::spawn(async move {
            let client = open(address, &format!("client-{n}"), &["down", &format!("to/{n}")]).await;
            client.0.flush().await.unwrap();
            client
        })
    });
    let mut clients = Vec::new();
    for client in opening.collect::<Vec<_>>() {
        clients.push(client.await.unwrap());
    }
    let connect = begun.elapsed();
    let idle = broker.memory("VmRSS");
    let (host, mut inbox) = open(broker.address(), "host", &["up/+"]).await;
    host.flush().await.unwrap();

    let mut rounds = Vec::new();
    let mut payload = vec![0; PAYLOAD];
    for round in 0..ROUNDS {
        payload[0] = round as u8;
        let begun = Instant::now();
        let down = Publication { topic: "down".into(), payload: Bytes::from(payload.clone()), retain: true };
        host.publish(down).await.unwrap();
        let answering = clients.drain(..).enumerate().map(|(n, (link, mut inbox))| {
            let payload = Bytes::from(payload.clone());
            tokio::spawn(async move {
                message(&mut inbox).await;
                link.publish(Publication { topic: format!("up/{n}"), payload, retain: false }).await.unwrap();
                (link, inbox)
            })
        });
        let answering: Vec<_> = answering.collect();
        for _ in 0..CLIENTS {
            let received = tokio::time::timeout(Duration::from_secs(60), message(&mut inbox)).await;
            assert_eq!(received.expect("the broker to go on"), PAYLOAD);
        }
        rounds.push(format!("{:.2}", begun.elapsed().as_secs_f64()));
        for client in answering {
            clients.push(client.await.unwrap());
        }
    }
    let peak = broker.memory("VmHWM");
    let begun = Instant::now();
    let payload: Bytes = vec![0; PART].into();
    for (n, (link, _)) in clients.iter().take(SENDERS).enumerate() {
        let (link, payload) = (link.clone(), payload.clone());
        tokio::spawn(async move {
            for _ in 0..PARTS {
                link.publish(Publication { topic: format!("up/{n}"), payload: payload.clone(), retain: false })
                    .await
                    .unwrap();
            }
        });
    }
    for _ in 0..SENDERS * PARTS {
        tokio::time::timeout(Duration::from_secs(60), message(&mut inbox)).await.expect("the broker to go on");
    }
    let burst = format!("{:.2} s {:.1} MB", begun.elapsed().as_secs_f64(), broker.memory("VmHWM"));
    let (small, large) =
        (hops(&host, &mut clients[0].1, 200, 3000).await, hops(&host, &mut clients[0].1, PAYLOAD, 500).await);
    println!(
        "{name:<10} {:>7.2} s {idle:>8.1} {:>16} {peak:>8.1} {burst:>20} {small:>18} {large:>18}",
        connect.as_secs_f64(),
        rounds.join(" ")
    );
}

/// From `publish` to the delivery at another client, one at a time.
async fn hops(host: &Link, inbox: &mut Inbox, size: usize, count: usize) -> String {
    let mut times = Vec::with_capacity(count);
    let payload = Bytes::from(vec![0; size]);
    for _ in 0..count {
        let begun = Instant::now();
        host.publish(Publication { topic: "to/0".into(), payload: payload.clone(), retain: false }).await.unwrap();
        message(inbox).await;
        times.push(begun.elapsed());
    }
    times.sort();
    format!("{} / {} us", times[count / 2].as_micros(), times[count * 99 / 100].as_micros())
}
