//! What can be wrong with who somebody claims to be.

use crate::inspect::date;

/// A key, certificate, token or message cannot be made or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Something cannot be made.
    #[error("{what} cannot be made: {problem}")]
    Make {
        /// What.
        what: &'static str,
        /// Why.
        problem: String,
    },
    /// Something is not what it should be.
    #[error("not {what}: {problem}")]
    Content {
        /// What it should be, with its article.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A name that the fleet keeps for itself.
    #[error("`{0}` is no name for a device: the fleet's host and its enrolment are called so; choose another")]
    Reserved(String),
    /// A request for a certificate of another name.
    #[error("the request is for `{found}`, not for `{wanted}`: make it anew with the right name")]
    OtherName {
        /// In the request.
        found: String,
        /// Asked for.
        wanted: String,
    },
    /// A private key and a certificate that do not belong together.
    #[error("the private key is not that of the certificate: they were made at different times, or mixed up")]
    OtherKey,
    /// A certificate that an authority has not signed.
    #[error("the certificate of `{0}` is not signed by this fleet's authority")]
    Stranger(String),
    /// A clock before the certificate's time.
    #[error(
        "the certificate of `{name}` is not valid before {}, and this clock says {}: check this machine's clock",
        date(*not_before),
        date(*now)
    )]
    NotYetValid {
        /// Whose it is.
        name: String,
        /// When it begins.
        not_before: u64,
        /// The clock.
        now: u64,
    },
    /// A clock after the certificate's time.
    #[error(
        "the certificate of `{name}` was valid until {}, and this clock says {}: renew it, or check this machine's clock",
        date(*not_after),
        date(*now)
    )]
    Expired {
        /// Whose it is.
        name: String,
        /// When it ended.
        not_after: u64,
        /// The clock.
        now: u64,
    },
    /// A message that was not made with the token.
    #[error("the message was not made with this token: it is forged or damaged, or the token is another fleet's")]
    Forged,
    /// An answer to another question.
    #[error("the answer is to another request")]
    OtherRequest,
    /// Bytes that are no message.
    #[error(transparent)]
    Wire(#[from] fedtt_wire::WireError),
}

/// `Make` for `map_err`.
pub(crate) fn make<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> IdentityError {
    move |e| IdentityError::Make { what, problem: e.to_string() }
}

/// `Content` for `map_err`.
pub(crate) fn content<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> IdentityError {
    move |e| IdentityError::Content { what, problem: e.to_string() }
}
