//! The host a command talks to.

use std::path::PathBuf;

use clap::Args;
use fedtt::control::{Client, ControlError, Request};
use fedtt::daemon::state_folder;
use serde_json::Value;

/// Options of every command that talks to a host.
#[derive(Args, Clone)]
pub(crate) struct HostArgs {
    /// The host's state folder [default: $FEDTT_STATE, else ~/.local/state/fedtt]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

impl HostArgs {
    pub(crate) fn connect(&self) -> Result<Client, ControlError> {
        Client::connect(&self.state.clone().unwrap_or_else(state_folder))
    }

    /// The state folder, where one was given.
    pub(crate) fn state(&self) -> Option<PathBuf> {
        self.state.clone()
    }

    /// Asks one thing.
    pub(crate) fn ask(&self, request: Request) -> Result<Value, ControlError> {
        self.connect()?.ask(request)
    }
}

/// Unix milliseconds.
pub(crate) fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(now).unwrap_or(u64::MAX)
}

/// Unix milliseconds, as people say it: how long ago.
pub(crate) fn ago(then: u64) -> String {
    let seconds = now().saturating_sub(then) / 1000;
    match seconds {
        0..2 => "now".to_string(),
        2..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
