//! The command line's promises: help with examples, exit codes, one JSON object where asked.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::process::{Command, Output};

fn fedtt(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fedtt")).args(args).output().unwrap()
}

#[test]
fn every_command_shows_an_example() {
    let run = [
        "plan", "start", "list", "show", "watch", "wait", "pause", "resume", "step", "stop", "remove", "report",
        "export",
    ];
    let backbone = ["prepare", "inspect", "verify"].iter().map(|command| vec!["backbone", command]);
    let device = ["list", "show", "enroll", "revoke"].iter().map(|command| vec!["device", command]);
    let commands = run.iter().map(|command| vec!["run", command]).chain(backbone).chain(device);
    for command in
        commands.chain([vec!["serve"], vec!["broker", "config", "mosquitto"], vec!["broker", "new-password"]])
    {
        let help = fedtt(&[command.clone(), vec!["--help"]].concat());
        let text = String::from_utf8(help.stdout).unwrap();
        assert!(
            text.contains("Example") && text.contains(&format!("  fedtt {}", command.join(" ")))
                || text.contains(&format!("Example: fedtt {}", command.join(" "))),
            "{text}"
        );
    }
    let help = fedtt(&["--help"]);
    assert!(String::from_utf8(help.stdout).unwrap().contains("Exit codes"));
}

#[test]
fn failures_are_told_as_text_or_json() {
    let text = fedtt(&["backbone", "inspect", "nothing-here"]);
    assert_eq!((text.status.code(), text.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8(text.stderr).unwrap().contains("nothing-here"));
    let json = fedtt(&["backbone", "inspect", "nothing-here", "--json"]);
    assert_eq!(json.status.code(), Some(1));
    let envelope: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((envelope["version"].as_u64(), envelope["command"].as_str()), (Some(1), Some("backbone inspect")));
    let wrong = fedtt(&["backbone", "inspct", "--json"]);
    let envelope: serde_json::Value = serde_json::from_slice(&wrong.stdout).unwrap();
    assert_eq!((wrong.status.code(), envelope["command"].as_str()), (Some(2), Some("usage")));
    assert!(envelope["error"].as_str().unwrap().contains("inspct"));
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let Ok(full) = std::fs::File::create("/dev/full") else { return };
    let status = Command::new(env!("CARGO_BIN_EXE_fedtt")).args(["run", "plan"]).stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

/// What `fedtt simulate` writes on standard error, and its envelope.
fn simulated(plan: &str) -> (String, serde_json::Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("plan.toml"), plan).unwrap();
    let rows: String = (0..12).map(|i| format!("{}\treport {i}\n", ["pump", "fan"][i % 2])).collect();
    std::fs::write(path("data.tsv"), format!("label\ttext\n{rows}")).unwrap();
    let (plan, data) = (path("plan.toml"), path("data.tsv"));
    let words = ["simulate", &plan, "--clients", "2", "--engine", "tract", "--data", &data, "--test", &data, "--json"];
    let output = fedtt(&words);
    (String::from_utf8(output.stderr).unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn progress_goes_to_standard_error_also_with_json() {
    let (said, envelope) = simulated(
        "rounds = 2\n[model]\nmax_length = 16\n[adapter]\nbottleneck = 8\nrank = 2\n[local]\nsteps = 1\nbatch = 2\n",
    );
    assert_eq!((envelope["command"].as_str(), envelope["ok"].as_bool()), (Some("simulate"), Some(true)), "{envelope}");
    assert!(said.contains("round 1/2") && said.contains("round 2/2"), "{said}");
}

#[test]
fn simulated_devices_are_sent_changes_alone() {
    let (said, envelope) = simulated("rounds = 2\n[adapter]\nmethod = \"tt-core\"\n[local]\nsteps = 1\n");
    let run = &envelope["data"]["runs"][0];
    let of = |name: &str| run[name].as_f64().unwrap_or_else(|| panic!("{name} in {envelope}\n{said}"));
    let values = run["summary"]["values"].as_f64().unwrap();
    assert!(of("trained") * 5.0 < values, "most values are frozen: {run}");
    assert!(of("down_per_update") < of("trained") * 1.5, "a byte for a trained value, and what surrounds it: {run}");
}
