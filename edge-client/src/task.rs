//! What is learnt.

use serde::{Deserialize, Serialize};

/// What is learnt from a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// One of several classes
    Classify,
    /// A number
    Regress,
    /// The next token
    Lm,
}
