//! A run over a bundle that its devices do not have, and what becomes of its adapter.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use fedtt_tests::{Process, Word, data, json};
use serde_json::Value;

const LABELS: [&str; 3] = ["electrical", "mechanical", "network"];
const TEXTS: [&str; 3] =
    ["the breaker of cabinet tripped", "the bearing of the pump screams", "no link to the gateway"];

struct Fleet {
    folder: tempfile::TempDir,
    host: Process,
    broker: String,
    web: String,
    bundles: String,
}

impl Fleet {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (state, runs) = (folder.path().join("state"), folder.path().join("runs"));
        let config = folder.path().join("host.toml");
        std::fs::write(&config, "[web]\nbind = '127.0.0.1:0'\nbundles = '127.0.0.1:0'\n").unwrap();
        let words: [Word<'_>; 9] =
            [&"serve", &"--config", &config, &"--state", &state, &"--runs", &runs, &"--bind", &"127.0.0.1:0"];
        let mut host = Process::start("fedtt", &words);
        let ready = host.wait_for(|line| line["data"]["broker"].is_string());
        let of = |key: &str| ready["data"][key].as_str().unwrap().to_string();
        Fleet { broker: of("broker"), web: of("web"), bundles: of("bundles"), host, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn device(&self, n: usize) -> Process {
        let name = format!("site-{n}");
        let (file, state) = (self.path(&format!("{name}.tsv")), self.path(&name));
        write_examples(&file, n);
        // The page has bundles too.
        let at = if n == 0 { &self.web } else { &self.bundles };
        let fetch = format!("fetch.bundles=http://{at}/bundles");
        Process::device(&self.broker, &name, &file, &state, &[&fetch])
    }

    fn ask(&self, words: &[Word<'_>]) -> Value {
        let state = self.path("state");
        data("fedtt", &[words, &[&"--state", &state]].concat())
    }

    /// What the host's page has at a path.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.web).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.web).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_string()
    }
}

fn write_examples(path: &Path, device: usize) {
    let mut text = String::from("text\tlabel\n");
    for i in 0..24 {
        let kind = (i + i * device) % 3;
        text += &format!("{} {i} at site {device}\t{}\n", TEXTS[kind], LABELS[kind]);
    }
    std::fs::write(path, text).unwrap();
}

/// Probabilities of the classes for each text.
fn said(words: &[Word<'_>]) -> Vec<Vec<f64>> {
    let words: Vec<Word<'_>> = [&[&"predict" as Word<'_>, &"--engine", &"tract", &"--threads", &"1"], words].concat();
    let predictions = data("fedtt-edge", &words)["predictions"].take();
    let of = |p: &Value| LABELS.iter().map(|label| p["probabilities"][label].as_f64().unwrap()).collect();
    predictions.as_array().unwrap().iter().map(of).collect()
}

fn equal(a: &[Vec<f64>], b: &[Vec<f64>]) {
    assert!(!a.is_empty() && a.len() == b.len());
    let worst = a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-5, "{worst}: {a:?} {b:?}");
}

#[test]
fn a_bundle_comes_by_web_and_its_adapter_is_used_pulled_and_exported() {
    let fleet = Fleet::start();
    // A bundle no device has: the embedded encoder with an adapter in it.
    let (first, bundle) = (fleet.path("first.safetensors"), fleet.path("reports.bundle"));
    let examples = fleet.path("examples.tsv");
    write_examples(&examples, 3);
    data(
        "fedtt-edge",
        &[
            &"train",
            &"--data",
            &examples,
            &"--epochs",
            &"1",
            &"--init",
            &"loretta",
            &"--out",
            &first,
            &"--engine",
            &"tract",
        ],
    );
    let exported = data("fedtt-edge", &[&"export", &"--adapter", &first, &"--format", &"bundle", &"--out", &bundle]);
    let hash = exported["hash"].as_str().unwrap().to_string();
    let (texts, beside) = (fleet.path("texts.txt"), bundle.join("adapter.safetensors"));
    std::fs::write(&texts, TEXTS.join("\n")).unwrap();
    // Merged, it says what adapter and encoder said.
    equal(
        &said(&[&"--adapter", &first, &"--file", &texts]),
        &said(&[&"--bundle", &bundle, &"--adapter", &beside, &"--file", &texts]),
    );
    let (checked, code) = json("fedtt", &[&"backbone", &"verify", &bundle, &"--engine", &"tract"]);
    assert_eq!(code, 0, "{checked}");

    let mut devices = [fleet.device(0), fleet.device(1)];
    let plan = fleet.path("plan.toml");
    let text = "name = 'reports'\nrounds = 2\nseed = 7\n[model]\nbundle = 'reports.bundle'\n\
        labels = ['electrical', 'mechanical', 'network']\nmax_length = 16\n[adapter]\nbottleneck = 8\nrank = 2\n\
        [local]\nsteps = 2\nbatch = 4\n[selection]\nmin = 2\n[collection]\ncount = { min = 2 }\n";
    std::fs::write(&plan, text).unwrap();
    fleet.ask(&[&"run", &"start", &plan]);
    for device in &mut devices {
        device.wait_for(|line| line["event"] == "fetched_bundle" && line["bundle"] == hash.as_str());
        device.wait_for(|line| line["event"] == "adopted" && line["round"] == 2);
    }
    let ended = fleet.ask(&[&"run", &"wait", &"reports-1"]);
    assert_eq!(ended["summary"]["status"], "finished", "{ended}");
    assert!(fleet.path("site-0/bundles").join(&hash).join("weights.bin").is_file());

    // The device uses the run's last state at once, in the bundle it fetched.
    let state = fleet.path("site-0");
    let own = said(&[&"--run", &"reports-1", &"--state", &state, &"--file", &texts]);
    equal(&own, &said(&[&"--adapter", &"current", &"--state", &state, &"--file", &texts]));

    // Another device pulls what the host wrote.
    let url = format!("http://{}/runs/reports-1/adapter.safetensors", fleet.web);
    let line = fleet.get("/runs/reports-1/adapter.safetensors.sha256");
    let sha256 = line.split(' ').next().unwrap();
    let other = fleet.path("other");
    let pull = |sha256: &str| {
        let words: [Word<'_>; 13] = [
            &"fetch",
            &"adapter",
            &url,
            &"--sha256",
            &sha256,
            &"--run",
            &"pulled",
            &"--state",
            &other,
            &"--bundle",
            &bundle,
            &"--engine",
            &"tract",
        ];
        json("fedtt-edge", &words)
    };
    let (refused, code) = pull(&"ab".repeat(32));
    assert!(code == 1 && refused["error"].as_str().unwrap().contains("what came has SHA-256"), "{refused}");
    assert!(!other.join("adapters/pulled/current.safetensors").exists());
    let (pulled, code) = pull(sha256);
    assert_eq!(code, 0, "{pulled}");
    let pulled = said(&[&"--run", &"pulled", &"--state", &other, &"--bundle", &bundle, &"--file", &texts]);

    // And an operator takes it away in every form.
    let (dense, out) = (fleet.path("dense.safetensors"), fleet.path("final.bundle"));
    fleet.ask(&[&"run", &"export", &"reports-1", &"--dense", &"-o", &dense]);
    equal(&pulled, &said(&[&"--bundle", &bundle, &"--adapter", &dense, &"--file", &texts]));
    let exported = fleet.ask(&[&"run", &"export", &"reports-1", &"--format", &"bundle", &"-o", &out]);
    assert_ne!(exported["hash"].as_str().unwrap(), hash);
    let beside = out.join("adapter.safetensors");
    equal(&pulled, &said(&[&"--bundle", &out, &"--adapter", &beside, &"--file", &texts]));
    let again = fleet.path("again.safetensors");
    data(
        "fedtt-edge",
        &[
            &"train",
            &"--bundle",
            &out,
            &"--data",
            &examples,
            &"--epochs",
            &"1",
            &"--train-norms",
            &"--out",
            &again,
            &"--engine",
            &"tract",
        ],
    );
    for device in devices {
        assert_eq!(device.terminate(), 0);
    }
    assert_eq!(fleet.host.terminate(), 0);
}
