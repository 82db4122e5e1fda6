//! What is learnt.

use fedtt_wire::plan::Task;
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

impl From<Task> for TaskKind {
    fn from(task: Task) -> Self {
        match task {
            Task::Classify => TaskKind::Classify,
            Task::Regress => TaskKind::Regress,
            Task::Lm => TaskKind::Lm,
        }
    }
}
