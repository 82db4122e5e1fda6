//! A folder with all that mosquitto (2.0) needs to be a fleet's broker.
//!
//! What was found out by trying with mosquitto 2.0.11, and what follows:
//! - SIGHUP reads the ACL, the list of revoked certificates, the passwords and the broker's own certificate anew.
//! - A connection that stands by a password which holds no more is closed then.
//! - The list of revoked certificates is looked at when a connection begins: one that stands goes on. A deny line in the ACL
//!   holds for it at once, both ways, and goes before what patterns allow. Closing it takes another connection of the same
//!   name, which the host makes ([`super::revoking`]); the one put out cannot come back, as its certificate is on the list.
//! - Who was revoked cannot resume a TLS session of before either: it is looked at anew (tried with TLS 1.2 and 1.3).
//! - Of several lists in force the one made last counts; one that has expired lets nobody in, so they are made to last.
//! - Without `use_username_as_clientid` any device can disconnect any other by taking its client id. Among those who enrol,
//!   who share a user name, the client id is the request's random name: nobody else can guess what to listen to.
//! - Client ids are one space for all listeners: who enrols could disconnect any by its name. `clientid_prefixes`, which holds for
//!   all listeners too and for what a client says before a certificate's name takes its place, admits ids that no name begins as.
//! - `%u` and `%c` cannot be used to climb out of a topic: mosquitto refuses names with `+`, `#` or `/` in patterns.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fedtt_identity::authority::{CLIENT_ID, ENROLL, HOST};
use fedtt_identity::password::{mosquitto_line, random_password};
use fedtt_identity::request::{private_key, request};
use fedtt_identity::{Authority, CheckedRequest};
use fedtt_wire::FleetName;
use serde::{Deserialize, Serialize};

use super::deployment::{Deployment, place};
use super::error::of;
use super::password::PASSWORDS;
use super::{FleetError, Span};

/// How a mosquitto is to be set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MosquittoOptions {
    /// Host names and addresses devices reach it at; the first is told to them.
    pub at: Vec<String>,
    /// The port for work.
    pub port: u16,
    /// The port for enrolment.
    pub enroll_port: u16,
    /// The address it listens at; all of the machine's if absent.
    pub bind: Option<String>,
    /// The folder to write, as mosquitto and the host see it.
    pub folder: PathBuf,
    /// The group mosquitto runs under; for root, `mosquitto` where there is one.
    pub group: Option<String>,
    /// The command that makes it read its files anew.
    pub on_revoke: Vec<String>,
    /// How long the certificates of the broker and of the host last; the host renews them.
    pub life: Span,
    /// Largest packet, in bytes.
    pub max_packet: u64,
}

/// Writes the folder.
pub(super) fn write(
    options: &MosquittoOptions,
    fleet: &FleetName,
    authority: &Authority,
    known: Option<&Deployment>,
    state: &Path,
    now: u64,
) -> Result<Deployment, FleetError> {
    let Some(host) = options.at.first().cloned() else {
        return Err(FleetError::Refused("the broker has no host name; give the one devices reach it at".into()));
    };
    let group = match options.group.as_deref() {
        Some(name) => Some(group(name)?),
        // Started by root, mosquitto becomes another user, who has to read what root writes here.
        None if rustix::process::geteuid().is_root() => group("mosquitto").ok(),
        None => None,
    };
    let folder = &options.folder;
    std::fs::create_dir_all(folder).map_err(of(folder))?;
    let data = folder.join("data");
    std::fs::create_dir_all(&data).map_err(of(&data))?;
    for (folder, mode) in [(folder, 0o750), (&data, 0o770)] {
        std::os::unix::fs::chown(folder, None, group).map_err(of(folder))?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).map_err(of(folder))?;
    }
    let expires = now + options.life.seconds();
    let file = |name: &str, text: &str, mode: u32| place(&folder.join(name), text.as_bytes(), mode, group);
    let (key, host_key) = (private_key()?, private_key()?);
    let broker = authority.broker(&CheckedRequest::check(&request(&host, &key, None)?)?, &options.at, expires)?;
    file("broker.pem", &broker.pem, 0o644)?;
    file("broker.key", &key, 0o640)?;
    let ours = authority.host(&CheckedRequest::check(&request(HOST, &host_key, None)?)?, expires)?;
    place(&folder.join("host.pem"), ours.pem.as_bytes(), 0o644, None)?;
    place(&folder.join("host.key"), host_key.as_bytes(), 0o600, None)?;
    file("ca.pem", authority.certificate(), 0o644)?;
    file("acl.enroll", &acl_of_enrolment(fleet), 0o640)?;
    // Seed files that are out already go on holding.
    let password = known.map_or_else(random_password, |known| Ok(known.password.clone()))?;
    file(PASSWORDS, &mosquitto_line(ENROLL, &password)?, 0o640)?;
    let deployment = Deployment {
        fleet: fleet.to_string(),
        host,
        port: options.port,
        enroll_port: options.enroll_port,
        password,
        folder: folder.clone(),
        group,
        on_revoke: options.on_revoke.clone(),
        life: options.life,
    };
    place(&folder.join("host.toml"), host_toml(&deployment, state, options.max_packet).as_bytes(), 0o644, None)?;
    file("mosquitto.conf", &settings(options, fleet), 0o640)?;
    Ok(deployment)
}

/// The id of a group of the system.
fn group(name: &str) -> Result<u32, FleetError> {
    let path = Path::new("/etc/group");
    let text = std::fs::read_to_string(path).map_err(of(path))?;
    let mut groups = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = groups.find(|fields| fields.first() == Some(&name)).and_then(|fields| fields.get(2)?.parse().ok());
    found.ok_or_else(|| FleetError::Refused(format!("this machine has no group `{name}`: is mosquitto installed?")))
}

fn settings(options: &MosquittoOptions, fleet: &FleetName) -> String {
    let MosquittoOptions { port, enroll_port, max_packet, .. } = options;
    let folder = options.folder.display();
    let bind = options.bind.as_ref().map(|bind| format!(" {bind}")).unwrap_or_default();
    format!(
        "\
# mosquitto 2.0 as the broker of fleet {fleet}, written by `fedtt broker config mosquitto`.
# Start it with: mosquitto -c {folder}/mosquitto.conf
# After a device is revoked or its certificate is renewed it has to read its files anew: SIGHUP, or `systemctl reload mosquitto`.

per_listener_settings true

# No name in a certificate begins so: who may only enrol cannot take the place of who works.
clientid_prefixes {CLIENT_ID}

# What the federation asks of a broker: what is retained and queued outlives a restart, a fleet's round fits the queues, and
# no packet is larger than a plan's largest chunk (wire.chunk).
persistence true
persistence_location {folder}/data/
autosave_interval 60
max_queued_messages 10000
max_queued_bytes 67108864
max_packet_size {max_packet}
set_tcp_nodelay true

# Work: host and enrolled devices. Whoever has no certificate of the fleet's authority is not let in; the certificate's
# name is user and client id.
listener {port}{bind}
cafile {folder}/ca.pem
certfile {folder}/broker.pem
keyfile {folder}/broker.key
crlfile {folder}/crl.pem
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {folder}/acl

# Enrolment: devices that have no certificate yet, or an expired one. They see nothing but the answer to their own request.
listener {enroll_port}{bind}
certfile {folder}/broker.pem
keyfile {folder}/broker.key
tls_version tlsv1.2
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/acl.enroll
"
    )
}

/// Who may do what, with a certificate. `revoked` may do nothing.
pub(super) fn acl(fleet: &FleetName, revoked: &[String]) -> String {
    let mut text = format!(
        "\
# Written by `fedtt broker config mosquitto`, and anew whenever a device is revoked.
user {HOST}
topic readwrite fedtt/{fleet}/#

# A device speaks for itself alone, and hears what is for it or for all. (%u is the name in its certificate.)
pattern write fedtt/{fleet}/up/%u
pattern write fedtt/{fleet}/presence/%u
pattern write fedtt/{fleet}/enroll/%u/ask
pattern read fedtt/{fleet}/enroll/%u/answer
pattern read fedtt/{fleet}/down/%u
pattern read fedtt/{fleet}/run/#
pattern read fedtt/{fleet}/host
"
    );
    if !revoked.is_empty() {
        text += "\n# Revoked.\n";
    }
    for name in revoked {
        text += &format!("user {name}\ntopic deny #\n");
    }
    text
}

fn acl_of_enrolment(fleet: &FleetName) -> String {
    format!(
        "\
# Written by `fedtt broker config mosquitto`. (%c is the client id: the random name of the request.)
pattern write fedtt/{fleet}/enroll/%c/ask
pattern read fedtt/{fleet}/enroll/%c/answer
"
    )
}

fn host_toml(deployment: &Deployment, state: &Path, max_packet: u64) -> String {
    let Deployment { fleet, folder, .. } = deployment;
    let (broker, folder) = (deployment.broker(), folder.display());
    let state = toml::Value::from(state.to_string_lossy().as_ref());
    format!(
        "\
# The host of this broker: fedtt serve --config {folder}/host.toml
fleet = \"{fleet}\"
broker = \"{broker}\"
max_packet = {max_packet}
state = {state}
runs = \"runs\"

[tls]
ca = \"ca.pem\"
cert = \"host.pem\"
key = \"host.key\"
"
    )
}
