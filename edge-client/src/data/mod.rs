//! Labelled texts read from files people have: tsv, csv, jsonl, labelled lines, plain text.

mod decode;
mod format;
mod jsonl;
mod labels;
mod lines;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use format::Format;
pub use labels::{Labels, Targets};

use serde::{Deserialize, Serialize};

use crate::task::TaskKind;

/// One text, or sentence pair, with what is to be predicted for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The label as written in the file.
    pub label: Option<String>,
    /// Line of the file it stands on, counting from 1.
    pub line: usize,
}

/// What was read from one file.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Where it came from, for messages.
    pub name: String,
    /// In file order.
    pub examples: Vec<Example>,
}

/// Which columns hold what: by header name or by number, counting from 1. What is left out is found by its usual name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    /// The text.
    pub text: Option<String>,
    /// The second text of a pair; none unless named.
    pub pair: Option<String>,
    /// The label.
    pub label: Option<String>,
}

/// How a file is to be read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadOptions {
    /// File format; told from the name and the content when absent.
    pub format: Option<Format>,
    /// Character encoding; UTF-8 when absent.
    pub encoding: Option<String>,
    /// Whether the first line of a table is a header; told from the content when absent.
    pub header: Option<bool>,
    /// Which columns hold what.
    pub columns: Columns,
    /// Whether every example must carry a label.
    pub labelled: bool,
    /// What the texts are for: plain text is one document for language modelling and one text per line otherwise.
    pub task: TaskKind,
}

/// Why a file could not be read as examples.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file could not be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something is wrong on one line.
    #[error("{name}:{line}: {message}")]
    Line {
        /// The file.
        name: String,
        /// Counting from 1.
        line: usize,
        /// What is wrong and what to do.
        message: String,
    },
    /// Something is wrong with the file as a whole.
    #[error("{name}: {message}")]
    File {
        /// The file.
        name: String,
        /// What is wrong and what to do.
        message: String,
    },
}

impl DataError {
    fn line(name: &str, line: usize, message: impl Into<String>) -> Self {
        DataError::Line { name: name.to_string(), line, message: message.into() }
    }

    fn file(name: &str, message: impl Into<String>) -> Self {
        DataError::File { name: name.to_string(), message: message.into() }
    }
}

impl Dataset {
    /// Reads `path`.
    ///
    /// # Errors
    /// When the file cannot be read or decoded, a column is not there, or a line does not fit; with file and line.
    pub fn read(path: &Path, options: &ReadOptions) -> Result<Self, DataError> {
        let bytes = std::fs::read(path).map_err(|source| DataError::Io { path: path.to_path_buf(), source })?;
        Self::parse(&path.display().to_string(), &bytes, options)
    }

    /// Reads the content of a file called `name`.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    pub fn parse(name: &str, bytes: &[u8], options: &ReadOptions) -> Result<Self, DataError> {
        let content = decode::decode(name, bytes, options.encoding.as_deref())?;
        let format = options.format.unwrap_or_else(|| Format::detect(name, &content, options.task));
        let examples = match format {
            Format::Tsv => table::read(name, &content, b'\t', options)?,
            Format::Csv => table::read(name, &content, b',', options)?,
            Format::Jsonl => jsonl::read(name, &content, options)?,
            Format::Labelled => lines::labelled(name, &content, options)?,
            Format::Lines => lines::plain(&content),
            Format::Text => lines::document(&content),
        };
        if examples.is_empty() {
            return Err(DataError::file(name, format!("holds no examples (read as {format})")));
        }
        let bare = examples.iter().find(|e| e.label.is_none());
        if let Some(bare) = bare.filter(|_| options.labelled) {
            let message = format!("no label (read as {format}); name its column with --label");
            return Err(DataError::line(name, bare.line, message));
        }
        Ok(Dataset { name: name.to_string(), examples })
    }
}
