//! Signatures: who sent a message, and where to.
//!
//! A sealed message is a frame followed by the 64 bytes of an Ed25519 signature (RFC 8032) of `fedtt-2`, a zero byte and the
//! SHA-256 of the topic's name, a zero byte and the frame. The topic names fleet, device or run, so that a message holds only
//! where it was sent. Ed25519 itself would go over the frame twice, with SHA-512, for which processors have no instructions.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::frame;

/// Bytes a seal adds to a frame.
pub const SEAL: usize = 64;
const CONTEXT: &[u8; 8] = b"fedtt-2\0";

/// The public half of a key, whom a signature is by; 64 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

/// A text is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a public key: 64 hexadecimal digits are")]
pub struct NoPublicKey;

impl PublicKey {
    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The frame in `sealed`, if this key signed it for `topic`.
    ///
    /// # Errors
    /// When it is too short to be sealed, of another version, or the signature is not this key's for these bytes and this topic.
    pub fn open<'a>(&self, topic: &str, sealed: &'a [u8]) -> Result<&'a [u8], WireError> {
        let (frame, signature) = unsealed(sealed)?;
        let signed = UnparsedPublicKey::new(&ED25519, self.0).verify(&covered(topic, frame), signature);
        // One that speaks another version may sign in another way.
        signed.map(|()| frame).map_err(|_| frame::foreign_version(frame).unwrap_or(WireError::Signature))
    }
}

impl From<[u8; 32]> for PublicKey {
    fn from(bytes: [u8; 32]) -> Self {
        PublicKey(bytes)
    }
}

impl FromStr for PublicKey {
    type Err = NoPublicKey;
    fn from_str(text: &str) -> Result<Self, NoPublicKey> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NoPublicKey);
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| NoPublicKey)?;
        }
        Ok(PublicKey(bytes))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = NoPublicKey;
    fn try_from(text: String) -> Result<Self, NoPublicKey> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The private half of a key: whoever holds it is the device, or the host. Never printed.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new key as the bytes to keep, PKCS#8, and to make it from with [`SigningKey::from_pkcs8`].
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Vec<u8>, WireError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        pkcs8.map(|bytes| bytes.as_ref().to_vec()).map_err(|_| WireError::Key("the system gives no randomness"))
    }

    /// The key kept in `pkcs8`.
    ///
    /// # Errors
    /// When the bytes are no Ed25519 key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, WireError> {
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8);
        key.map(SigningKey).map_err(|_| WireError::Key("it is no Ed25519 key in PKCS#8"))
    }

    /// The key of a 32-byte seed, for tests and simulated devices that must come out alike each time.
    ///
    /// # Errors
    /// Never for a seed of 32 bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, WireError> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(SigningKey).map_err(|_| WireError::Key("it is no Ed25519 seed"))
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Signs bytes that are no message of a topic; `context` keeps one use from passing for another.
    pub fn sign(&self, context: &str, bytes: &[u8]) -> [u8; SEAL] {
        let mut signature = [0; SEAL];
        signature.copy_from_slice(self.0.sign(&covered(context, bytes)).as_ref());
        signature
    }

    /// `frame` with this key's signature for `topic` after it.
    pub fn seal(&self, topic: &str, mut frame: Vec<u8>) -> Vec<u8> {
        let signature = self.sign(topic, &frame);
        frame.extend_from_slice(&signature);
        frame
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.public())
    }
}

/// The frame and the signature of a sealed message, unchecked.
///
/// # Errors
/// When it is too short to be sealed.
pub fn unsealed(sealed: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let at = sealed.len().checked_sub(SEAL).ok_or(WireError::Foreign("it is too short to be signed"))?;
    Ok(sealed.split_at(at))
}

/// What is signed.
fn covered(topic: &str, frame: &[u8]) -> [u8; 40] {
    let mut hash = Context::new(&SHA256);
    [topic.as_bytes(), &[0], frame].into_iter().for_each(|part| hash.update(part));
    let mut covered = [0; 40];
    covered[..8].copy_from_slice(CONTEXT);
    covered[8..].copy_from_slice(hash.finish().as_ref());
    covered
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_for_its_key_topic_and_bytes_alone() {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap();
        let sealed = key.seal("fedtt/f/up/d1", b"frame".to_vec());
        assert_eq!(sealed.len(), 5 + SEAL);
        assert_eq!(key.public().open("fedtt/f/up/d1", &sealed).unwrap(), b"frame");
        let other = SigningKey::from_seed(&[7; 32]).unwrap().public();
        assert_eq!(other.open("fedtt/f/up/d1", &sealed), Err(WireError::Signature));
        assert_eq!(key.public().open("fedtt/f/up/d2", &sealed), Err(WireError::Signature));
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            assert_eq!(key.public().open("fedtt/f/up/d1", &damaged), Err(WireError::Signature), "byte {place}");
        }
        assert!(matches!(key.public().open("fedtt/f/up/d1", &sealed[..SEAL - 1]), Err(WireError::Foreign(_))));
    }

    #[test]
    fn the_signature_is_that_of_rfc_8032() {
        // The seed and public key of its first test vector.
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60".parse::<PublicKey>().unwrap();
        let key = SigningKey::from_seed(seed.bytes()).unwrap();
        assert_eq!(key.public().to_string(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    }

    #[test]
    fn keys_are_read_back_and_others_refused() {
        let key = SigningKey::from_seed(&[1; 32]).unwrap().public();
        assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
        for text in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert!(text.parse::<PublicKey>().is_err(), "{text}");
        }
        assert!(SigningKey::from_pkcs8(b"no key").is_err());
        let kept = SigningKey::generate().unwrap();
        let shown = format!("{:?}", SigningKey::from_pkcs8(&kept).unwrap());
        assert!(shown.len() < 24, "{shown}");
    }
}
