//! `fedtt broker`: a broker for the fleet.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fedtt::control::fleet::FleetRequest;
use fedtt::fleet::{MosquittoOptions, PasswordChanged, Span};
use fedtt_wire::FleetName;

use super::host::HostArgs;
use super::identity::ask;
use crate::output::Outcome;

const EXAMPLES: &str = "\
Examples:
  fedtt broker config mosquitto --hostname broker.site -o /etc/fedtt/mosquitto --group mosquitto \\
      --on-revoke 'systemctl reload mosquitto'
  fedtt broker config mosquitto --hostname localhost -o broker && mosquitto -c broker/mosquitto.conf

Writes mosquitto.conf, who may do what (acl), the broker's certificate and key, the host's own, the fleet's authority, the
list of revoked certificates, and host.toml for `fedtt serve`. Host and devices come to the first port with their
certificates; to the second come devices that have none yet, and can do nothing there but ask for one. `fedtt serve` renews the
certificates of broker and host, which last a year. Written again, devices and seed files stay valid.
Exit codes: 0 done, 1 failed, 2 wrong usage.";

const PASSWORD_EXAMPLES: &str = "\
Example: fedtt broker new-password

For when a seed file has got into wrong hands. Seed files made before let nobody in any more: make
new ones for boards that are still to enrol, and take the tokens in the old ones back with
`fedtt device tokens --cancel ID`. Boards that are enrolled go on as before, and hear the password
when they renew their certificates; one that is off until after its certificate has ended needs a
new seed (`fedtt device enroll NAME`, and on the board `fedtt-edge enroll --seed FILE --again`).
Exit codes: 0 done, 1 failed, or changed but the broker does not know it yet; 2 wrong usage.";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Write a broker's settings, with certificates and rights for the fleet
    #[command(subcommand)]
    Config(Kind),
    /// Give the port for devices that enrol a new password; seed files that are out are void then
    #[command(after_help = PASSWORD_EXAMPLES)]
    NewPassword(PasswordArgs),
}

#[derive(Subcommand)]
pub(crate) enum Kind {
    /// For mosquitto 2.0
    #[command(after_help = EXAMPLES)]
    Mosquitto(MosquittoArgs),
}

/// Options of `broker config mosquitto`.
#[derive(Args)]
pub(crate) struct MosquittoArgs {
    /// Host name or address devices reach the broker at; may be given several times, the first is told to devices
    #[arg(long, value_name = "NAME", required = true)]
    hostname: Vec<String>,
    /// Port for host and enrolled devices
    #[arg(long, value_name = "PORT", default_value_t = 8883)]
    listen: u16,
    /// Port for devices that enrol
    #[arg(long, value_name = "PORT", default_value_t = 8884)]
    enroll_listen: u16,
    /// Address to listen at [default: all of the machine's]
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<String>,
    /// Folder to write
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Group mosquitto runs under, to let it read its key [default: mosquitto, for root]
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Command that makes the broker read its files anew, run when a device is revoked or the broker's certificate renewed
    #[arg(long, value_name = "COMMAND")]
    on_revoke: Option<String>,
    /// How long the certificates of the broker and the host last; `fedtt serve` renews them with a third of that left
    #[arg(long, value_name = "SPAN", default_value = "365d")]
    certificate_life: Span,
    /// Largest packet, in bytes; a plan's wire.chunk must fit
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    max_packet: u64,
    /// The fleet, where no host runs [default: the one the broker was set up for, else fedtt]
    #[arg(long, value_name = "NAME")]
    fleet: Option<FleetName>,
    #[command(flatten)]
    host: HostArgs,
}

/// Options of `broker new-password`.
#[derive(Args)]
pub(crate) struct PasswordArgs {
    /// The fleet, where no host runs [default: the one the broker was set up for]
    #[arg(long, value_name = "NAME")]
    fleet: Option<FleetName>,
    #[command(flatten)]
    host: HostArgs,
}

impl Command {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Config(Kind::Mosquitto(_)) => "broker config mosquitto",
            Command::NewPassword(_) => "broker new-password",
        }
    }
}

pub(crate) fn run(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Config(Kind::Mosquitto(args)) => mosquitto(args),
        Command::NewPassword(args) => new_password(&args),
    }
}

fn new_password(args: &PasswordArgs) -> anyhow::Result<Outcome> {
    let data = ask(&args.host, args.fleet.as_ref(), FleetRequest::Password)?;
    let changed: PasswordChanged = serde_json::from_value(data.clone())?;
    let fleet = changed.fleet;
    let text = match &changed.broker {
        Ok(()) => {
            format!("Fleet {fleet}: seed files made before are void; `fedtt device enroll` makes new ones.\n")
        }
        Err(reason) => format!(
            "Fleet {fleet}: the password is changed. The broker still takes the one before, and not yet the new one: {reason}\n"
        ),
    };
    Ok(Outcome { text, data, ok: changed.broker.is_ok() })
}

fn mosquitto(args: MosquittoArgs) -> anyhow::Result<Outcome> {
    let options = MosquittoOptions {
        at: args.hostname,
        port: args.listen,
        enroll_port: args.enroll_listen,
        bind: args.bind,
        folder: std::path::absolute(&args.out)?,
        group: args.group,
        on_revoke: args.on_revoke.iter().flat_map(|command| command.split_whitespace()).map(str::to_string).collect(),
        life: args.certificate_life,
        max_packet: args.max_packet,
    };
    let data = ask(&args.host, args.fleet.as_ref(), FleetRequest::Mosquitto(options))?;
    let text = |key: &str| data[key].as_str().unwrap_or_default().to_string();
    let (folder, broker, enroll) = (text("folder"), text("broker"), text("enroll"));
    let reload = match args.on_revoke {
        Some(_) => String::new(),
        None => {
            "\nWhen a device is revoked, or its own certificate renewed, the broker has to read its files anew: give \
                 --on-revoke for that.\n"
                .to_string()
        }
    };
    let shown = format!(
        "Fleet {}: host and devices meet at {broker}, devices enrol at {enroll}.\n\n  mosquitto -c {folder}/mosquitto.conf\n  \
         fedtt serve --config {folder}/host.toml\n  fedtt device enroll NAME -o seed.toml\n{reload}",
        text("fleet")
    );
    Ok(Outcome { text: shown, data, ok: true })
}
