//! Files of examples, as those who measure or train on them read them.

use fedtt_edge::data::{Columns, Format, ReadOptions};
use fedtt_edge::task::TaskKind;
use fedtt_wire::plan::Task;
use serde::{Deserialize, Serialize};

/// How files of examples are read. What is left out is told from the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reading {
    /// Which columns hold what.
    pub columns: Columns,
    /// The format.
    pub format: Option<Format>,
    /// The character encoding.
    pub encoding: Option<String>,
}

impl Reading {
    /// The same, for a task.
    pub fn options(&self, task: Task) -> ReadOptions {
        let task = match task {
            Task::Classify => TaskKind::Classify,
            Task::Regress => TaskKind::Regress,
            Task::Lm => TaskKind::Lm,
        };
        ReadOptions {
            format: self.format,
            encoding: self.encoding.clone(),
            header: None,
            columns: self.columns.clone(),
            labelled: task != TaskKind::Lm,
            task,
        }
    }
}
