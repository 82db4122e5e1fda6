//! Names that are safe in a topic and in a path.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name.
const LONGEST: usize = 64;

/// A name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{name}`: {reason}")]
pub struct NameError {
    /// What it was to name.
    pub what: &'static str,
    /// What was given, shortened and escaped.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Letters, digits, `-`, `_` and `.`, beginning with a letter or digit: nothing that is special in an MQTT topic
/// (`/`, `+`, `#`, `$`), in a path or in a shell.
fn check(what: &'static str, name: &str) -> Result<(), NameError> {
    let refuse = |reason| {
        let shown: String = name.chars().take(LONGEST).flat_map(char::escape_default).collect();
        Err(NameError { what, name: shown, reason })
    };
    if name.is_empty() {
        return refuse("is empty");
    }
    if name.len() > LONGEST {
        return refuse("is longer than 64 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return refuse("may hold only letters, digits, `-`, `_` and `.`");
    }
    if !name.as_bytes()[0].is_ascii_alphanumeric() {
        return refuse("must begin with a letter or a digit");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks the name.
            ///
            /// # Errors
            /// When it is empty, longer than 64 characters, or holds anything but letters, digits, `-`, `_`, `.`.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                check($what, &name)?;
                Ok(Self(name))
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
    };
}

name!(
    /// A device, unique in its fleet; also its MQTT client id and user name.
    DeviceName,
    "device name"
);
name!(
    /// A run, unique on its host.
    RunId,
    "run id"
);
name!(
    /// A fleet: the first level of its topics after `fedtt/`, so that several share a broker.
    FleetName,
    "fleet name"
);
name!(
    /// A request for a certificate: where it is asked and answered.
    RequestId,
    "request id"
);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_escape_a_topic_or_a_path_are_refused() {
        for bad in ["", "a/b", "+", "#", "a#", "$SYS", "..", ".hidden", "-f", "a b", "a\0", "ä", "a\n", &"x".repeat(65)]
        {
            assert!(DeviceName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "jetson-07", "site_3.board.12", "0", &"x".repeat(64)] {
            assert_eq!(DeviceName::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn refusals_name_what_was_refused() {
        let error = RunId::new("a/b").unwrap_err().to_string();
        assert_eq!(error, "run id `a/b`: may hold only letters, digits, `-`, `_` and `.`");
    }
}
