//! A federation of processes: `fedtt serve`, three `fedtt-edge run`, and an operator.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fedtt_link::testing::Mosquitto;
use fedtt_tests::{Process, Word, data, json};
use serde_json::Value;

const LABELS: [&str; 3] = ["electrical", "mechanical", "network"];
const TEXTS: [&str; 3] =
    ["the breaker of cabinet tripped", "the bearing of the pump screams", "no link to the gateway"];

/// A fleet in a folder.
struct Fleet {
    folder: tempfile::TempDir,
    broker: Option<String>,
    /// Where its page is.
    web: String,
    devices: Vec<Process>,
}

impl Fleet {
    fn new(broker: Option<String>) -> Self {
        Fleet { folder: tempfile::tempdir().unwrap(), broker, web: String::new(), devices: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the host and waits until it is up.
    fn serve(&mut self) -> Process {
        let (state, runs) = (self.path("state"), self.path("runs"));
        let address = self.broker.clone();
        let mut words: Vec<Word<'_>> = vec![&"serve", &"--web", &"127.0.0.1:0", &"--state", &state, &"--runs", &runs];
        let bind: String;
        match &address {
            None => words.extend([&"--bind" as Word<'_>, &"127.0.0.1:0"]),
            Some(url) if url.starts_with("within:") => {
                bind = url.trim_start_matches("within:mqtt://").to_string();
                words.extend([&"--bind" as Word<'_>, &bind]);
            }
            Some(url) => words.extend([&"--broker" as Word<'_>, url]),
        }
        let mut host = Process::start("fedtt", &words);
        let ready = host.wait_for(|line| line["data"]["broker"].is_string());
        self.web = ready["data"]["web"].as_str().unwrap().to_string();
        if self.broker.is_none() {
            self.broker = Some(format!("within:{}", ready["data"]["broker"].as_str().unwrap()));
        }
        host
    }

    /// Starts three devices, each with its own examples.
    fn join(&mut self) {
        let url = self.broker.clone().unwrap();
        let url = url.trim_start_matches("within:");
        for device in 0..3usize {
            let name = format!("site-{device}");
            let (file, state) = (self.path(&format!("{name}.tsv")), self.path(&name));
            write_examples(&file, device);
            self.devices.push(Process::device(url, &name, &file, &state, &[]));
        }
    }

    fn plan(&self) -> PathBuf {
        let path = self.path("plan.toml");
        let plan = "name = 'reports'\nrounds = 3\nseed = 7\n[model]\nlabels = ['electrical', 'mechanical', 'network']\n\
            max_length = 16\n[adapter]\nbottleneck = 8\nrank = 2\n[local]\nsteps = 2\nbatch = 4\n[selection]\nmin = 3\n\
            [collection]\ncount = { min = 3 }\n";
        fs::write(&path, plan).unwrap();
        path
    }

    /// Asks the host.
    fn ask(&self, words: &[Word<'_>]) -> Value {
        let state = self.path("state");
        data("fedtt", &[words, &[&"--state", &state]].concat())
    }

    fn file(&self, run: &str, name: &str) -> Vec<u8> {
        let path = self.path("runs").join(run).join(name);
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Every device counts once in every round; the best adapter's bytes.
    fn check(&self, run: &str) -> Vec<u8> {
        let rounds = String::from_utf8(self.file(run, "rounds.jsonl")).unwrap();
        let rounds: Vec<Value> = rounds.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rounds.len(), 4, "three of training, one of measuring");
        for (i, round) in rounds.iter().enumerate() {
            let devices: Vec<&String> = round["contributions"].as_object().unwrap().keys().collect();
            assert_eq!((round["round"].as_u64(), devices.len()), (Some(i as u64), 3), "{round}");
            assert!(round["traffic"]["up"].as_u64().unwrap() > 0, "{round}");
        }
        let summary: Value = serde_json::from_slice(&self.file(run, "summary.json")).unwrap();
        assert_eq!((summary["status"].as_str(), summary["updates"].as_u64()), (Some("finished"), Some(9)), "{summary}");
        let events = String::from_utf8(self.file(run, "events.jsonl")).unwrap();
        events.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap()));
        assert!(String::from_utf8(self.file(run, "report.html")).unwrap().contains("reports"));
        self.file(run, "adapter.safetensors")
    }
}

fn write_examples(path: &Path, device: usize) {
    let mut text = String::from("text\tlabel\n");
    for i in 0..15 + 3 * device {
        let kind = (i + i * device) % 3;
        text += &format!("{} {i} at site {device}\t{}\n", TEXTS[kind], LABELS[kind]);
    }
    fs::write(path, text).unwrap();
}

fn undisturbed(broker: Option<String>) -> Vec<u8> {
    let mut fleet = Fleet::new(broker);
    let host = fleet.serve();
    fleet.join();
    let plan = fleet.plan();
    let ended = fleet.ask(&[&"run", &"start", &plan, &"--token", &"once", &"--wait"]);
    assert_eq!(ended["summary"]["run"], "reports-1");
    let adapter = fleet.check("reports-1");

    let again = fleet.ask(&[&"run", &"start", &plan, &"--token", &"once"]);
    assert_eq!((again["run"].as_str(), again["started"].as_bool()), (Some("reports-1"), Some(false)));
    let devices = fleet.ask(&[&"device", &"list"]);
    assert_eq!(devices["devices"].as_array().unwrap().len(), 3, "{devices}");
    let (examples, exported, onnx) = (fleet.path("site-0.tsv"), fleet.path("a.safetensors"), fleet.path("a.onnx"));
    fleet.ask(&[&"run", &"export", &"reports-1", &"-o", &exported]);
    let words: [Word<'_>; 7] = [&"eval", &"--adapter", &exported, &"--data", &examples, &"--engine", &"tract"];
    let measured = data("fedtt-edge", &words);
    assert!(measured["accuracy"].is_number(), "{measured}");
    fleet.ask(&[&"run", &"export", &"reports-1", &"--format", &"onnx", &"-o", &onnx]);
    assert!(fs::metadata(&onnx).unwrap().len() > 1_000_000, "the backbone is inside");
    let stopped = host.terminate();
    assert_eq!(stopped, 0, "a host that is told to end ends well");
    for device in fleet.devices.drain(..) {
        assert_eq!(device.terminate(), 0);
    }
    adapter
}

#[test]
fn processes_fine_tune_together_and_a_killed_host_costs_nothing() {
    let expected = undisturbed(None);

    let mut fleet = Fleet::new(None);
    let mut host = fleet.serve();
    fleet.join();
    let plan = fleet.plan();
    fleet.ask(&[&"run", &"start", &plan]);
    for round in [0, 1] {
        host.wait_for(|line| line["event"]["event"] == "accepted" && line["event"]["round"] == round);
        host.kill();
        let restarted = Instant::now();
        host = fleet.serve();
        host.wait_for(|line| line["event"]["event"] == "restored");
        assert!(restarted.elapsed() < Duration::from_secs(5), "{:?}", restarted.elapsed());
    }
    let ended = fleet.ask(&[&"run", &"wait", &"reports-1"]);
    assert_eq!(ended["summary"]["status"], "finished");
    assert!(fleet.check("reports-1") == expected, "the adapter is the undisturbed one's");
}

#[test]
fn the_same_over_mosquitto() {
    let Some(mosquitto) = Mosquitto::start().unwrap() else { return };
    undisturbed(Some(mosquitto.url().to_string()));
}

#[test]
fn operators_are_told_what_is_wrong() {
    let mut fleet = Fleet::new(None);
    let state = fleet.path("state");
    let (envelope, failed) = json("fedtt", &[&"run", &"list", &"--state", &state]);
    assert!(failed == 1 && envelope["error"].as_str().unwrap().contains("fedtt serve"), "{envelope}");
    let _host = fleet.serve();
    let plan = fleet.path("plan.toml");
    fs::write(&plan, "rounds = 0\n[model]\nlabels = ['a', 'b']\n").unwrap();
    let refused = |words: &[Word<'_>]| {
        let (envelope, failed) = json("fedtt", &[words, &[&"--state", &state]].concat());
        assert_eq!(failed, 1, "{envelope}");
        envelope["error"].as_str().unwrap().to_string()
    };
    let error = refused(&[&"run", &"start", &plan]);
    assert!(error.contains("plan.toml") && error.contains("`rounds`"), "{error}");
    assert!(refused(&[&"run", &"pause", &"nothing-1"]).contains("fedtt run list"));
    let runs = fleet.path("other");
    let words: [Word<'_>; 7] = [&"serve", &"--state", &state, &"--runs", &runs, &"--bind", &"127.0.0.1:0"];
    let (envelope, failed) = json("fedtt", &words);
    assert!(failed == 1 && envelope["error"].as_str().unwrap().contains("host.redb"), "{envelope}");

    fs::write(&plan, "[model]\nlabels = ['a', 'b']\n").unwrap();
    assert_eq!(fleet.ask(&[&"run", &"start", &plan])["run"], "run-1");
    assert_eq!(fleet.ask(&[&"run", &"pause", &"run-1"])["status"], "paused");
    assert_eq!(fleet.ask(&[&"run", &"resume", &"run-1"])["status"], "running");
    assert_eq!(fleet.ask(&[&"run", &"stop", &"run-1"])["status"], "stopped");
    let (envelope, code) = json("fedtt", &[&"run", &"wait", &"run-1", &"--state", &state]);
    assert_eq!((code, envelope["ok"].as_bool()), (3, Some(false)), "{envelope}");
    assert!(refused(&[&"run", &"resume", &"run-1"]).contains("stopped"));
}

#[test]
fn runs_that_are_over_are_removed_with_their_files_if_asked_to() {
    let mut fleet = Fleet::new(None);
    let host = fleet.serve();
    let (plan, state) = (fleet.path("plan.toml"), fleet.path("state"));
    fs::write(&plan, "[model]\nlabels = ['a', 'b']\n").unwrap();
    let test = fleet.path("site-0.tsv");
    fs::write(&test, "text\tlabel\nthe pump\ta\nthe fan\tb\n").unwrap();
    let start = |fleet: &Fleet, token: &str| {
        let started = fleet.ask(&[&"run", &"start", &plan, &"--test", &test, &"--token", &token]);
        assert_eq!(started["started"], true);
        started["run"].as_str().unwrap().to_string()
    };
    assert_eq!((start(&fleet, "a"), start(&fleet, "b")), ("run-1".into(), "run-2".into()));
    fleet.ask(&[&"run", &"stop", &"run-2"]);
    let (envelope, code) = json("fedtt", &[&"run", &"remove", &"run-2", &"run-1", &"--state", &state]);
    let error = envelope["error"].as_str().unwrap();
    assert!(code == 1 && error.contains("run-1 is running") && error.contains("fedtt run stop run-1"), "{envelope}");
    fleet.ask(&[&"run", &"stop", &"run-1"]);
    let (first, second) = (fleet.path("runs").join("run-1"), fleet.path("runs").join("run-2"));
    let removed = fleet.ask(&[&"run", &"remove", &"run-1"]);
    assert_eq!(removed["removed"][0]["folder"].as_str(), first.to_str(), "{removed}");
    assert!(first.join("adapter.safetensors").is_file() && first.join("summary.json").is_file());
    let removed = fleet.ask(&[&"run", &"remove", &"run-2", &"--files"]);
    assert!(removed["removed"][0]["folder"].is_null() && !second.exists(), "{removed}");
    assert_eq!(fleet.ask(&[&"run", &"list"])["runs"], Value::Array(Vec::new()));
    let web = fleet.web.clone();
    let page = |path: &str| {
        let mut stream = TcpStream::connect(&web).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {web}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for path in ["/", "/api/snapshot", "/metrics"] {
        let page = page(path);
        assert!(page.starts_with("HTTP/1.1 200") && !page.contains("run-1") && !page.contains("run-2"), "{page}");
    }
    assert!(page("/api/runs/run-1").starts_with("HTTP/1.1 404"));
    assert_eq!(host.terminate(), 0);

    let _host = fleet.serve();
    assert_eq!(fleet.ask(&[&"run", &"list"])["runs"], Value::Array(Vec::new()));
    let known = fs::read_to_string(state.join("known.json")).unwrap();
    assert!(!known.contains("run-1") && !known.contains("run-2"), "{known}");
    assert_eq!(start(&fleet, "a"), "run-3", "the token starts anew, and no id is used twice");
    assert!(!second.exists() && first.is_dir());
}

#[test]
fn a_run_is_waited_for_until_the_host_has_measured_its_end_on_a_file_of_any_form() {
    let mut fleet = Fleet::new(None);
    let _host = fleet.serve();
    fleet.join();
    let plan = fleet.plan();
    let text = fs::read_to_string(&plan).unwrap();
    fs::write(&plan, text + "[evaluation]\nclients = false\n").unwrap();
    let test = fleet.path("held-out");
    let mut rows = b"kind,what\n".to_vec();
    for i in 0..60 {
        // Latin-1, which is no UTF-8.
        rows.extend(
            [format!("{},\"", LABELS[i % 3]).as_bytes(), b"caf\xe9, ", TEXTS[i % 3].as_bytes(), b"\"\n"].concat(),
        );
    }
    fs::write(&test, rows).unwrap();
    let state = fleet.path("state");
    let start: [Word<'_>; 5] = [&"run", &"start", &plan, &"--test", &test];
    let (envelope, code) = json("fedtt", &[&start[..], &[&"--state", &state]].concat());
    assert!(code == 1 && envelope["error"].as_str().unwrap().contains("held-out"), "{envelope}");
    let read: [Word<'_>; 8] = [&"--text", &"what", &"--label", &"kind", &"--format", &"csv", &"--encoding", &"latin-1"];
    fleet.ask(&[&start[..], &read[..]].concat());
    let ended = fleet.ask(&[&"run", &"wait", &"reports-1"]);
    assert_eq!(ended["summary"]["status"], "finished");
    let shown = fleet.ask(&[&"run", &"show", &"reports-1"]);
    let rounds = shown["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 3);
    assert_eq!(rounds[2]["after"]["examples"], 60, "{shown:#}");
    assert_eq!(shown["summary"]["last"], rounds[2]["after"]);
}
