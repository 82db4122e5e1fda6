//! What device and host say to each other about certificates. A request goes to
//! [`Topic::Ask`](fedtt_wire::Topic::Ask), its answer comes at [`Topic::Answer`](fedtt_wire::Topic::Answer); either may be
//! lost or repeated.
//!
//! | who asks | request | proof of the request | proof of the answer |
//! |---|---|---|---|
//! | a device with a token | [`Enroll`], kind 20 | HMAC with the token | HMAC with the token |
//! | a device of the fleet | [`Renew`], kind 21 | the device's signature | the host's signature |
//!
//! A message is a frame (`fedtt_wire::frame`) with its proof after it: 32 bytes of HMAC-SHA256, or the 64 of a seal
//! (`fedtt_wire::seal`). An answer, kind 22, names its request by its SHA-256. Where the host knows no token to prove
//! itself with, its answer carries 32 zeros instead, and is a hint at most.

use fedtt_wire::seal::{SEAL, unsealed};
use fedtt_wire::{DeviceName, Digest, FleetName, PublicKey, RequestId, SigningKey, WireError, frame};
use serde::{Deserialize, Serialize};

use crate::authority::CLIENT_ID;
use crate::error::IdentityError;
use crate::token::{MAC, Token, TokenId, hex, random};

/// Largest request or answer, in bytes.
pub const LARGEST: usize = 64 << 10;

const ENROLL: u8 = 20;
const RENEW: u8 = 21;
const ANSWER: u8 = 22;
/// zstd level.
const LEVEL: i32 = 3;

/// A device that is not known asks for its first certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enroll {
    /// Which token it has.
    pub token: TokenId,
    /// The fleet it is to belong to.
    pub fleet: FleetName,
    /// Its name.
    pub name: DeviceName,
    /// Request for a certificate of that name, PEM.
    pub request: String,
    /// What it signs messages with.
    pub key: PublicKey,
    /// Makes the request unlike any other; hexadecimal.
    pub nonce: String,
}

/// A device of the fleet asks for the certificate after the one it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// The fleet.
    pub fleet: FleetName,
    /// Its name.
    pub name: DeviceName,
    /// Request for a certificate of that name, PEM.
    pub request: String,
    /// Counts its renewals: an earlier request, repeated by others, is known by it.
    pub count: u64,
}

/// What a device gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Its certificate, PEM.
    pub certificate: String,
    /// The fleet's authority, PEM.
    pub ca: String,
    /// What the host signs with.
    pub host: PublicKey,
    /// The broker's address for work.
    pub broker: String,
    /// The broker's address for those whose certificate has expired.
    pub enroll: String,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Here it is.
    Granted(Box<Granted>),
    /// Why not.
    Refused(String),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// SHA-256 of the request.
    pub to: Digest,
    /// The host's clock.
    pub time: u64,
    /// What is answered.
    pub outcome: Outcome,
}

/// A request for an answer to be made to; with its sender unproven.
#[derive(Debug)]
pub enum Ask<'a> {
    /// With a token.
    Enroll(Claimed<'a, Enroll>),
    /// With a key.
    Renew(Claimed<'a, Renew>),
}

/// A request whose sender is not proven.
#[derive(Debug)]
pub struct Claimed<'a, T> {
    body: T,
    bytes: &'a [u8],
}

/// A new name for a request, which is a client id as well: what nobody can guess, nobody else can listen to.
///
/// # Errors
/// When the system has no randomness to give.
pub fn request_id() -> Result<RequestId, IdentityError> {
    let name = format!("{CLIENT_ID}{}", hex(&random::<16>()?));
    RequestId::new(name).map_err(crate::error::make("a request's name"))
}

/// What makes one request unlike any other.
///
/// # Errors
/// When the system has no randomness to give.
pub fn nonce() -> Result<String, IdentityError> {
    Ok(hex(&random::<16>()?))
}

impl Enroll {
    /// As it is sent.
    ///
    /// # Errors
    /// Never for a request.
    pub fn seal(&self, token: &Token) -> Result<Vec<u8>, IdentityError> {
        Ok(token.seal(&[b"ask"], frame::encode(ENROLL, self, LEVEL)?))
    }
}

impl Renew {
    /// As it is sent to `topic`.
    ///
    /// # Errors
    /// Never for a request.
    pub fn seal(&self, key: &SigningKey, topic: &str) -> Result<Vec<u8>, IdentityError> {
        Ok(key.seal(topic, frame::encode(RENEW, self, LEVEL)?))
    }
}

impl<'a> Ask<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(bytes: &'a [u8]) -> Result<Self, IdentityError> {
        if bytes.len() > LARGEST {
            let (size, limit) = (bytes.len() as u64, LARGEST as u64);
            return Err(WireError::TooLarge { what: "request", size, limit }.into());
        }
        // The kind stands where no compression or proof hides it; only the length of the proof depends on it.
        match bytes.get(3).map(|kind| kind & 0x7f) {
            Some(ENROLL) => {
                let (frame, _) = tagged(bytes)?;
                let (_, cbor) = frame::open(frame, LARGEST)?;
                Ok(Ask::Enroll(Claimed { body: frame::body("request", &cbor)?, bytes }))
            }
            Some(RENEW) => {
                let (frame, _) = unsealed(bytes)?;
                let (_, cbor) = frame::open(frame, LARGEST)?;
                Ok(Ask::Renew(Claimed { body: frame::body("request", &cbor)?, bytes }))
            }
            Some(kind) => Err(WireError::Kind(kind).into()),
            None => Err(WireError::Foreign("it is too short").into()),
        }
    }
}

impl<T> Claimed<'_, T> {
    /// What answers name it by.
    pub fn digest(&self) -> Digest {
        Digest::of(self.bytes)
    }

    /// What it says, true or not.
    pub fn claim(&self) -> &T {
        &self.body
    }
}

impl Claimed<'_, Enroll> {
    /// What it says, if it was made with `token`.
    ///
    /// # Errors
    /// When it was not.
    pub fn prove(&self, token: &Token) -> Result<&Enroll, IdentityError> {
        let (frame, tag) = tagged(self.bytes)?;
        token.check(&[b"ask"], frame, tag)?;
        if self.body.token != *token.id() {
            return Err(IdentityError::Forged);
        }
        Ok(&self.body)
    }
}

impl Claimed<'_, Renew> {
    /// What it says, if whoever has `key` said it at `topic`.
    ///
    /// # Errors
    /// When they did not.
    pub fn prove(&self, key: &PublicKey, topic: &str) -> Result<&Renew, IdentityError> {
        key.open(topic, self.bytes)?;
        Ok(&self.body)
    }
}

impl Answer {
    fn frame(&self) -> Result<Vec<u8>, IdentityError> {
        Ok(frame::encode(ANSWER, self, LEVEL)?)
    }

    /// As it is sent to a device that has `token`.
    ///
    /// # Errors
    /// Never for an answer.
    pub fn seal_for(&self, token: &Token) -> Result<Vec<u8>, IdentityError> {
        Ok(token.seal(&[b"answer", self.to.bytes()], self.frame()?))
    }

    /// As it is sent to `topic`, for a device that knows the host.
    ///
    /// # Errors
    /// Never for an answer.
    pub fn seal(&self, host: &SigningKey, topic: &str) -> Result<Vec<u8>, IdentityError> {
        Ok(host.seal(topic, self.frame()?))
    }

    /// As it is sent to who proves nothing.
    ///
    /// # Errors
    /// Never for an answer.
    pub fn unproven(&self) -> Result<Vec<u8>, IdentityError> {
        let mut frame = self.frame()?;
        frame.extend_from_slice(&[0; MAC]);
        Ok(frame)
    }

    /// The answer to a request that was sent with a token.
    ///
    /// # Errors
    /// When it is none, was not made with the token, or is to another request.
    pub fn open_with(token: &Token, ask: &[u8], bytes: &[u8]) -> Result<Self, IdentityError> {
        let (frame, tag) = tagged(bytes)?;
        let to = Digest::of(ask);
        // An answer to another request, proven for that one, fails here as well.
        token.check(&[b"answer", to.bytes()], frame, tag)?;
        Self::read(frame)?.to(to)
    }

    /// The answer to a request of a device that knows the host.
    ///
    /// # Errors
    /// When it is none, was not signed by the host, or is to another request.
    pub fn open(host: &PublicKey, topic: &str, ask: &[u8], bytes: &[u8]) -> Result<Self, IdentityError> {
        Self::read(host.open(topic, bytes)?)?.to(Digest::of(ask))
    }

    /// What an answer that proves nothing says about why there is no certificate: for people, not to act on.
    pub fn hint(bytes: &[u8]) -> Option<String> {
        let (frame, _) = tagged(bytes).ok()?;
        match Self::read(frame).ok()?.outcome {
            Outcome::Refused(reason) => Some(reason.chars().filter(|c| !c.is_control()).take(200).collect()),
            Outcome::Granted(_) => None,
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, IdentityError> {
        let (kind, cbor) = frame::open(bytes, LARGEST)?;
        match kind {
            ANSWER => Ok(frame::body("answer", &cbor)?),
            kind => Err(WireError::Kind(kind).into()),
        }
    }

    fn to(self, ask: Digest) -> Result<Self, IdentityError> {
        if self.to == ask { Ok(self) } else { Err(IdentityError::OtherRequest) }
    }
}

/// The frame and the HMAC after it.
fn tagged(bytes: &[u8]) -> Result<(&[u8], &[u8]), IdentityError> {
    const { assert!(MAC < SEAL) };
    let at = bytes.len().checked_sub(MAC).ok_or(WireError::Foreign("it is too short"))?;
    Ok(bytes.split_at(at))
}
