//! Passwords as mosquitto keeps them: PBKDF2 (RFC 8018) with HMAC-SHA512, as `mosquitto_passwd` writes it.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::pbkdf2;

use crate::error::IdentityError;
use crate::token::random;

/// Few, since the passwords hashed here are random: there is nothing to guess.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(101).expect("is not zero");

/// A random password of letters, digits, `-` and `_`.
///
/// # Errors
/// When the system has no randomness to give.
pub fn random_password() -> Result<String, IdentityError> {
    Ok(URL_SAFE_NO_PAD.encode(random::<18>()?))
}

/// The line of a user in mosquitto's `password_file`.
///
/// # Errors
/// When the system has no randomness to give.
pub fn mosquitto_line(user: &str, password: &str) -> Result<String, IdentityError> {
    let salt = random::<12>()?;
    let mut hash = [0; 64];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, ITERATIONS, &salt, password.as_bytes(), &mut hash);
    Ok(format!("{user}:$7${ITERATIONS}${}${}\n", STANDARD.encode(salt), STANDARD.encode(hash)))
}
