//! Tokens: secrets that host and device share for as long as the device is not known. The secret is never sent; what is sent
//! carries an HMAC with it, so that nobody between the two learns it, takes the host's place, or changes what is said.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::error::IdentityError;

/// Bytes of an HMAC-SHA256 (RFC 2104).
pub(crate) const MAC: usize = 32;

/// Names a token, without giving it away; 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

/// A token: whoever holds it may enrol. In text `ID.SECRET`. Never printed by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token {
    id: TokenId,
    secret: [u8; 32],
}

impl Token {
    /// A new token.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Token { id: TokenId(hex(&random::<8>()?)), secret: random()? })
    }

    /// What names it.
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// `frame` with the token's HMAC after it. `context` keeps one use from passing for another.
    pub(crate) fn seal(&self, context: &[&[u8]], mut frame: Vec<u8>) -> Vec<u8> {
        let tag = hmac::sign(&self.key(), &covered(context, &frame));
        frame.extend_from_slice(tag.as_ref());
        frame
    }

    /// Checks what [`Token::seal`] made.
    pub(crate) fn check(&self, context: &[&[u8]], frame: &[u8], tag: &[u8]) -> Result<(), IdentityError> {
        hmac::verify(&self.key(), &covered(context, frame), tag).map_err(|_| IdentityError::Forged)
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.secret)
    }
}

fn covered(context: &[&[u8]], frame: &[u8]) -> Vec<u8> {
    let mut bytes = b"fedtt-enroll-1".to_vec();
    for part in context {
        bytes.push(0);
        bytes.extend_from_slice(part);
    }
    bytes.push(0);
    bytes.extend_from_slice(frame);
    bytes
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, URL_SAFE_NO_PAD.encode(self.secret))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

impl FromStr for Token {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let wrong = |problem: &str| IdentityError::Content { what: "an enrolment token", problem: problem.into() };
        let (id, secret) = text.trim().split_once('.').ok_or_else(|| wrong("it is not of the form ID.SECRET"))?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok().and_then(|bytes| bytes.try_into().ok());
        let secret = secret.ok_or_else(|| wrong("its secret is cut off or mistyped"))?;
        Ok(Token { id: TokenId::try_from(id.to_string())?, secret })
    }
}

impl TryFrom<String> for Token {
    type Error = IdentityError;
    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<Token> for String {
    fn from(token: Token) -> String {
        token.to_string()
    }
}

impl TryFrom<String> for TokenId {
    type Error = IdentityError;
    fn try_from(text: String) -> Result<Self, IdentityError> {
        match unhex(&text).is_some_and(|bytes| bytes.len() == 8) {
            true => Ok(TokenId(text.to_lowercase())),
            false => {
                let problem = "its id has not 16 hexadecimal digits".to_string();
                Err(IdentityError::Content { what: "an enrolment token", problem })
            }
        }
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> String {
        id.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    let failed = |_| IdentityError::Make { what: "a random number", problem: "the system gives none".into() };
    filled.map(|()| bytes).map_err(failed)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
