//! Who lets devices in and puts them out: the authority, the tokens, the registry and the broker's files, in one hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fedtt_identity::inspect::date;
use fedtt_identity::{Authority, CheckedRequest, Issued, Seed, Token, TokenId};
use fedtt_wire::{DeviceName, FleetName, PublicKey, SigningKey};
use serde::{Deserialize, Serialize};

use super::deployment::Deployment;
use super::error::of;
use super::ledger::{Changes, Grant, Ledger};
use super::mosquitto::{self, MosquittoOptions};
use super::span::Span;
use super::{Certificate, Devices, FleetError, ca, folder, host_key, now};
use crate::store::StoreError;

/// What the owner of a host sets about identities.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentitySettings {
    /// How long devices' certificates last; they renew them with a third of that left.
    pub certificate_life: Span,
    /// The command after which the broker has read its files anew; that of `fedtt broker config` if empty.
    pub on_revoke: Vec<String>,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        IdentitySettings { certificate_life: Span::days(30), on_revoke: Vec::new() }
    }
}

/// A token that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenOptions {
    /// The device it is for; without, devices name themselves.
    pub name: Option<DeviceName>,
    /// How many devices it is for.
    pub uses: u32,
    /// Groups its devices belong to.
    pub labels: Vec<String>,
    /// How long it holds.
    pub expires: Span,
}

/// A token that is out, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenOut {
    /// What names it.
    pub id: TokenId,
    /// The device it is for; without, devices name themselves.
    pub name: Option<DeviceName>,
    /// Groups its devices belong to.
    pub labels: Vec<String>,
    /// Devices that may still enrol with it.
    pub left: u32,
    /// Devices that have.
    pub used: Vec<String>,
    /// Unix seconds of its end.
    pub expires: u64,
}

/// Lets devices in and puts them out. One per state folder: its databases are locked.
#[derive(Debug)]
pub struct Registrar {
    pub(super) folder: PathBuf,
    state: PathBuf,
    pub(super) fleet: FleetName,
    pub(super) settings: IdentitySettings,
    pub(super) host: Arc<SigningKey>,
    pub(super) devices: Devices,
    pub(super) ledger: Ledger,
    pub(super) deployment: Option<Deployment>,
    authority: Option<Authority>,
    /// Why the broker's files are behind.
    problem: Option<String>,
}

impl Registrar {
    /// The registrar of a daemon, which has opened the registry and its key already.
    ///
    /// # Errors
    /// When a file cannot be read or written, or another process has them.
    pub fn open(
        state: &Path,
        fleet: FleetName,
        settings: IdentitySettings,
        host: Arc<SigningKey>,
        devices: Devices,
    ) -> Result<Self, FleetError> {
        let folder = made(state)?;
        let ledger = Ledger::open(&folder.join("ledger.redb"))?;
        let deployment = Deployment::read(&folder)?;
        let mut registrar = Registrar {
            state: state.into(),
            folder,
            fleet,
            settings,
            host,
            devices,
            ledger,
            deployment,
            authority: None,
            problem: None,
        };
        registrar.publish_or_note();
        Ok(registrar)
    }

    /// The registrar of a state folder that no daemon serves. Of `fleet`, or of the one its broker was set up for.
    ///
    /// # Errors
    /// As [`Registrar::open`].
    pub fn alone(state: &Path, fleet: Option<FleetName>) -> Result<Self, FleetError> {
        let folder = made(state)?;
        let remembered = Deployment::read(&folder)?.map(|deployment| deployment.fleet);
        let fleet = match (fleet, remembered) {
            (Some(fleet), _) => fleet,
            (None, Some(name)) => FleetName::new(name)?,
            (None, None) => FleetName::new("fedtt")?,
        };
        let host = Arc::new(host_key(&super::host_key_file(state))?);
        let devices = Devices::open(&super::devices_file(state))?;
        Self::open(state, fleet, IdentitySettings::default(), host, devices)
    }

    /// The authority, made on first use.
    pub(super) fn authority(&mut self) -> Result<&Authority, FleetError> {
        let authority = match self.authority.take() {
            Some(authority) => authority,
            None => ca::authority(&self.folder, &self.fleet, now())?,
        };
        Ok(self.authority.insert(authority))
    }

    /// Writes who is revoked for the broker. Where that fails devices are let in all the same, and the owner is told.
    fn publish_or_note(&mut self) {
        self.problem =
            self.publish_revoked().err().map(|error| format!("the broker is not told who is revoked: {error}"));
    }

    /// What is wrong with the broker's files since this was asked last.
    pub fn take_problem(&mut self) -> Option<String> {
        self.problem.take()
    }

    /// The fleet's registry.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// Where the fleet meets, once that is set up.
    pub fn deployment(&self) -> Option<&Deployment> {
        self.deployment.as_ref()
    }

    pub(super) fn met(&self) -> Result<&Deployment, FleetError> {
        self.deployment.as_ref().ok_or_else(|| {
            let advice = "no broker is set up for devices to come to: run `fedtt broker config mosquitto` first";
            FleetError::Refused(advice.into())
        })
    }

    /// Makes a token, and the seed that carries it.
    ///
    /// # Errors
    /// When no broker is set up, or the name is the host's.
    pub fn token(&mut self, options: &TokenOptions) -> Result<Seed, FleetError> {
        let broker = self.met()?.enroll();
        if let Some(name) = &options.name {
            fedtt_identity::authority::check_name(name)?;
        }
        if options.uses == 0 || options.uses > 1 && options.name.is_some() {
            return Err(FleetError::Refused(
                "a token is for one device by name, or for a batch of at least one".into(),
            ));
        }
        let (now, token) = (now(), Token::generate()?);
        let expires = now + options.expires.seconds();
        let grant = Grant {
            token: token.clone(),
            name: options.name.clone(),
            labels: options.labels.clone(),
            left: options.uses,
            made: now,
            expires,
        };
        let changes = self.ledger.begin()?;
        changes.tidy(now)?;
        changes.put_grant(&grant)?;
        changes.commit()?;
        Ok(Seed {
            fleet: self.fleet.clone(),
            broker,
            token,
            name: options.name.clone(),
            labels: options.labels.clone(),
            expires: date(expires),
            ca: self.authority()?.certificate().to_string(),
        })
    }

    /// The tokens that are out, also those used up or expired of late.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn tokens(&self) -> Result<Vec<TokenOut>, FleetError> {
        let ledger = self.ledger.begin()?;
        let out = ledger.grants()?.into_iter().map(|grant| {
            let id = grant.token.id().clone();
            let used = ledger.users(&id)?;
            Ok(TokenOut { id, name: grant.name, labels: grant.labels, left: grant.left, used, expires: grant.expires })
        });
        out.collect()
    }

    /// Takes a token back: nobody enrols with it any more. Those who have are not put out.
    ///
    /// # Errors
    /// When there is no such token.
    pub fn cancel(&self, id: &TokenId) -> Result<(), FleetError> {
        let changes = self.ledger.begin()?;
        match changes.grant(id)? {
            Some(grant) => changes.put_grant(&Grant { left: 0, expires: grant.expires.min(now()), ..grant })?,
            None => return Err(FleetError::Refused(format!("there is no token {id}; see `fedtt device tokens`"))),
        }
        Ok(changes.commit()?)
    }

    /// Issues a certificate for a request that came by hand, and takes its device in.
    ///
    /// # Errors
    /// When the request is for another name, or states no key to sign messages with.
    pub fn sign(&mut self, name: &DeviceName, request: &str) -> Result<Issued, FleetError> {
        let request = CheckedRequest::check(request)?.named(name.as_str())?;
        let Some(key) = request.signer() else {
            let advice = "the request states no key to sign messages with: make it with `fedtt-edge enroll --csr FILE`";
            return Err(FleetError::Refused(advice.into()));
        };
        self.admit(name, key, &request, |_, _| Ok(()))
    }

    /// Gives a device its first certificate and takes it into the registry, in place of whoever had its name. `note` is
    /// written together with that.
    pub(super) fn admit(
        &mut self,
        name: &DeviceName,
        key: PublicKey,
        request: &CheckedRequest,
        note: impl FnOnce(&Changes, &Issued) -> Result<(), StoreError>,
    ) -> Result<Issued, FleetError> {
        let issued = self.issue(request, name)?;
        let now = now();
        let known = self.devices.get(name);
        let other = !known.is_some_and(|known| known.key == key && known.revoked.is_none());
        if other {
            // Before the registry says that the name is this key's: after a crash it would not be done any more.
            let changes = self.ledger.begin()?;
            changes.revoke(name, now)?;
            changes.commit()?;
        }
        self.devices.enrol(name, key, Some(certificate(&issued)), now)?;
        let changes = self.ledger.begin()?;
        changes.issued(name, &issued)?;
        changes.forget_renewals(name)?;
        note(&changes, &issued)?;
        changes.commit()?;
        if other {
            self.publish_or_note();
        }
        Ok(issued)
    }

    pub(super) fn issue(&mut self, request: &CheckedRequest, name: &DeviceName) -> Result<Issued, FleetError> {
        let expires = now() + self.settings.certificate_life.seconds();
        Ok(self.authority()?.device(request, name, expires)?)
    }

    /// Sets a mosquitto up, and remembers that devices meet there.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn set_up(&mut self, options: &MosquittoOptions) -> Result<&Deployment, FleetError> {
        let (fleet, known, state) = (self.fleet.clone(), self.deployment.clone(), self.state.clone());
        let deployment = mosquitto::write(options, &fleet, self.authority()?, known.as_ref(), &state, now())?;
        deployment.write(&self.folder)?;
        self.deployment = Some(deployment);
        self.publish_revoked()?;
        self.met()
    }

    /// The certificate of the fleet's authority, PEM.
    ///
    /// # Errors
    /// When its files cannot be read or made.
    pub fn authority_pem(&mut self) -> Result<String, FleetError> {
        Ok(self.authority()?.certificate().to_string())
    }

    /// What the host signs with.
    pub fn host_key(&self) -> PublicKey {
        self.host.public()
    }
}

/// As the registry keeps it.
pub(super) fn certificate(issued: &Issued) -> Certificate {
    Certificate { serial: issued.serial.to_string(), not_after: issued.expires }
}

fn made(state: &Path) -> Result<PathBuf, FleetError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let folder = folder(state);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(of(&folder))?;
    Ok(folder)
}
