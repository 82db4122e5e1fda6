//! File formats, told from the name and the first lines.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::task::TaskKind;

/// How examples are written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Columns separated by tabs; quotes are ordinary characters
    Tsv,
    /// Columns separated by commas; quoted as in RFC 4180
    Csv,
    /// One JSON object per line; a list of texts in the text field is one example each
    Jsonl,
    /// `LABEL text` or `LABEL:fine text` on each line, as in TREC
    #[value(alias = "trec", alias = "labeled")]
    Labelled,
    /// One text per line
    Lines,
    /// The whole file is one document
    Text,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Tsv => "tsv",
            Format::Csv => "csv",
            Format::Jsonl => "jsonl",
            Format::Labelled => "labelled lines",
            Format::Lines => "lines",
            Format::Text => "text",
        })
    }
}

impl Format {
    /// By the extension where it says something, else by the first line.
    pub(super) fn detect(name: &str, content: &str, task: TaskKind) -> Format {
        let extension = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "tsv" | "tab" => return Format::Tsv,
            "csv" => return Format::Csv,
            "jsonl" | "ndjson" | "json" => return Format::Jsonl,
            "txt" | "md" | "text" if task == TaskKind::Lm => return Format::Text,
            _ => {}
        }
        let first = content.lines().find(|l| !l.trim().is_empty()).unwrap_or_default();
        match task {
            _ if first.trim_start().starts_with('{') => Format::Jsonl,
            _ if first.contains('\t') => Format::Tsv,
            TaskKind::Lm => Format::Text,
            TaskKind::Classify | TaskKind::Regress => Format::Labelled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Format;
    use crate::task::TaskKind::{Classify, Lm};

    #[test]
    fn by_name_then_by_content() {
        for (name, content, task, format) in [
            ("a.tsv", "", Classify, Format::Tsv),
            ("a.CSV", "", Classify, Format::Csv),
            ("a.jsonl", "", Lm, Format::Jsonl),
            ("a.txt", "one\ttwo", Lm, Format::Text),
            ("a.txt", "one\ttwo", Classify, Format::Tsv),
            ("train.all", "DESC:manner How did", Classify, Format::Labelled),
            ("data", "\n {\"text\": 1}", Classify, Format::Jsonl),
            ("data", "words", Lm, Format::Text),
        ] {
            assert_eq!(Format::detect(name, content, task), format, "{name} {content:?}");
        }
    }
}
