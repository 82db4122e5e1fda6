//! `fedtt device`: the devices of the fleet.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use fedtt::control::Request;
use fedtt_identity::inspect::date;
use serde_json::{Value, json};

use super::host::{HostArgs, ago};
use super::identity;
use crate::output::{Outcome, table};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show all devices, when they were last heard of, and why they refused last
    #[command(after_help = "Example: fedtt device list")]
    List {
        #[command(flatten)]
        host: HostArgs,
    },
    /// Show one device
    #[command(after_help = "Example: fedtt device show pump-house-3")]
    Show {
        /// Its name
        device: String,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Let a device in, or a batch of them: a token and its seed file, or a certificate
    #[command(after_help = identity::ENROLL_EXAMPLES)]
    Enroll(identity::EnrollArgs),
    /// Show the tokens that are out, or take one back
    #[command(after_help = identity::TOKENS_EXAMPLES)]
    Tokens(identity::TokensArgs),
    /// Put a device out, at once
    #[command(after_help = identity::REVOKE_EXAMPLES)]
    Revoke(identity::RevokeArgs),
    /// Free the name of a device that was not enrolled, for the board that replaced it
    #[command(after_help = "Example: fedtt device forget pump-house-3\n\n\
        The next key that comes with the name is trusted; the one before is not any more.")]
    Forget(identity::RevokeArgs),
}

impl Command {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::List { .. } => "device list",
            Command::Show { .. } => "device show",
            Command::Enroll(_) => "device enroll",
            Command::Tokens(_) => "device tokens",
            Command::Revoke(_) => "device revoke",
            Command::Forget(_) => "device forget",
        }
    }
}

fn words(value: &Value) -> String {
    let words = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(" ")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_string()
}

/// Why a device takes part in nothing for now, or did not last, and in which run.
fn trouble(device: &Value) -> String {
    let refused = &device["last_refusal"];
    match (device["problem"].as_str(), refused.is_null()) {
        (Some(problem), _) => problem.to_string(),
        (None, true) => String::new(),
        (None, false) => format!("{}: {}", text(&refused[0]), text(&refused[1])),
    }
}

/// How the host knows a device.
fn trust(device: &Value) -> &'static str {
    let identity = &device["identity"];
    match (identity["revoked"].as_u64(), identity["enrolled"].as_bool()) {
        (Some(_), _) => "revoked",
        (None, Some(true)) => "enrolled",
        (None, Some(false)) => "by its first key",
        (None, None) => "",
    }
}

/// Until when a device's certificate holds.
fn certificate(device: &Value) -> String {
    device["identity"]["certificate"]["not_after"].as_u64().map_or_else(String::new, date)
}

fn seen(device: &Value) -> String {
    device["last_seen"].as_u64().map_or_else(|| "never".to_string(), ago)
}

fn presence(device: &Value) -> &'static str {
    let fetches = device["fetching"].as_array().is_some_and(|bundles| !bundles.is_empty());
    match device["online"] == true {
        true if !device["problem"].is_null() => "unready",
        true if fetches => "fetching",
        true => "online",
        false => "away",
    }
}

pub(crate) fn run(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::List { host } => {
            let data = host.ask(Request::Devices)?;
            let devices = data["devices"].as_array().context("the host lists no devices")?;
            let shown = if devices.is_empty() {
                "No devices yet. Start one with `fedtt-edge run`.\n".to_string()
            } else {
                let row = |device: &Value| {
                    vec![
                        text(&device["name"]),
                        presence(device).to_string(),
                        seen(device),
                        device["examples"].as_u64().map_or_else(String::new, |n| n.to_string()),
                        words(&device["labels"]),
                        text(&device["engine"]),
                        words(&device["runs"]),
                        trust(device).to_string(),
                        certificate(device),
                        trouble(device),
                    ]
                };
                let rows: Vec<Vec<String>> = devices.iter().map(row).collect();
                let header = [
                    "device",
                    "presence",
                    "last seen",
                    "examples",
                    "labels",
                    "engine",
                    "runs",
                    "known",
                    "certificate until",
                    "trouble",
                ];
                table(&header, &rows)
            };
            Ok(Outcome { text: shown, data, ok: true })
        }
        Command::Enroll(args) => identity::enroll(args),
        Command::Tokens(args) => identity::tokens(&args),
        Command::Revoke(args) => identity::revoke(args),
        Command::Forget(args) => identity::forget(args),
        Command::Show { device, host } => {
            let data = host.ask(Request::Devices)?;
            let found = data["devices"].as_array().into_iter().flatten().find(|d| d["name"] == device.as_str());
            let Some(found) = found else { bail!("there is no device `{device}`; see `fedtt device list`") };
            let mut shown = format!("{device}\n\n");
            for (name, value) in [
                ("presence", presence(found).to_string()),
                ("last seen", seen(found)),
                ("known", trust(found).to_string()),
                ("key", text(&found["identity"]["key"])),
                ("certificate", certificate(found)),
                ("serial", text(&found["identity"]["certificate"]["serial"])),
                ("examples", found["examples"].as_u64().map_or_else(String::new, |n| n.to_string())),
                ("labels", words(&found["labels"])),
                ("engine", text(&found["engine"])),
                ("version", text(&found["version"])),
                ("bundles", words(&found["bundles"])),
                ("fetching", words(&found["fetching"])),
                ("runs", words(&found["runs"])),
                ("trouble", trouble(found)),
            ] {
                if !value.is_empty() {
                    shown += &format!("  {name:<13}{value}\n");
                }
            }
            Ok(Outcome { text: shown, data: json!(found), ok: true })
        }
    }
}
