//! The device as a service: what it tells systemd and the journal, and what it holds while it idles.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fedtt_link::broker::{BrokerConfig, EmbeddedBroker};
use fedtt_link::{Link, LinkConfig, Publication};
use fedtt_wire::{FleetName, Message, RunId, SigningKey, Topic, Topics, message};

/// A process starts beside other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// A device whose service manager is this test.
struct Device {
    process: Child,
    manager: UnixDatagram,
    folder: tempfile::TempDir,
}

fn start(broker: &str, more: impl FnOnce(&mut Command, &std::path::Path)) -> Device {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let state = folder.path().join("state");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedtt-edge"));
    command
        .args(["run", "--name", "d1", "--broker", broker, "--state", state.to_str().unwrap()])
        .args(["--set", "engine.engine=tract"])
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "200000")
        .env_remove("WATCHDOG_PID")
        .stdout(Stdio::null());
    more(&mut command, folder.path());
    Device { process: command.spawn().unwrap(), manager, folder }
}

impl Device {
    /// What it says next.
    fn says(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.manager.recv(&mut buffer).expect("the device says something");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// All it says until `last`.
    fn says_until(&self, last: &str) -> Vec<String> {
        let mut said = Vec::new();
        while !said.iter().any(|line: &String| line.starts_with(last)) {
            said.extend(self.says().lines().map(str::to_string));
        }
        said
    }

    fn end(mut self) -> (Vec<String>, tempfile::TempDir) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let said = self.says_until("STOPPING=1");
        // Without anybody reading: a full queue holds nothing up.
        assert!(self.process.wait().unwrap().success());
        (said, self.folder)
    }
}

#[test]
fn a_device_without_its_broker_is_up_and_alive_and_says_what_it_waits_for() {
    // Nothing listens there.
    let device = start("mqtt://127.0.0.1:9", |_, _| {});
    let said = device.says_until("READY=1");
    assert!(said.iter().any(|line| line.starts_with("STATUS=not connected: ")), "{said:?}");
    let began = Instant::now();
    for _ in 0..4 {
        device.says_until("WATCHDOG=1");
    }
    assert!(began.elapsed() >= Duration::from_millis(150), "at half of the 200 ms asked for, not at once");
    device.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_up_once_it_is_announced_and_idles_in_little_memory() {
    let broker = EmbeddedBroker::start(BrokerConfig::default()).await.unwrap();
    let address = format!("mqtt://{}", broker.address());
    let began = Instant::now();
    let device = tokio::task::spawn_blocking(move || {
        let device = start(&address, |_, _| {});
        let said = device.says_until("READY=1");
        assert!(said.contains(&"STATUS=connected, waiting for rounds".to_string()), "{said:?}");
        device
    });
    let device = device.await.unwrap();
    let start = began.elapsed();
    tokio::task::spawn_blocking(move || {
        device.says_until("WATCHDOG=1");
        let status = std::fs::read_to_string(format!("/proc/{}/status", device.process.id())).unwrap();
        let kib = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        let (resident, own) = (kib("VmRSS:"), kib("RssAnon:"));
        eprintln!("up in {start:?}, {resident} KiB resident, of which {own} its own");
        // Neither backbone nor tokenizer nor engine: the encoder alone has 9 MiB once it is open.
        assert!(own < 5 * 1024, "{own} KiB");
        device.end();
    })
    .await
    .unwrap();
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_nothing_does_not_end_the_service() {
    let broker = EmbeddedBroker::start(BrokerConfig::default()).await.unwrap();
    let address = format!("mqtt://{}", broker.address());
    let up = move || {
        let device = start(&address, |_, _| {});
        device.says_until("READY=1");
        device
    };
    let device = tokio::task::spawn_blocking(up).await.unwrap();
    // What it is to write down next it cannot.
    std::fs::create_dir(device.folder.path().join("state/ledger.ft")).unwrap();
    let (link, _inbox) = Link::connect(LinkConfig::new(broker.url(), "host")).await.unwrap();
    let (topics, key) = (Topics::new(&FleetName::new("fedtt").unwrap()), SigningKey::from_seed(&[1; 32]).unwrap());
    let run = RunId::new("r1").unwrap();
    let host: Message = message::Host { key: key.public(), version: "0".into() }.into();
    for (topic, message) in [(Topic::Host, host), (Topic::Plan(run.clone()), message::End { run, began: 1 }.into())] {
        let topic = topics.name(&topic);
        let payload = key.seal(&topic, message.encode(0).unwrap()).into();
        link.publish(Publication { topic, payload, retain: true }).await.unwrap();
    }
    let ends = move || {
        let said = device.says_until("STATUS=takes part in nothing for now: ");
        assert!(!said.iter().any(|line| line == "STOPPING=1"), "systemd would end it: {said:?}");
        device.says_until("WATCHDOG=1");
        device.end();
    };
    tokio::task::spawn_blocking(ends).await.unwrap();
    link.shutdown().await;
    broker.shutdown().await.unwrap();
}

#[test]
fn the_journal_gets_priorities_in_place_of_times() {
    for journal in [true, false] {
        let device = start("mqtt://127.0.0.1:9", |command, folder| {
            let log = std::fs::File::create(folder.join("log")).unwrap();
            let stat = log.metadata().unwrap();
            if journal {
                command.env("JOURNAL_STREAM", format!("{}:{}", stat.dev(), stat.ino()));
            }
            command.stdout(log);
        });
        device.says_until("READY=1");
        let (_, folder) = device.end();
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        assert!(lines.len() >= 2, "{log}");
        if journal {
            assert!(lines[0].starts_with("<5>d1 of fleet fedtt"), "{log}");
            assert!(lines.iter().any(|line| line.starts_with("<4>not connected: ")), "{log}");
        } else {
            assert!(lines.iter().all(|line| line.as_bytes()[2] == b':' && !line.starts_with('<')), "{log}");
        }
    }
}

#[test]
fn a_service_manager_that_is_gone_stops_nothing() {
    let device = start("mqtt://127.0.0.1:9", |_, _| {});
    device.says_until("READY=1");
    std::fs::remove_file(device.folder.path().join("notify")).unwrap();
    // Two signs later it is still there.
    device.manager.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match device.manager.recv(&mut buffer) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let mut process = device.process;
    assert!(process.try_wait().unwrap().is_none());
    process.kill().unwrap();
    process.wait().unwrap();
}
