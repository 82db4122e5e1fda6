//! A host, a broker and devices, each a process, with a proxy between broker and devices.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fedtt_link::testing::{Direction, FaultProxy, Faults, Mosquitto};
use fedtt_tests::{Process, Word, data};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::device;

/// Longest time without anything happening.
const PATIENCE: Duration = Duration::from_secs(60);

/// As long a host may take to go on after it was started anew.
const RESUME: Duration = Duration::from_secs(5);

pub(crate) struct Fleet {
    folder: tempfile::TempDir,
    pub(crate) runtime: Runtime,
    proxy: Option<FaultProxy>,
    mosquitto: Option<Mosquitto>,
    broker: Option<SocketAddr>,
    host: Option<Process>,
    bundle: String,
    run: String,
    work: Duration,
    devices: Vec<Option<Child>>,
    pub(crate) finished: bool,
}

impl Fleet {
    /// A fleet of `devices` over mosquitto, or the host's own broker, with a run that has begun.
    pub(crate) fn start(mosquitto: Option<Mosquitto>, seed: u64, plan: &str, devices: usize, work: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut fleet = Fleet {
            folder: tempfile::tempdir().unwrap(),
            runtime,
            proxy: None,
            broker: mosquitto.as_ref().map(Mosquitto::address),
            mosquitto,
            host: None,
            bundle: String::new(),
            run: String::new(),
            work,
            devices: Vec::new(),
            finished: false,
        };
        fs::write(fleet.path("host.toml"), "[reconnect]\nfirst = 0.02\nlongest = 0.1\n").unwrap();
        fs::write(fleet.path("plan.toml"), plan).unwrap();
        fleet.serve();
        let broker = fleet.broker();
        fleet.proxy = Some(fleet.runtime.block_on(FaultProxy::start(broker, seed)).unwrap());
        let plan = fleet.path("plan.toml");
        let started = fleet.ask(&[&"run", &"start", &plan]);
        fleet.run = started["run"].as_str().unwrap().to_string();
        let shown = fleet.show();
        fleet.bundle = shown["plan"]["model"]["bundle"].as_str().unwrap().to_string();
        (0..devices).for_each(|i| {
            fleet.devices.push(None);
            fleet.join(i);
        });
        fleet
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the broker is, past the proxy.
    pub(crate) fn broker(&self) -> SocketAddr {
        self.broker.unwrap()
    }

    /// The hash of the run's backbone.
    pub(crate) fn bundle(&self) -> &str {
        &self.bundle
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        let proxy = self.proxy.as_ref().unwrap();
        proxy.set_faults(Direction::Up, faults);
        proxy.set_faults(Direction::Down, faults);
    }

    /// Publications lost, doubled, damaged and held back so far.
    pub(crate) fn mistreated(&self) -> [u64; 4] {
        let counts = self.proxy.as_ref().unwrap().counts();
        [counts.dropped, counts.duplicated, counts.corrupted, counts.delayed]
    }

    /// Starts the host and waits until it can be asked; what it tells before.
    fn serve(&mut self) -> Vec<Value> {
        let (config, state, runs) = (self.path("host.toml"), self.path("state"), self.path("runs"));
        let broker = self.broker.map(|address| address.to_string()).unwrap_or("127.0.0.1:0".into());
        let url = format!("mqtt://{broker}");
        let mut words: Vec<Word<'_>> =
            vec![&"serve", &"--no-web", &"--config", &config, &"--state", &state, &"--runs", &runs];
        match &self.mosquitto {
            Some(_) => words.extend([&"--broker" as Word<'_>, &url]),
            None => words.extend([&"--bind" as Word<'_>, &broker]),
        }
        self.host = Some(Process::start("fedtt", &words));
        let mut told = Vec::new();
        loop {
            let line = self.hear(PATIENCE).expect("the host does not start");
            if let Some(url) = line["data"]["broker"].as_str() {
                self.broker = Some(url.trim_start_matches("mqtt://").parse().unwrap());
                return told;
            }
            told.push(line);
        }
    }

    /// Starts device `i`, also after it was killed.
    fn join(&mut self, i: usize) {
        let proxy = self.proxy.as_ref().unwrap().url().to_string();
        let child = device::start(self.folder.path(), &format!("site-{i}"), &self.bundle, &proxy, self.work);
        self.devices[i] = Some(child);
    }

    /// Asks the host.
    pub(crate) fn ask(&self, words: &[Word<'_>]) -> Value {
        let state = self.path("state");
        data("fedtt", &[words, &[&"--state", &state]].concat())
    }

    pub(crate) fn show(&self) -> Value {
        self.ask(&[&"run", &"show", &self.run])
    }

    /// The next thing the host tells, if it is soon.
    pub(crate) fn hear(&mut self, within: Duration) -> Option<Value> {
        let line = self.host.as_mut().unwrap().hear(within)?;
        let event = &line["event"];
        self.finished |= event["event"] == "status" && event["status"] == "finished";
        Some(line)
    }

    /// Waits for the run's end; what the host told until then.
    pub(crate) fn wait(&mut self) -> Vec<Value> {
        let mut told = Vec::new();
        while !self.finished {
            told.push(self.hear(PATIENCE).unwrap_or_else(|| panic!("nothing happens any more:\n{}", self.account())));
        }
        told
    }

    /// Where everything stands, for people.
    fn account(&self) -> String {
        let tail = |i: usize| {
            let log = fs::read_to_string(self.path(&format!("site-{i}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("site-{i}:\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        let devices: String = (0..self.devices.len()).map(tail).collect();
        format!("{:#}\n{devices}", self.show()["current"])
    }

    /// Kills the host (SIGKILL) and starts it anew.
    pub(crate) fn kill_host(&mut self) {
        if let Some(host) = self.host.take() {
            host.kill();
        }
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        // It may go on before it says that it can be asked.
        let mut told = self.serve().into_iter();
        while !self.finished {
            // A run that had ended says nothing any more.
            let Some(line) = told.next().or_else(|| self.hear(RESUME)) else {
                self.finished = self.show()["summary"]["status"] == "finished";
                assert!(self.finished, "the run is not resumed: {}", self.account());
                continue;
            };
            if line["event"]["event"] == "restored" {
                let resumed = Duration::from_millis(line["event"]["time"].as_u64().unwrap());
                assert!(resumed < started + RESUME, "resumed after {:?}", resumed - started);
                return;
            }
        }
    }

    /// Kills a device (SIGKILL) and starts it anew.
    pub(crate) fn kill_device(&mut self, i: usize) {
        end(self.devices[i].take());
        self.join(i);
    }

    /// Kills the broker (SIGKILL), with all it held, and starts it anew; the host where the broker is part of it.
    pub(crate) fn kill_broker(&mut self) {
        match &mut self.mosquitto {
            Some(mosquitto) => mosquitto.restart().unwrap(),
            None => self.kill_host(),
        }
    }

    /// The most memory the host had, in bytes.
    pub(crate) fn host_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.host.as_ref().unwrap().id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    fn file(&self, name: &str) -> Vec<u8> {
        let path = self.path("runs").join(&self.run).join(name);
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// What the run left behind: each of `devices` counted once in every round. Returns the summary and the adapter.
    pub(crate) fn outcome(&mut self, rounds: u64, devices: &[&str]) -> (Value, Vec<u8>) {
        // At its end the host writes all that is left to be written.
        assert_eq!(self.host.take().unwrap().terminate(), 0);
        let records = String::from_utf8(self.file("rounds.jsonl")).unwrap();
        let records: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len() as u64, rounds + 1, "the last round measures");
        for (i, record) in records.iter().enumerate() {
            let counted: Vec<&String> = record["contributions"].as_object().unwrap().keys().collect();
            assert_eq!(record["round"].as_u64(), Some(i as u64), "{record}");
            assert_eq!(counted, devices, "{record}");
        }
        let summary: Value = serde_json::from_slice(&self.file("summary.json")).unwrap();
        assert_eq!(summary["updates"].as_u64(), Some(rounds * devices.len() as u64), "{summary}");
        assert_eq!(summary["status"], "finished", "{summary}");
        (summary, self.file("adapter.safetensors"))
    }
}

fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        // Errors: it is gone already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.devices.drain(..).for_each(end);
        if let Some(proxy) = self.proxy.take() {
            let _inside = self.runtime.enter();
            drop(proxy);
        }
    }
}
