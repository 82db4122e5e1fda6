//! `fedtt device enroll` and `fedtt device revoke`: who belongs to the fleet.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, bail};
use clap::Args;
use fedtt::control::fleet::{FleetRequest, answer};
use fedtt::control::{ControlError, Request};
use fedtt::daemon::state_folder;
use fedtt::fleet::{Registrar, Span, TokenOptions, TokenOut};
use fedtt_identity::TokenId;
use fedtt_identity::inspect::date;
use fedtt_wire::{DeviceName, FleetName};
use serde_json::{Value, json};

use super::host::HostArgs;
use crate::output::{Outcome, table};

pub(crate) const ENROLL_EXAMPLES: &str = "\
Examples:
  fedtt device enroll pump-house-3 -o seed.toml      one device; on it: fedtt-edge enroll --seed seed.toml
  fedtt device enroll --batch 50 --label north -o seed.toml --expires 30d
                                                     50 boards flashed alike, which name themselves
  fedtt device enroll pump-house-3 --csr pump-house-3.csr -o pump-house-3.pem
                                                     without any connection, for a request made on the device

Whoever has the seed file can enrol until it is used up or expires. The broker has to be set up before, with
`fedtt broker config mosquitto`. Works with and without `fedtt serve` running; devices are answered while it runs.
Exit codes: 0 done, 1 failed, 2 wrong usage.";

pub(crate) const REVOKE_EXAMPLES: &str = "\
Example: fedtt device revoke pump-house-3

From then on the host listens to the device no more, and the broker neither lets it in nor passes anything on; a connection
it has is closed. The broker is told by the command given to `fedtt broker config --on-revoke`, or `on_revoke` in host.toml.
`fedtt device enroll NAME` lets a device of that name in again.
Exit codes: 0 done, 1 failed, or revoked but the broker does not know it yet; 2 wrong usage.";

/// Options of `device enroll`.
#[derive(Args)]
pub(crate) struct EnrollArgs {
    /// The device's name, unique in its fleet
    #[arg(required_unless_present = "batch", conflicts_with = "batch")]
    device: Option<DeviceName>,
    /// A token for so many devices, which name themselves
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Group its devices belong to, which plans can select by; may be given several times
    #[arg(long, value_name = "LABEL", conflicts_with = "csr")]
    label: Vec<String>,
    /// How long the token holds: a number and s, m, h or d
    #[arg(long, value_name = "SPAN", default_value = "7d")]
    expires: Span,
    /// Sign this request of `fedtt-edge enroll --csr` in place of making a token; - for standard input
    #[arg(long, value_name = "FILE", requires = "device")]
    csr: Option<PathBuf>,
    /// Write the seed file, or with --csr the certificate, here
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The fleet, where no host runs [default: the one the broker was set up for]
    #[arg(long, value_name = "NAME")]
    fleet: Option<FleetName>,
    #[command(flatten)]
    host: HostArgs,
}

pub(crate) const TOKENS_EXAMPLES: &str = "\
Examples:
  fedtt device tokens
  fedtt device tokens --cancel 7e2f43a572899d88      nobody enrols with it any more

Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Options of `device tokens`.
#[derive(Args)]
pub(crate) struct TokensArgs {
    /// Take this one back; those who enrolled with it stay
    #[arg(long, value_name = "ID")]
    cancel: Option<String>,
    /// The fleet, where no host runs [default: the one the broker was set up for]
    #[arg(long, value_name = "NAME")]
    fleet: Option<FleetName>,
    #[command(flatten)]
    host: HostArgs,
}

/// Options of `device revoke` and `device forget`.
#[derive(Args)]
pub(crate) struct RevokeArgs {
    /// The device's name
    device: DeviceName,
    /// The fleet, where no host runs [default: the one the broker was set up for]
    #[arg(long, value_name = "NAME")]
    fleet: Option<FleetName>,
    #[command(flatten)]
    host: HostArgs,
}

/// Asks the host that serves a state folder, or where none does, the folder itself.
pub(super) fn ask(host: &HostArgs, fleet: Option<&FleetName>, ask: FleetRequest) -> anyhow::Result<Value> {
    match host.ask(Request::Fleet { ask: ask.clone() }) {
        Err(ControlError::Absent { .. }) => {}
        outcome => return Ok(outcome?),
    }
    let state = std::path::absolute(host.state().unwrap_or_else(state_folder))?;
    let registrar = match Registrar::alone(&state, fleet.cloned()) {
        Ok(registrar) => Mutex::new(registrar),
        // A host may have begun to serve it meanwhile.
        Err(error) => {
            return match host.ask(Request::Fleet { ask }) {
                Err(ControlError::Absent { .. }) => Err(error.into()),
                outcome => Ok(outcome?),
            };
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    Ok(answer(&registrar, runtime.handle(), ask)?)
}

/// Writes a file for its owner alone.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let opened = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| {
        // One that was there keeps its mode.
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}

pub(crate) fn enroll(args: EnrollArgs) -> anyhow::Result<Outcome> {
    match (&args.csr, &args.device) {
        (Some(csr), Some(device)) => sign(&args, csr, device),
        _ => token(&args),
    }
}

fn token(args: &EnrollArgs) -> anyhow::Result<Outcome> {
    let options = TokenOptions {
        name: args.device.clone(),
        uses: args.batch.unwrap_or(1),
        labels: args.label.clone(),
        expires: args.expires,
    };
    let mut data = ask(&args.host, args.fleet.as_ref(), FleetRequest::Token(options))?;
    let text = |key: &str| data[key].as_str().unwrap_or_default().to_string();
    let (seed, token, broker, expires) = (text("seed"), text("token"), text("broker"), text("expires"));
    let who = match &args.device {
        Some(device) => format!("Device {device}"),
        None => format!("{} devices, which name themselves,", data["uses"]),
    };
    let can = format!("{who} can enrol until {expires}, at {broker}.\n");
    let shown = match &args.out {
        Some(path) => {
            write(path, &seed)?;
            data["file"] = json!(path);
            format!(
                "{can}Seed file: {0} (keep it from others)\n\nOn the device: fedtt-edge enroll --seed {0}\nOr put it beside \
                 edge.toml as enroll.toml: `fedtt-edge run` enrols by itself.\n",
                path.display()
            )
        }
        None => format!("{can}Token: {token}\n\nThe seed file, all a device needs:\n\n{seed}"),
    };
    Ok(Outcome { text: shown, data, ok: true })
}

pub(crate) fn tokens(args: &TokensArgs) -> anyhow::Result<Outcome> {
    let cancel = args.cancel.clone().map(TokenId::try_from).transpose()?;
    let data = ask(&args.host, args.fleet.as_ref(), FleetRequest::Tokens { cancel })?;
    let tokens: Vec<TokenOut> = serde_json::from_value(data["tokens"].clone())?;
    let row = |token: &TokenOut| {
        let (shown, more) = (token.used.iter().take(3).map(String::as_str).collect::<Vec<_>>(), token.used.len());
        vec![
            token.id.to_string(),
            token.name.as_ref().map_or_else(|| "any".to_string(), ToString::to_string),
            token.left.to_string(),
            date(token.expires),
            token.labels.join(" "),
            format!("{}{}", shown.join(" "), if more > 3 { format!(" and {} more", more - 3) } else { String::new() }),
        ]
    };
    let text = match tokens.as_slice() {
        [] => "No tokens are out. Make one with `fedtt device enroll`.\n".to_string(),
        tokens => table(
            &["token", "device", "left", "expires", "labels", "used by"],
            &tokens.iter().map(row).collect::<Vec<_>>(),
        ),
    };
    Ok(Outcome { text, data, ok: true })
}

fn sign(args: &EnrollArgs, csr: &Path, device: &DeviceName) -> anyhow::Result<Outcome> {
    let request = match csr == Path::new("-") {
        true => {
            let mut text = String::new();
            std::io::stdin().take(1 << 20).read_to_string(&mut text).context("cannot read standard input")?;
            text
        }
        false => std::fs::read_to_string(csr).with_context(|| format!("cannot read {}", csr.display()))?,
    };
    let asked = FleetRequest::Sign { device: device.clone(), request };
    let mut data = ask(&args.host, args.fleet.as_ref(), asked)?;
    let text = |key: &str| data[key].as_str().unwrap_or_default().to_string();
    let (certificate, ca, host, broker) = (text("certificate"), text("ca"), text("host"), text("broker"));
    let Some(out) = &args.out else {
        return Ok(Outcome { text: format!("{certificate}{ca}"), data, ok: true });
    };
    let beside = out.with_extension("ca.pem");
    if *out == beside {
        bail!("{} is where the authority's certificate goes; give the device's another name", out.display());
    }
    write(out, &certificate)?;
    write(&beside, &ca)?;
    (data["file"], data["ca_file"]) = (json!(out), json!(beside));
    let at = if broker.is_empty() { "mqtts://BROKER:8883" } else { &broker };
    let (out, beside) = (out.display(), beside.display());
    let text = format!(
        "Device {device} is of the fleet. Bring {out} and {beside} to it, and there:\n\nfedtt-edge enroll --certificate {out} \
         --ca {beside} --broker {at} --host-key {host}\n"
    );
    Ok(Outcome { text, data, ok: true })
}

pub(crate) fn forget(args: RevokeArgs) -> anyhow::Result<Outcome> {
    let data = ask(&args.host, args.fleet.as_ref(), FleetRequest::Forget { device: args.device.clone() })?;
    let text = format!("{} is forgotten: the next key that comes with this name is trusted.\n", args.device);
    Ok(Outcome { text, data, ok: true })
}

pub(crate) fn revoke(args: RevokeArgs) -> anyhow::Result<Outcome> {
    let device = args.device.clone();
    let data = ask(&args.host, args.fleet.as_ref(), FleetRequest::Revoke { device: device.clone() })?;
    let why = |key: &str| data[key]["Err"].as_str().map(str::to_string);
    let text = match (why("broker"), why("connection")) {
        (None, None) => format!("{device} is revoked: the broker refuses it, and no connection of it stands.\n"),
        (None, Some(reason)) => format!(
            "{device} is revoked, and the broker passes nothing of it on or to it. A connection of it may still stand: {reason}\n"
        ),
        (Some(reason), _) => {
            format!("{device} is revoked: the host listens to it no more. The broker still lets it in: {reason}\n")
        }
    };
    let ok = why("broker").is_none();
    Ok(Outcome { text, data, ok })
}
