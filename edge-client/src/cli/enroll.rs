//! `fedtt-edge enroll`

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use fedtt_edge::daemon::{EdgeConfig, enrolling_name, read_seed};
use fedtt_edge::identity::{Carried, Enrolled, Identity, Step, enroll};
use fedtt_identity::Seed;
use fedtt_identity::inspect::date;
use fedtt_wire::{DeviceName, FleetName, PublicKey};
use serde_json::json;

use super::Output;
use super::args::OutputArgs;

const EXAMPLES: &str = "\
Examples:
  fedtt-edge enroll --seed seed.toml                  made by `fedtt device enroll`
  fedtt-edge enroll --broker mqtts://enroll:PASSWORD@broker.site:8884 --token ID.SECRET --ca ca.pem --name pump-house-3
  sudo fedtt-edge enroll --config /etc/fedtt/edge.toml --seed seed.toml --again    on a board with the package
Without a connection, by carrying two files:
  fedtt-edge enroll --csr pump-house-3.csr --name pump-house-3
  fedtt-edge enroll --certificate pump-house-3.pem --ca pump-house-3.ca.pem --broker mqtts://broker.site:8883 --host-key HEX

The private keys are made here and never leave the device. What enrolment leaves is in the folder `identity` of the state
folder, which `fedtt-edge run` uses by itself and renews in time.
Exit codes: 0 enrolled, or the request written; 1 failed, refused or not answered in time; 2 wrong usage.";

/// Options of `enroll`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EnrollArgs {
    /// Seed file made by `fedtt device enroll`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token", "ca", "broker", "fleet", "csr", "certificate"])]
    seed: Option<PathBuf>,
    /// The broker: for enrolment with --token, for work with --certificate
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// Token made by `fedtt device enroll`, in place of a seed file
    #[arg(long, value_name = "TOKEN", requires_all = ["broker", "ca"], conflicts_with_all = ["csr", "certificate"])]
    token: Option<String>,
    /// The fleet's authority, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The fleet
    #[arg(long, value_name = "NAME", default_value = "fedtt")]
    fleet: FleetName,
    /// This device's name [default: the seed's, else that of the settings, else the board's serial number]
    #[arg(long, value_name = "NAME")]
    name: Option<DeviceName>,
    /// Write a request for a certificate here, to carry to the host
    #[arg(long, value_name = "FILE", conflicts_with = "certificate")]
    csr: Option<PathBuf>,
    /// Take on the certificate that `fedtt device enroll --csr` has made
    #[arg(long, value_name = "FILE", requires_all = ["ca", "broker", "host_key"])]
    certificate: Option<PathBuf>,
    /// The host's key, as `fedtt device enroll --csr` prints it
    #[arg(long, value_name = "HEX")]
    host_key: Option<PublicKey>,
    /// Settings file of `fedtt-edge run`, for state folder and name
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// State folder of `fedtt-edge run` [default: that of the settings file, else fedtt-edge-state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How long to try, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait: u64,
    /// Enrol also where the device is enrolled already
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

fn text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

pub(crate) fn run(args: &EnrollArgs, output: Output) -> anyhow::Result<()> {
    let config = EdgeConfig::read(args.config.as_deref(), &[])?;
    let identity = Identity::open(args.state.as_ref().unwrap_or(&config.state))?;
    let named = args.name.as_ref().map(DeviceName::as_str).or(config.name.as_deref());
    if let Some(known) = identity.enrolled()?.filter(|_| !args.again && args.csr.is_none()) {
        bail!(
            "this device is enrolled as `{}` in fleet {} already ({}); --again enrols it anew",
            known.name,
            known.fleet,
            identity.folder().display()
        );
    }
    if let Some(path) = &args.csr {
        return request(args, &identity, path, named, output);
    }
    let enrolled = match (&args.certificate, args.host_key) {
        (Some(certificate), Some(host)) => carry_back(args, &identity, certificate, host)?,
        _ => {
            let seed = seed(args)?;
            let name = enrolling_name(&seed, named)?;
            ask(&identity, &seed, &name, Duration::from_secs(args.wait), output)?
        }
    };
    let data = json!({
        "name": enrolled.name, "fleet": enrolled.fleet, "broker": enrolled.broker, "expires": enrolled.expires,
        "labels": enrolled.labels, "host": identity.host()?, "key": identity.key().public(),
        "folder": identity.folder(),
    });
    let shown = format!(
        "{} is enrolled in fleet {}, until {} and renewed in time. It works over {}:\n\nfedtt-edge run",
        enrolled.name,
        enrolled.fleet,
        date(enrolled.expires),
        enrolled.broker
    );
    output.success(&data, &shown)
}

/// The seed, of its file or of the options.
fn seed(args: &EnrollArgs) -> anyhow::Result<Seed> {
    if let Some(path) = &args.seed {
        return Ok(read_seed(path)?);
    }
    let (Some(token), Some(broker), Some(ca)) = (&args.token, &args.broker, &args.ca) else {
        bail!(
            "what to enrol with? Give a --seed file made by `fedtt device enroll`, or see `fedtt-edge enroll --help`"
        );
    };
    Ok(Seed {
        fleet: args.fleet.clone(),
        broker: broker.clone(),
        token: token.parse()?,
        name: None,
        labels: Vec::new(),
        expires: String::new(),
        ca: text(ca)?,
    })
}

fn ask(
    identity: &Identity,
    seed: &Seed,
    name: &DeviceName,
    wait: Duration,
    output: Output,
) -> anyhow::Result<Enrolled> {
    let last = std::cell::RefCell::new("the host does not answer; is `fedtt serve` running?".to_string());
    let told = |step| {
        let said = match step {
            Step::Asked => "the host does not answer; is `fedtt serve` running?".to_string(),
            Step::Disconnected { reason, .. } => reason,
            Step::Hint(hint) => format!("somebody who does not prove to be the host says: {hint}"),
        };
        if !output.is_json() && said != *last.borrow() {
            eprintln!("{said}");
        }
        last.replace(said);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(async { tokio::time::timeout(wait, enroll(identity, seed, name, told)).await }) {
        Ok(outcome) => Ok(outcome?),
        Err(_) => {
            bail!("not enrolled within {} s: {}; the same command goes on with it", wait.as_secs(), last.into_inner())
        }
    }
}

fn request(
    args: &EnrollArgs,
    identity: &Identity,
    path: &Path,
    named: Option<&str>,
    output: Output,
) -> anyhow::Result<()> {
    let name = match named {
        Some(name) => DeviceName::new(name)?,
        None => {
            fedtt_edge::identity::own_name(Path::new("/")).context("the board has no name of its own; give --name")?
        }
    };
    let request = identity.request(&name)?;
    std::fs::write(path, &request).with_context(|| format!("cannot write {}", path.display()))?;
    let data = json!({ "name": name, "request": path, "fleet": args.fleet });
    let (path, stem) = (path.display(), path.with_extension("pem"));
    let shown = format!(
        "Request for {name}: {path}. Carry it to the host, and there:\n\nfedtt device enroll {name} --csr {path} -o {}",
        stem.display()
    );
    output.success(&data, &shown)
}

fn carry_back(args: &EnrollArgs, identity: &Identity, path: &Path, host: PublicKey) -> anyhow::Result<Enrolled> {
    let (Some(ca), Some(broker)) = (&args.ca, &args.broker) else { bail!("--certificate needs --ca and --broker") };
    let _: fedtt_link::BrokerUrl = broker.parse()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let carried =
        Carried { certificate: text(path)?, ca: text(ca)?, host, fleet: args.fleet.clone(), broker: broker.clone() };
    Ok(identity.carry_back(carried, now)?)
}
