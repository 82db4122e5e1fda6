//! The program as it is called: exit codes, envelopes, messages.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn edge(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fedtt-edge")).args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn envelope(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn error(output: &Output) -> String {
    let envelope = envelope(output);
    assert_eq!((&envelope["version"], &envelope["ok"]), (&1.into(), &false.into()), "{envelope}");
    envelope["error"].as_str().unwrap().to_string()
}

#[test]
fn help_shows_examples_and_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["train", "eval", "predict", "run", "export", "serve-local"] {
        let output = edge(folder.path(), &[command, "--help"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(text.contains("Examples:") && text.contains("Exit codes:") && text.contains("--json"), "{text}");
    }
}

#[test]
fn wrong_usage_exits_2_and_failures_exit_1() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| edge(folder.path(), args);
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(run(&["eval", "--no-such-option"]).status.code(), Some(2));
    assert_eq!(run(&["train", "--engine", "abacus"]).status.code(), Some(2));
    assert_eq!(run(&["train", "--epochs", "0"]).status.code(), Some(2));
    let output = run(&["train", "--epochs", "none", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(error(&output).contains("--epochs"));

    let output = run(&["train", "--data", "none.tsv", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("cannot read none.tsv"));
    let output = run(&["train", "--bundle", "nowhere", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("nowhere"), "{output:?}");
    let output = run(&["predict", "--adapter", "none.safetensors", "text"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("none.safetensors"));
}

#[test]
fn training_that_is_interrupted_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["train", "--engine", "tract", "--threads", "1", "--epochs", "20"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_fedtt-edge"))
        .args(args)
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    // Signals are listened to by the time the steps are counted.
    said.by_ref().find(|line| line.contains("steps")).unwrap();
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    assert!(said.any(|line| line.contains("--resume")));
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let checkpoint = folder.path().join("adapter.checkpoint");
    assert!(checkpoint.exists() && !folder.path().join("adapter.safetensors").exists());

    let resumed = edge(folder.path(), &[&args[..], &["--resume", "--stop-after", "1", "--json"]].concat());
    let envelope = envelope(&resumed);
    assert_eq!((resumed.status.code(), &envelope["data"]["finished"]), (Some(0), &false.into()), "{envelope}");
    let afresh = edge(folder.path(), &[&args[..], &["--stop-after", "0"]].concat());
    assert!(String::from_utf8_lossy(&afresh.stderr).contains("adapter.checkpoint.previous"), "{afresh:?}");
}

#[test]
fn train_then_eval_then_predict() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let mut data = std::fs::File::create(here.join("data.tsv")).unwrap();
    writeln!(data, "text\tlabel").unwrap();
    for i in 0..24 {
        writeln!(data, "the pump number {i} leaks oil again\tpump").unwrap();
        writeln!(data, "no signal from the mast {i} today\tmast").unwrap();
    }
    drop(data);
    let common = ["--engine", "tract", "--threads", "1", "--json"];
    let with = |args: &[&str]| edge(here, &[args, &common].concat());

    let trained = with(&[
        "train",
        "--data",
        "data.tsv",
        "--text",
        "text",
        "--label",
        "label",
        "--epochs",
        "3",
        "-o",
        "a.safetensors",
    ]);
    assert_eq!(trained.status.code(), Some(0), "{trained:?}");
    assert!(trained.stderr.is_empty(), "--json prints nothing else: {trained:?}");
    let trained = envelope(&trained);
    assert_eq!((&trained["version"], &trained["command"], &trained["ok"]), (&1.into(), &"train".into(), &true.into()));
    assert_eq!(trained["data"]["labels"], serde_json::json!(["mast", "pump"]));
    assert!(!here.join("a.checkpoint").exists());

    let evaluated = envelope(&with(&["eval", "--adapter", "a.safetensors", "--data", "data.tsv"]));
    assert!(evaluated["data"]["accuracy"].as_f64().unwrap() > 0.9, "{evaluated}");
    assert_eq!(evaluated["data"]["examples"], 48);

    let predicted = envelope(&with(&["predict", "--adapter", "a.safetensors", "the mast has no signal"]));
    let first = &predicted["data"]["predictions"][0];
    assert_eq!(first["label"], "mast", "{first}");
    let sum: f64 = first["probabilities"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-5);

    let mut child = Command::new(env!("CARGO_BIN_EXE_fedtt-edge"))
        .args(["predict", "--adapter", "a.safetensors", "--engine", "tract"])
        .current_dir(here)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"pump leaks\nno signal\n").unwrap();
    let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(text.lines().all(|line| line.starts_with("pump") || line.starts_with("mast")), "{text}");

    let open = ["serve-local", "--json", "--adapter", "a.safetensors", "--engine", "tract", "--bind"];
    let refused = edge(here, &[&open[..], &["0.0.0.0:0"]].concat());
    assert!(refused.status.code() == Some(1) && error(&refused).contains("no loopback address"), "{refused:?}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_fedtt-edge"))
        .args([&open[..], &["127.0.0.1:0"]].concat())
        .current_dir(here)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let address = ready["address"].as_str().unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let body = r#"{"text": "the mast has no signal"}"#;
    let head = "Content-Type: application/json\r\nConnection: close\r\n";
    write!(stream, "POST /predict HTTP/1.1\r\nHost: {address}\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len())
        .unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    let said: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(said["data"]["predictions"][0]["probabilities"], first["probabilities"], "{said}");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let line = |i: usize| format!("the pump {i} leaks\tit leaks oil\t{}\n", ["same", "other"][i % 2]);
    std::fs::write(here.join("pairs.tsv"), format!("a\tb\tlabel\n{}", (0..24).map(line).collect::<String>())).unwrap();
    let train = |args: &[&str]| {
        let common =
            ["train", "--data", "pairs.tsv", "--text", "a", "--label", "label", "--epochs", "1", "--engine", "tract"];
        edge(here, &[&common[..], args].concat())
    };
    let said = |output: &std::process::Output| String::from_utf8(output.stderr.clone()).unwrap();

    let long = train(&["--max-length", "129"]);
    assert!(long.status.code() == Some(1) && said(&long).contains("129 tokens is more than the 128"), "{long:?}");
    assert_eq!(train(&["--warmup", "7"]).status.code(), Some(2));

    let begun = ["--batch", "8", "--stop-after", "1", "-o", "single.safetensors"];
    assert_eq!(train(&begun).status.code(), Some(0));
    let other = train(&[&begun[..], &["--resume", "--pooling", "cls"]].concat());
    assert!(other.status.code() == Some(1) && said(&other).contains("single.checkpoint"), "{other:?}");
    assert_eq!(train(&["--batch", "8", "--resume", "-o", "single.safetensors"]).status.code(), Some(0));

    assert_eq!(train(&["--text-pair", "b", "-o", "pairs.safetensors"]).status.code(), Some(0));
    let predict = ["predict", "--adapter", "pairs.safetensors", "--engine", "tract", "the pump leaks"];
    let single = edge(here, &predict);
    assert!(single.status.code() == Some(1) && said(&single).contains("trained on pairs"), "{single:?}");
    let pair = edge(here, &[&predict[..], &["--pair", "it leaks oil"]].concat());
    assert_eq!(pair.status.code(), Some(0), "{pair:?}");
}

#[test]
fn run_names_what_it_cannot_use_and_ends_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| edge(folder.path(), &[&["run", "--json"], args].concat());
    let cases: [(&[&str], &str); 4] = [
        (&["--name", "a/b"], "setting `name`"),
        (&["--name", "d", "--broker", "http://x"], "setting `broker`"),
        (&["--name", "d", "--set", "policy.quiet=now"], "`now` is not a stretch of the day"),
        (&["--name", "d", "--config", "none.toml"], "cannot read none.toml"),
    ];
    for (args, part) in cases {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let last = String::from_utf8(output.stdout).unwrap().trim().lines().last().unwrap().to_string();
        assert!(last.contains(part) && last.contains("\"ok\":false"), "{args:?}: {last}");
    }

    // Nobody listens at this port: that is no failure, nor is what may be mended.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let broker = format!("mqtt://{free}");
    let plain = ["run", "--json", "--name", "d", "--broker", &broker, "--set", "engine.engine=tract"];
    for (more, said) in [(&[][..], "disconnected"), (&["--data", "none.tsv"], "unready")] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fedtt-edge"))
            .args([&plain[..], more].concat())
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut event = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(event()["event"], "started");
        let next = event();
        assert!(next["event"] == said && next["reason"].as_str().is_some_and(|why| !why.is_empty()), "{next}");
        let killed = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(killed.success());
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    assert!(folder.path().join("fedtt-edge-state/lock").is_file());
}

#[test]
fn doctor_says_what_is_wrong_and_exits_by_it() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing listens there.
    let settings = ["--set", "broker=mqtt://127.0.0.1:9", "--set", "name=d1", "--set", "engine.engine=tract"];
    let output = edge(folder.path(), &[&["doctor", "--json"], &settings[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["version"], &said["command"], &said["ok"]), (&json!(1), &json!("doctor"), &json!(false)));
    let checks = said["data"]["checks"].as_array().unwrap();
    let level = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap()["level"].clone();
    assert_eq!((level("engine"), level("provider"), level("bundle")), (json!("ok"), json!("ok"), json!("ok")));
    assert_eq!((level("broker"), &said["data"]["fail"]), (json!("fail"), &json!(1)), "{said}");
    let output = edge(folder.path(), &[&["doctor"], &settings[..]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.lines().any(|line| line.starts_with("fail  broker       ") && line.contains("mqtt://127.0.0.1:9: ")),
        "{text}"
    );
    assert!(text.trim_end().lines().last().unwrap().starts_with("this board is not fit yet: "), "{text}");
    assert_eq!(edge(folder.path(), &["doctor", "--no-such"]).status.code(), Some(2));
}
