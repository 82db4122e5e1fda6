//! Putting devices out.
//!
//! 1. The registry and the ledger say so: the host listens to the device no more, and renews nothing.
//! 2. The broker's files say so: a deny line in its ACL, its certificates on the list of revoked ones.
//! 3. A command has the broker read them: the device can neither hear nor say anything, nor come anew.
//! 4. The host takes the device's place for a moment: the broker closes its connection.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fedtt_identity::CheckedRequest;
use fedtt_identity::authority::CLIENT_ID;
use fedtt_identity::request::{private_key, request};
use fedtt_link::{Delivery, Link, LinkConfig, TlsFiles};
use fedtt_wire::DeviceName;
use serde::{Deserialize, Serialize};

use super::deployment::place;
use super::{FleetError, Registrar, mosquitto, now};

/// Longest time the command may take.
const COMMAND: Duration = Duration::from_secs(30);
/// Longest time to take a device's place.
const EXPEL: Duration = Duration::from_secs(10);
/// How far the list of revoked certificates is made to lie in the past, in seconds: a broker whose clock is behind would
/// take it for one of the future, and let nobody in.
const BEHIND: u64 = 3600;
/// Life of the certificate the host takes a device's place with, in seconds.
const MOMENT: u64 = 600;
/// What is left to people where no command does it.
pub(super) const READ_ANEW: &str = "have the broker read its files anew, with SIGHUP or `systemctl reload mosquitto`; \
                                    `on_revoke` in host.toml does it by itself";

/// A device was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// The device.
    pub device: DeviceName,
    /// Unix seconds since when.
    pub since: u64,
    /// How many of its certificates were still valid.
    pub certificates: usize,
    /// Whether the broker has been told: it refuses the device from now on. Else why not, and what to do.
    pub broker: Result<(), String>,
    /// Whether a connection it may have had is closed; else why not. Also then the broker passes nothing on.
    pub connection: Result<(), String>,
}

/// What is left to do when a device is revoked.
#[derive(Debug)]
pub struct Revocation {
    revoked: Revoked,
    command: Vec<String>,
    expulsion: Option<Expulsion>,
}

#[derive(Debug)]
struct Expulsion {
    broker: String,
    ca: String,
    certificate: String,
    key: String,
}

impl Registrar {
    /// Revokes a device; [`Revocation::carry_through`] does what takes its time.
    ///
    /// # Errors
    /// When there is no such device, or a file cannot be written.
    pub fn revoke(&mut self, device: &DeviceName) -> Result<Revocation, FleetError> {
        let now = now();
        let Some(known) = self.devices.revoke(device, now)? else {
            return Err(FleetError::Refused(format!("there is no device `{device}`; see `fedtt device list`")));
        };
        let changes = self.ledger.begin()?;
        let certificates = changes.revoke(device, now)?;
        changes.commit()?;
        let published = self.publish_revoked();
        let untold = "no broker is set up with `fedtt broker config`: see that yours refuses the device".to_string();
        let mut revoked = Revoked {
            device: device.clone(),
            since: known.revoked.unwrap_or(now),
            certificates,
            broker: Err(untold.clone()),
            connection: Err(untold),
        };
        if let Err(error) = published {
            revoked.broker = Err(error.to_string());
            revoked.connection = Err(error.to_string());
            return Ok(Revocation { revoked, command: Vec::new(), expulsion: None });
        }
        let Some(deployment) = self.deployment.clone() else {
            return Ok(Revocation { revoked, command: Vec::new(), expulsion: None });
        };
        let command = self.reload();
        if command.is_empty() {
            revoked.broker = Err(READ_ANEW.into());
            revoked.connection = Err(READ_ANEW.into());
        }
        let key = private_key()?;
        let request = CheckedRequest::check(&request(device.as_str(), &key, None)?)?;
        let authority = self.authority()?;
        let issued = authority.device(&request, device, now + MOMENT)?;
        let ca = authority.certificate().to_string();
        let expulsion = Expulsion { broker: deployment.broker(), ca, certificate: issued.pem, key };
        Ok(Revocation { revoked, command, expulsion: Some(expulsion) })
    }

    /// Writes who is revoked, for brokers: the list of certificates, and mosquitto's ACL.
    pub(super) fn publish_revoked(&mut self) -> Result<(), FleetError> {
        let Some(deployment) = self.deployment.clone() else { return Ok(()) };
        let changes = self.ledger.begin()?;
        let (number, made) = changes.next_list(now().saturating_sub(BEHIND))?;
        let revoked = changes.revoked()?;
        changes.commit()?;
        let list = self.authority()?.revoke(revoked.iter().map(|(serial, at)| (serial, *at)), number, made)?;
        let devices = self.devices.all().into_iter().filter(|(_, device)| device.revoked.is_some());
        let names: Vec<String> = devices.map(|(name, _)| name.to_string()).collect();
        let acl = mosquitto::acl(&self.fleet, &names);
        let group = deployment.group;
        place(&deployment.folder.join("acl"), acl.as_bytes(), 0o640, group)?;
        place(&deployment.folder.join("crl.pem"), list.as_bytes(), 0o644, group)
    }
}

impl Revocation {
    /// Has the broker refuse the device, and closes the connection it may have. Takes as long as the broker does, at most
    /// some 40 s.
    pub async fn carry_through(self) -> Revoked {
        let Revocation { mut revoked, command, expulsion } = self;
        let Some(expulsion) = expulsion.filter(|_| !command.is_empty()) else { return revoked };
        let shown = command.join(" ");
        let ran = tokio::task::spawn_blocking(move || run(&command)).await;
        revoked.broker = ran.unwrap_or_else(|e| Err(e.to_string())).map_err(|e| format!("`{shown}` {e}"));
        revoked.connection = match &revoked.broker {
            Ok(()) => expulsion.expel(&revoked.device).await,
            Err(error) => Err(error.clone()),
        };
        revoked
    }
}

impl Expulsion {
    /// Takes the device's place at the broker, and leaves.
    async fn expel(&self, device: &DeviceName) -> Result<(), String> {
        let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            place(&path, text.as_bytes(), 0o600, None).map_err(|e| e.to_string())?;
            Ok::<_, String>(Some(path))
        };
        let tls = TlsFiles {
            ca: write("ca.pem", &self.ca)?,
            cert: write("pass.pem", &self.certificate)?,
            key: write("pass.key", &self.key)?,
        };
        let broker = self.broker.parse().map_err(|e: fedtt_link::LinkError| e.to_string())?;
        let config = LinkConfig { tls: Some(tls), ..LinkConfig::new(broker, format!("{CLIENT_ID}{device}")) };
        let (link, mut inbox) = Link::connect(config).await.map_err(|e| e.to_string())?;
        let stood = async {
            let mut last = "the broker does not answer".to_string();
            loop {
                match inbox.recv().await {
                    Some(Delivery::Connected { .. }) => return Ok(()),
                    Some(Delivery::Disconnected { reason, .. }) => last = reason,
                    Some(Delivery::Message { .. }) => {}
                    None => return Err(last),
                }
            }
        };
        let outcome = tokio::time::timeout(EXPEL, stood).await;
        link.shutdown().await;
        outcome.unwrap_or_else(|_| Err(format!("the broker {} was not reached within {EXPEL:?}", self.broker)))
    }
}

/// Runs a command to its end, or for as long as it may take.
pub(crate) fn run(command: &[String]) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let mut child = Command::new(Path::new(program));
    let child = child.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|e| format!("cannot be run: {e}"))?;
    let began = Instant::now();
    loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("failed ({status})")),
            None if began.elapsed() > COMMAND => {
                // Errors: it has ended just now.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("did not end within {COMMAND:?}"));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
