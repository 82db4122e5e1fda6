//! What the command line and the host say to each other: JSON lines over a Unix socket in the host's state folder, which only
//! its owner can open. One request, then one reply; after the reply to `watch`, events.

mod client;
pub mod fleet;
mod server;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::examples::Reading;
use crate::run::{Command, RunEvent};

pub use client::{Client, ControlError, Watched};
pub(crate) use server::listen;

/// The version of what is said; a host refuses others.
pub const VERSION: u32 = 1;

/// Longest line.
const LONGEST: u64 = 64 << 20;

/// The socket in a state folder.
pub fn socket(state: &Path) -> PathBuf {
    state.join("control.sock")
}

/// What is asked of a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase")]
pub enum Request {
    /// Start a run, or find the one started with the same token.
    Start {
        /// The plan file's content.
        plan: String,
        /// The plan file, to which the bundle's folder is relative.
        path: PathBuf,
        /// Names this start, so that repeating it starts nothing twice.
        token: Option<String>,
        /// Files the host measures the adapter on.
        #[serde(default)]
        test: Vec<PathBuf>,
        /// How they are read.
        #[serde(default)]
        reading: Reading,
    },
    /// All runs.
    List,
    /// A run with its plan and rounds.
    Show {
        /// Its id.
        run: String,
    },
    /// A run, and what happens in it from now on.
    Watch {
        /// Its id.
        run: String,
    },
    /// Pause, resume, step or stop a run.
    Command {
        /// Its id.
        run: String,
        /// What to do.
        command: Command,
    },
    /// Remove runs that are over: all that are named, or none.
    Remove {
        /// Their ids.
        runs: Vec<String>,
        /// Whether their folders are removed too.
        files: bool,
    },
    /// Write a run's best adapter.
    Adapter {
        /// Its id.
        run: String,
    },
    /// All devices.
    Devices,
    /// Something about the fleet's identities.
    Fleet {
        /// What.
        ask: fleet::FleetRequest,
    },
}

/// A line to the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Asked {
    version: u32,
    #[serde(flatten)]
    request: Request,
}

/// A line from the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    /// It is done.
    Data(Value),
    /// It is not.
    Error(String),
    /// Something happened in the run that is watched.
    Event(RunEvent),
    /// So many events were missed.
    Missed(u64),
}

/// The versioned form of a line from the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Answered {
    version: u32,
    #[serde(flatten)]
    said: Said,
}
