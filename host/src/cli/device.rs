//! `fedtt device`: the devices of the fleet.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use fedtt::control::Request;
use serde_json::{Value, json};

use super::host::{HostArgs, ago};
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
}

impl Command {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::List { .. } => "device list",
            Command::Show { .. } => "device show",
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

fn refusal(device: &Value) -> String {
    let said = &device["last_refusal"];
    match said.is_null() {
        true => String::new(),
        false => format!("{}: {}", text(&said[0]), text(&said[1])),
    }
}

fn presence(device: &Value) -> &'static str {
    if device["online"] == true { "online" } else { "away" }
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
                        ago(device["last_seen"].as_u64().unwrap_or(0)),
                        device["examples"].to_string(),
                        words(&device["labels"]),
                        text(&device["engine"]),
                        words(&device["runs"]),
                        refusal(device),
                    ]
                };
                let rows: Vec<Vec<String>> = devices.iter().map(row).collect();
                table(
                    &["device", "presence", "last seen", "examples", "labels", "engine", "runs", "last refusal"],
                    &rows,
                )
            };
            Ok(Outcome { text: shown, data, ok: true })
        }
        Command::Show { device, host } => {
            let data = host.ask(Request::Devices)?;
            let found = data["devices"].as_array().into_iter().flatten().find(|d| d["name"] == device.as_str());
            let Some(found) = found else { bail!("there is no device `{device}`; see `fedtt device list`") };
            let mut shown = format!("{device}\n\n");
            for (name, value) in [
                ("presence", presence(found).to_string()),
                ("last seen", ago(found["last_seen"].as_u64().unwrap_or(0))),
                ("examples", found["examples"].to_string()),
                ("labels", words(&found["labels"])),
                ("engine", text(&found["engine"])),
                ("version", text(&found["version"])),
                ("bundles", words(&found["bundles"])),
                ("runs", words(&found["runs"])),
                ("refused", refusal(found)),
            ] {
                if !value.is_empty() {
                    shown += &format!("  {name:<12}{value}\n");
                }
            }
            Ok(Outcome { text: shown, data: json!(found), ok: true })
        }
    }
}
