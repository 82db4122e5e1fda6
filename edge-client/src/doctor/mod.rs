//! Is this board fit: engine, backbones, memory, disk, data, identity, broker, and what the board tells of itself.
//!
//! [`examine`] goes through all of it and says of each part whether it is well and, where it is not, what to do. Nothing
//! is changed but for a file in the state folder that is written and removed again.

mod backbones;
mod board;
mod broker;
mod certificate;
mod data;
mod engine;
mod memory;
mod storage;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::board::Board;
use crate::daemon::{EdgeConfig, Settings, control};

use memory::Bounds;

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Well.
    Ok,
    /// It works, but not as it should, or not for long.
    Warn,
    /// The device cannot work with it.
    Fail,
}

/// What was found of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which part.
    pub name: &'static str,
    /// How it is.
    pub level: Level,
    /// What was found.
    pub finding: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, finding: impl Into<String>) -> Self {
        Check { name, level: Level::Ok, finding: finding.into(), advice: None }
    }

    fn warn(name: &'static str, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Check { name, level: Level::Warn, finding: finding.into(), advice: Some(advice.into()) }
    }

    fn fail(name: &'static str, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Check { name, level: Level::Fail, finding: finding.into(), advice: Some(advice.into()) }
    }
}

/// Examines the board for what `config` asks of it.
pub async fn examine(config: EdgeConfig, board: &Board) -> Vec<Check> {
    let mut checks = Vec::new();
    let settings = match config.settings() {
        Ok(settings) => {
            let (name, fleet, broker) = (&settings.name, &settings.fleet, &settings.broker);
            checks.push(Check::ok("settings", format!("device {name} of fleet {fleet}, broker {broker}")));
            settings
        }
        Err(error) => {
            checks.push(Check::fail("settings", error.to_string(), "correct it in the settings file, or with --set"));
            return checks;
        }
    };
    let running = control::ask(&settings.state).await;
    let process = running.as_ref().ok().and_then(|standing| standing.process);
    let examined = tokio::task::spawn_blocking({
        let (settings, board) = (settings.clone(), board.clone());
        move || here(&settings, &board, process)
    });
    match examined.await {
        Ok(found) => checks.extend(found),
        Err(error) => checks.push(Check::fail("doctor", format!("an examination failed: {error}"), "report it")),
    }
    checks.extend(certificate::check(&settings));
    checks.extend(broker::check(&settings, running).await);
    checks.extend(board::check(&settings, board));
    checks
}

/// What can be told without a broker. `process` is the device that runs here, if one does.
fn here(settings: &Settings, board: &Board, process: Option<u32>) -> Vec<Check> {
    let (engine, mut checks) = engine::check(settings);
    let (sources, found) = backbones::check(settings);
    checks.extend(found);
    checks.extend(memory::check(&sources, engine.as_deref(), settings, &Bounds::of(settings, board, process)));
    checks.extend(storage::check(&settings.state));
    checks.extend(data::check(settings));
    checks
}

/// Bytes, as people read them.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x0010_0000 => format!("{} KiB", bytes >> 10),
        0x0010_0000..0x2_8000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}
