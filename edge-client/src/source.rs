//! Where backbone and data come from: a bundle and files, or what is embedded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fedtt_backbone::backbone::{Backbone, BackboneError};
use fedtt_backbone::bundle::{Bundle, BundleError};
use fedtt_backbone::import::{self, ImportError};
use fedtt_backbone::training::Pooling;
use fedtt_zoo::Split;
use serde::{Deserialize, Serialize};

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
    /// The bundle's folder; none for the embedded encoder.
    pub folder: Option<PathBuf>,
    tokenizer: Option<(PathBuf, Vec<u8>)>,
}

/// A backbone that is there, by its hash; nothing of it is held in memory before it is opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Available {
    /// Where it is, for messages.
    pub name: String,
    /// Hash of its contents.
    pub hash: String,
    place: Place,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Place {
    Embedded,
    Folder(PathBuf),
    /// Of this process alone.
    #[serde(skip)]
    Opened(Arc<Source>),
}

impl Available {
    /// The bundle in `folder`, or the embedded encoder. A bundle's parts are checked, save for its weights.
    ///
    /// # Errors
    /// When there is no bundle, or it is damaged.
    pub fn find(folder: Option<&Path>) -> Result<Self, SourceError> {
        let Some(folder) = folder else { return Ok(Self::embedded()) };
        let bundle = Bundle::open(folder)?;
        let place = Place::Folder(folder.to_path_buf());
        Ok(Available { name: folder.display().to_string(), hash: bundle.hash().to_string(), place })
    }

    /// The embedded encoder.
    pub fn embedded() -> Self {
        Available { name: EMBEDDED.into(), hash: fedtt_zoo::ENCODER_SHA256.to_string(), place: Place::Embedded }
    }

    /// Its folder, unless it is embedded.
    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(folder) => Some(folder),
            Place::Embedded | Place::Opened(_) => None,
        }
    }

    /// The backbone in memory.
    ///
    /// # Errors
    /// When it cannot be opened, or is another by now.
    pub fn open(&self) -> Result<Arc<Source>, SourceError> {
        let source = match &self.place {
            Place::Embedded => Source::open(None)?,
            Place::Folder(folder) => Source::open(Some(folder))?,
            Place::Opened(source) => return Ok(source.clone()),
        };
        match source.hash == self.hash {
            true => Ok(Arc::new(source)),
            false => Err(SourceError::Changed { name: self.name.clone(), found: source.hash }),
        }
    }
}

impl From<Arc<Source>> for Available {
    fn from(source: Arc<Source>) -> Self {
        Available { name: source.name.clone(), hash: source.hash.clone(), place: Place::Opened(source) }
    }
}

/// What the embedded encoder is called.
const EMBEDDED: &str = "the embedded encoder";

/// Why there is no backbone.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The folder holds another bundle than it did.
    #[error("{name} holds another bundle by now, {found}; start the device again")]
    Changed {
        /// Where it is.
        name: String,
        /// The hash it has now.
        found: String,
    },
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
            folder: Some(bundle.folder().to_path_buf()),
            tokenizer: bundle.tokenizer().map(read).transpose()?,
        })
    }

    fn embedded() -> Result<Self, SourceError> {
        let files = fedtt_zoo::encoder();
        let graph = import::from_bytes(files.model, Path::new(EMBEDDED))?;
        Ok(Source {
            name: EMBEDDED.to_string(),
            hash: fedtt_zoo::ENCODER_SHA256.to_string(),
            backbone: Backbone::new(graph, None)?,
            pooling: Pooling::Mean,
            folder: None,
            tokenizer: Some((PathBuf::from("embedded tokenizer.json"), files.tokenizer.to_vec())),
        })
    }

    /// Its `tokenizer.json`, if it has one.
    pub fn tokenizer_json(&self) -> Option<&[u8]> {
        self.tokenizer.as_ref().map(|(_, json)| json.as_slice())
    }

    /// The licence text of its weights, if it is known.
    ///
    /// # Errors
    /// When the bundle's cannot be read.
    pub fn licence(&self) -> Result<Option<String>, SourceError> {
        let Some(folder) = &self.folder else { return Ok(Some(fedtt_zoo::encoder().license.to_string())) };
        let read = |path: PathBuf| match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text),
            Err(source) => Err(SourceError::Io { path, source }),
        };
        Bundle::open(folder)?.licence().map(read).transpose()
    }

    /// Whether texts may have `max_length` tokens.
    ///
    /// # Errors
    /// When the backbone has no positions for so many.
    pub fn takes(&self, max_length: usize) -> Result<(), TokenizeError> {
        match self.backbone.longest() {
            Some(longest) if longest < max_length => Err(TokenizeError::TooLong { max_length, longest }),
            _ => Ok(()),
        }
    }

    /// The tokenizer at work, or, where there is none, an encoder that takes token ids.
    ///
    /// # Errors
    /// When the tokenizer cannot be read, or `max_length` is too short for it or too long for the backbone.
    pub fn encoder(&self, max_length: usize) -> Result<TextEncoder, TokenizeError> {
        self.takes(max_length)?;
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
