//! Where backbone and data come from: a bundle and files, or what is embedded.

use std::path::{Path, PathBuf};

use fedtt_backbone::backbone::{Backbone, BackboneError};
use fedtt_backbone::bundle::{Bundle, BundleError};
use fedtt_backbone::import::{self, ImportError};
use fedtt_backbone::training::Pooling;
use fedtt_zoo::Split;
use sha2::{Digest, Sha256};

use crate::data::{Dataset, Example};
use crate::tokenize::{TextEncoder, TokenizeError};

/// A backbone ready for grafting, and what belongs to it.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it came from, for messages.
    pub name: String,
    /// Hash of its contents.
    pub hash: String,
    /// The graph with its sites.
    pub backbone: Backbone,
    /// How its hidden states are best pooled.
    pub pooling: Pooling,
    tokenizer: Option<(PathBuf, Vec<u8>)>,
}

/// Why there is no backbone.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The bundle cannot be opened.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The embedded graph cannot be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The graph is no backbone.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// A file of the bundle cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A part of the embedded field reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldSplit {
    /// For training.
    Train,
    /// Held out.
    Test,
}

impl Source {
    /// The bundle in `folder`, or the embedded encoder.
    ///
    /// # Errors
    /// When the bundle cannot be opened.
    pub fn open(folder: Option<&Path>) -> Result<Self, SourceError> {
        folder.map_or_else(Self::embedded, Self::bundle)
    }

    fn bundle(folder: &Path) -> Result<Self, SourceError> {
        let bundle = Bundle::open(folder)?;
        let read = |path: PathBuf| match std::fs::read(&path) {
            Ok(bytes) => Ok((path, bytes)),
            Err(source) => Err(SourceError::Io { path, source }),
        };
        Ok(Source {
            name: folder.display().to_string(),
            hash: bundle.hash().to_string(),
            backbone: Backbone::open(&bundle)?,
            pooling: bundle.settings().pooling,
            tokenizer: bundle.tokenizer().map(read).transpose()?,
        })
    }

    fn embedded() -> Result<Self, SourceError> {
        let files = fedtt_zoo::encoder();
        let name = "the embedded encoder";
        let graph = import::from_bytes(files.model, Path::new(name))?;
        let digest = Sha256::new().chain_update(files.model).chain_update(files.tokenizer).finalize();
        Ok(Source {
            name: name.to_string(),
            hash: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            backbone: Backbone::new(graph, None)?,
            pooling: Pooling::Mean,
            tokenizer: Some((PathBuf::from("embedded tokenizer.json"), files.tokenizer.to_vec())),
        })
    }

    /// The tokenizer at work, or, where there is none, an encoder that takes token ids.
    ///
    /// # Errors
    /// When the tokenizer cannot be read or `max_length` is too short for it.
    pub fn encoder(&self, max_length: usize) -> Result<TextEncoder, TokenizeError> {
        match &self.tokenizer {
            Some((name, json)) => TextEncoder::new(name, json, max_length),
            None => Ok(TextEncoder::ids_only(max_length)),
        }
    }
}

fn of_split(split: FieldSplit) -> impl Iterator<Item = (usize, fedtt_zoo::Report)> {
    let wanted = match split {
        FieldSplit::Train => Split::Train,
        FieldSplit::Test => Split::Test,
    };
    fedtt_zoo::field_reports().enumerate().filter(move |(_, report)| report.split == wanted)
}

/// The embedded field reports.
pub fn field_reports(split: FieldSplit) -> Dataset {
    let example = |(i, report): (usize, fedtt_zoo::Report)| Example {
        text: report.text.to_string(),
        pair: None,
        label: Some(report.label.to_string()),
        line: i + 2,
    };
    Dataset { name: "embedded field reports".to_string(), examples: of_split(split).map(example).collect() }
}

/// The site each of the embedded field reports was written at, in their order.
pub fn field_sites(split: FieldSplit) -> Vec<String> {
    of_split(split).map(|(_, report)| report.site.to_string()).collect()
}
