//! Who a device is: the fleet's certificate authority, the certificates it issues, and the tokens that devices enrol with.
//! No I/O; times are seconds since 1970 and passed in.
//!
//! [`authority`] issues certificates for what [`request`] has checked, and lists those that are [revoked](Authority::revoke);
//! [`inspect`] reads them. [`token`] lets a device in that is not known yet, [`seed`] carries one to it, [`message`] is what
//! device and host say to each other then, and when a certificate is renewed.
#![forbid(unsafe_code)]

pub mod authority;
pub mod error;
pub mod inspect;
pub mod message;
pub mod password;
pub mod request;
pub mod seed;
#[cfg(test)]
mod tests;
pub mod token;

pub use authority::{Authority, Issued, Serial};
pub use error::IdentityError;
pub use inspect::Inspected;
pub use request::CheckedRequest;
pub use seed::Seed;
pub use token::{Token, TokenId};
