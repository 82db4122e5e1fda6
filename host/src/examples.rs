//! Files of examples, as those who measure or train on them read them.

use fedtt_edge::data::{Columns, Format, ReadOptions};
use fedtt_edge::flags::ReadArgs;
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
    /// Whether the first line of a table names its columns.
    pub header: Option<bool>,
}

impl From<&ReadArgs> for Reading {
    fn from(flags: &ReadArgs) -> Self {
        let columns = flags.columns(&Columns::default());
        Reading { columns, format: flags.format, encoding: flags.encoding.clone(), header: flags.header }
    }
}

impl Reading {
    /// The same, for a task.
    pub fn options(&self, task: Task) -> ReadOptions {
        ReadOptions {
            format: self.format,
            encoding: self.encoding.clone(),
            header: self.header,
            columns: self.columns.clone(),
            labelled: task != Task::Lm,
            task: task.into(),
        }
    }
}
