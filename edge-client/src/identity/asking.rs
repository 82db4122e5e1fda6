//! A request for a certificate that is under way, kept until it is answered: after a crash the same one is sent again, to
//! which the host gives the same answer, whether a token was used up with it or not.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fedtt_identity::message::{self, Answer, Enroll, Granted, Outcome, Renew};
use fedtt_identity::request::{private_key, request};
use fedtt_identity::{Seed, Token};
use fedtt_wire::{DeviceName, FleetName, PublicKey, RequestId, Topic, Topics};
use serde::{Deserialize, Serialize};

use super::enrolled::{Enrolled, remove, unfit};
use super::{Identity, IdentityError, read, refused};
use crate::files::write_atomically;

const ENROLLING: &str = "enrolling.toml";
const RENEWING: &str = "renewing.toml";

/// What is kept of a request.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Where it is asked and answered.
    id: RequestId,
    /// The token's id, or the renewal's number.
    mark: String,
    name: DeviceName,
    /// The private key a certificate is asked for, PEM.
    key: String,
    /// The request as it is sent, base64.
    ask: String,
}

/// What an answer is held against.
enum Proof {
    Token(Token),
    Host(PublicKey),
}

/// A request that is under way.
pub struct Asking {
    identity: Identity,
    path: PathBuf,
    fleet: FleetName,
    id: RequestId,
    name: DeviceName,
    key: String,
    ask: Vec<u8>,
    proof: Proof,
    labels: Vec<String>,
    count: u64,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// The device has its certificate.
    Done(Enrolled),
    /// The host will not give one, and says so provably.
    Refused(String),
    /// The message was no answer; what it says, unproven.
    Nothing(Option<String>),
}

impl Asking {
    /// Begins, or takes up again, to enrol `name` with a seed.
    ///
    /// # Errors
    /// When the request cannot be made or kept.
    pub fn enroll(identity: &Identity, seed: &Seed, name: &DeviceName) -> Result<Self, IdentityError> {
        let path = identity.folder.join(ENROLLING);
        let signer = identity.key.public();
        let mark = seed.token.id().to_string();
        let kept = keep(&path, &mark, name, None, |key, _| {
            let request = request(name.as_str(), key, Some(&signer))?;
            let (token, fleet, nonce) = (seed.token.id().clone(), seed.fleet.clone(), message::nonce()?);
            let ask = Enroll { token, fleet, name: name.clone(), request, key: signer, nonce };
            ask.seal(&seed.token)
        })?;
        let proof = Proof::Token(seed.token.clone());
        Self::of(identity, path, seed.fleet.clone(), kept, proof, seed.labels.clone(), 0)
    }

    /// Begins, or takes up again, to renew the certificate: over the broker the device works with, or as somebody who
    /// enrols.
    ///
    /// # Errors
    /// When the request cannot be made or kept, or the host's key is not known.
    pub fn renew(identity: &Identity, enrolled: &Enrolled, at_work: bool) -> Result<Self, IdentityError> {
        let path = identity.folder.join(RENEWING);
        let host = identity.host()?.ok_or_else(|| IdentityError::Content {
            path: identity.folder.join(super::HOST_KEY),
            reason: "it is not there: enrol anew".into(),
        })?;
        let count = enrolled.count + 1;
        let topics = Topics::new(&enrolled.fleet);
        let mark = format!("{count}{}", if at_work { "" } else { " enroll" });
        let id = match at_work {
            true => Some(
                RequestId::new(enrolled.name.as_str())
                    .map_err(|e| IdentityError::Content { path: path.clone(), reason: e.to_string() })?,
            ),
            false => None,
        };
        let kept = keep(&path, &mark, &enrolled.name, id, |key, id| {
            let request = request(enrolled.name.as_str(), key, None)?;
            let ask = Renew { fleet: enrolled.fleet.clone(), name: enrolled.name.clone(), request, count };
            ask.seal(&identity.key, &topics.name(&Topic::Ask(id.clone())))
        })?;
        Self::of(identity, path, enrolled.fleet.clone(), kept, Proof::Host(host), enrolled.labels.clone(), count)
    }

    fn of(
        identity: &Identity,
        path: PathBuf,
        fleet: FleetName,
        kept: Kept,
        proof: Proof,
        labels: Vec<String>,
        count: u64,
    ) -> Result<Self, IdentityError> {
        let Kept { id, name, key, ask, .. } = kept;
        let wrong = |e: base64::DecodeError| IdentityError::Content { path: path.clone(), reason: e.to_string() };
        let ask = STANDARD.decode(ask).map_err(wrong)?;
        Ok(Asking { identity: identity.clone(), path, fleet, id, name, key, ask, proof, labels, count })
    }

    /// Where an enrolled device hears what is answered to it over the broker it works with.
    pub fn answers_at_work(enrolled: &Enrolled) -> Option<String> {
        let id = RequestId::new(enrolled.name.as_str()).ok()?;
        Some(Topics::new(&enrolled.fleet).name(&Topic::Answer(id)))
    }

    /// Who to be to the broker of enrolment: nobody else can listen to what is answered to this name.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// Where to send the request.
    pub fn topic(&self) -> String {
        Topics::new(&self.fleet).name(&Topic::Ask(self.id.clone()))
    }

    /// Where its answer comes.
    pub fn answer_topic(&self) -> String {
        Topics::new(&self.fleet).name(&Topic::Answer(self.id.clone()))
    }

    /// The request.
    pub fn bytes(&self) -> &[u8] {
        &self.ask
    }

    /// Takes an answer; with a certificate the device is enrolled when this returns.
    ///
    /// # Errors
    /// When what was granted does not fit, or files cannot be written.
    pub fn take(&self, bytes: &[u8]) -> Result<Asked, IdentityError> {
        let opened = match &self.proof {
            Proof::Token(token) => Answer::open_with(token, &self.ask, bytes),
            Proof::Host(host) => Answer::open(host, &self.answer_topic(), &self.ask, bytes),
        };
        let Ok(answer) = opened else { return Ok(Asked::Nothing(Answer::hint(bytes))) };
        match answer.outcome {
            Outcome::Refused(reason) => {
                remove(&self.path)?;
                Ok(Asked::Refused(reason))
            }
            Outcome::Granted(granted) => Ok(Asked::Done(self.install(&granted, answer.time)?)),
        }
    }

    fn install(&self, granted: &Granted, issued: u64) -> Result<Enrolled, IdentityError> {
        let inspected = fedtt_identity::Inspected::read(&granted.certificate).map_err(unfit(&self.path))?;
        let record = Enrolled {
            name: self.name.clone(),
            fleet: self.fleet.clone(),
            broker: granted.broker.clone(),
            enroll: granted.enroll.clone(),
            labels: self.labels.clone(),
            issued,
            expires: inspected.not_after,
            count: self.count,
        };
        self.identity.replace_host(granted.host)?;
        self.identity.install(granted, &self.key, &record)?;
        remove(&self.path)?;
        Ok(record)
    }
}

/// The request kept in a file, or a new one where there is none with the same mark and name.
fn keep(
    path: &Path,
    mark: &str,
    name: &DeviceName,
    id: Option<RequestId>,
    make: impl FnOnce(&str, &RequestId) -> Result<Vec<u8>, fedtt_identity::IdentityError>,
) -> Result<Kept, IdentityError> {
    // What is not understood is of another version, or damaged: it is made anew.
    let kept = read(path)?.and_then(|text| toml::from_str::<Kept>(&text).ok());
    if let Some(kept) = kept.filter(|kept| kept.mark == mark && kept.name == *name) {
        return Ok(kept);
    }
    let made = || {
        let id = id.map_or_else(message::request_id, Ok)?;
        let key = private_key()?;
        let ask = STANDARD.encode(make(&key, &id)?);
        Ok(Kept { id, mark: mark.to_string(), name: name.clone(), key, ask })
    };
    let kept: Kept = made().map_err(unfit(path))?;
    let content = |e: toml::ser::Error| IdentityError::Content { path: path.to_path_buf(), reason: e.to_string() };
    let text = toml::to_string(&kept).map_err(content)?;
    write_atomically(path, text.as_bytes()).map_err(refused("write", path))?;
    Ok(kept)
}
