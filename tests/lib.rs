//! Running the built programs and reading what they say.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// One of the workspace's programs, beside the test that runs.
///
/// # Panics
/// When it has not been built: `cargo test --workspace` builds the programs, since their packages have tests of their own.
pub fn program(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.is_file(), "{} is not built: run `cargo test --workspace`", path.display());
    Command::new(path)
}

/// A word of a command line.
pub type Word<'a> = &'a dyn AsRef<OsStr>;

/// Runs a program with `--json` and returns its envelope and exit code.
///
/// # Panics
/// When what it prints is not one JSON object.
pub fn json(name: &str, args: &[Word<'_>]) -> (Value, i32) {
    let output = program(name).args(args).arg("--json").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let envelope = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{name}: {e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (envelope, code(&output))
}

/// As [`json`] for a run that must succeed; returns what is under `data`.
///
/// # Panics
/// When it fails.
pub fn data(name: &str, args: &[Word<'_>]) -> Value {
    let (mut envelope, code) = json(name, args);
    assert_eq!((code, envelope["ok"].as_bool()), (0, Some(true)), "{name}: {envelope:#}");
    envelope["data"].take()
}

/// The exit code.
///
/// # Panics
/// When a signal ended the program.
pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// The reference material beside the repository; only for tests that are ignored where it is absent.
pub fn shared(path: &str) -> PathBuf {
    PathBuf::from(option_env!("FEDTT_SHARED_FOUND").unwrap_or("../shared")).join(path)
}
