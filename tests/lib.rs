//! Running the built programs and reading what they say.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

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

/// Longest wait for something a program is to say or do.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program that runs, prints JSON lines, and is killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
}

impl Process {
    /// Starts a program with `--json`.
    ///
    /// # Panics
    /// When it has not been built.
    pub fn start(name: &str, args: &[Word<'_>]) -> Self {
        let mut child = program(name).args(args).arg("--json").stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Process { name: name.to_string(), child, lines, heard: Vec::new() }
    }

    /// Starts a device that trains with tract on the examples in `file`, with further settings `key=value`.
    ///
    /// # Panics
    /// As [`Process::start`].
    pub fn device(broker: &str, name: &str, file: &Path, state: &Path, settings: &[&str]) -> Self {
        let mut words: Vec<Word<'_>> = vec![&"run", &"--broker", &broker, &"--name", &name, &"--data", &file];
        words.extend([&"--state" as Word<'_>, &state, &"--set", &"engine.engine=\"tract\""]);
        for setting in settings {
            words.extend([&"--set" as Word<'_>, setting]);
        }
        Self::start("fedtt-edge", &words)
    }

    /// The next line it prints that is wanted; others are passed over.
    ///
    /// # Panics
    /// When none comes in two minutes.
    pub fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("{} did not say what was waited for, but:\n{}", self.name, self.heard.join("\n"));
            };
            let value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{}: {e}: {line}", self.name));
            self.heard.push(line);
            if wanted(&value) {
                return value;
            }
        }
    }

    /// The next line it prints, if one comes in time.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn hear(&mut self, within: Duration) -> Option<Value> {
        let line = self.lines.recv_timeout(within).ok()?;
        let value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{}: {e}: {line}", self.name));
        self.heard.push(line);
        Some(value)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without warning.
    ///
    /// # Panics
    /// When it cannot be.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and returns its exit code.
    ///
    /// # Panics
    /// When a signal ended it.
    pub fn terminate(mut self) -> i32 {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors: it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
