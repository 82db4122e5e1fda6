//! The prepared backbone on disk: one folder, named by the hash of its contents. `BUNDLE.md` documents the format.

mod manifest;
mod settings;
mod weights;
mod write;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use manifest::{FORMAT, MANIFEST, Manifest, Part, is_part};
pub use settings::{Origin, Precision, Settings};
pub(crate) use weights::WeightsWriter;
pub use write::{Draft, file_sha256, write};

use crate::export::{ExportError, WeightsFile};
use crate::import::{self, ImportError};
use crate::ir::Graph;

pub(crate) const GRAPH: &str = "graph.onnx";
pub(crate) const WEIGHTS: &str = "weights.bin";
pub(crate) const SETTINGS: &str = "backbone.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const LICENCE: &str = "LICENSE.txt";

/// Parts every bundle has.
const REQUIRED: [&str; 3] = [GRAPH, WEIGHTS, SETTINGS];
/// Parts a bundle may have.
const OPTIONAL: [&str; 2] = [TOKENIZER, LICENCE];

/// No settings or manifest is larger, in bytes.
pub const MAX_JSON: u64 = 16 << 20;

/// Why a bundle cannot be written or opened.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no bundle in the folder.
    #[error("{} is not a bundle: it has no manifest.json (`fedtt backbone prepare` makes one)", .0.display())]
    NotABundle(PathBuf),
    /// Something is where the bundle should go.
    #[error("{} exists already: remove it or name another folder", .0.display())]
    Exists(PathBuf),
    /// A JSON part is not what it should be.
    #[error("{}: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The bundle was written in another format.
    #[error("{} has format {found}; this program reads format {FORMAT}: prepare the model again", path.display())]
    Format {
        /// The bundle.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A part is missing, altered or unknown.
    #[error("{}: {message}; the bundle is damaged: copy or prepare it again", path.display())]
    Damaged {
        /// The part.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A weight cannot be read from where the graph says it is.
    #[error("weight `{name}`: {source}")]
    Weight {
        /// The weight.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The graph cannot be written.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The graph cannot be read.
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// A bundle whose parts are all there.
#[derive(Clone, Debug)]
pub struct Bundle {
    folder: PathBuf,
    manifest: Manifest,
    settings: Settings,
}

impl Bundle {
    /// Opens the bundle in `folder`. The hashes of all parts but the weights are checked; [`Bundle::verify_hash`] checks
    /// those too.
    ///
    /// # Errors
    /// When the folder holds no bundle, or a part is missing or altered.
    pub fn open(folder: &Path) -> Result<Self, BundleError> {
        let folder = std::path::absolute(folder).map_err(io_error(folder))?;
        let path = folder.join(manifest::MANIFEST);
        if !path.is_file() {
            return Err(BundleError::NotABundle(folder));
        }
        let text = read_small(&path)?;
        let format = serde_json::from_slice::<serde_json::Value>(&text).map_err(json_error(&path))?["format"].as_u64();
        if let Some(found) = format.filter(|&f| f != u64::from(FORMAT)) {
            return Err(BundleError::Format { path: folder, found: found.try_into().unwrap_or(u32::MAX) });
        }
        let manifest: Manifest = serde_json::from_slice(&text).map_err(json_error(&path))?;
        manifest.check().map_err(|message| damaged(&path, message))?;
        for (name, part) in &manifest.parts {
            check_size(&folder.join(name), part)?;
            if name != WEIGHTS {
                check_hash(&folder.join(name), part)?;
            }
        }
        let path = folder.join(SETTINGS);
        let settings = serde_json::from_slice(&read_small(&path)?).map_err(json_error(&path))?;
        Ok(Bundle { folder, manifest, settings })
    }

    /// Checks the hash of every part, the weights included.
    ///
    /// # Errors
    /// When a part cannot be read or is altered.
    pub fn verify_hash(&self) -> Result<(), BundleError> {
        self.manifest.parts.iter().try_for_each(|(name, part)| check_hash(&self.folder.join(name), part))
    }

    /// The folder, as an absolute path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The hash of its contents.
    pub fn hash(&self) -> &str {
        &self.manifest.hash
    }

    /// Its table of contents.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What it says of its backbone.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The file that graphs derived from this bundle find their weights in.
    pub fn weights_file(&self) -> Option<WeightsFile> {
        WeightsFile::new(&self.folder.join(WEIGHTS))
    }

    /// The tokenizer, if the bundle has one.
    pub fn tokenizer(&self) -> Option<PathBuf> {
        self.part(TOKENIZER)
    }

    /// The licence text, if the bundle has one.
    pub fn licence(&self) -> Option<PathBuf> {
        self.part(LICENCE)
    }

    fn part(&self, name: &str) -> Option<PathBuf> {
        self.manifest.parts.contains_key(name).then(|| self.folder.join(name))
    }

    /// The graph; its weights stay in the bundle's file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn graph(&self) -> Result<Graph, BundleError> {
        Ok(import::read(&self.folder.join(GRAPH))?)
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_path_buf();
    move |source| BundleError::Io { path, source }
}

fn json_error(path: &Path) -> impl FnOnce(serde_json::Error) -> BundleError {
    let path = path.to_path_buf();
    move |error| BundleError::Json { path, message: error.to_string() }
}

fn damaged(path: &Path, message: impl Into<String>) -> BundleError {
    BundleError::Damaged { path: path.to_path_buf(), message: message.into() }
}

fn read_small(path: &Path) -> Result<Vec<u8>, BundleError> {
    if fs::metadata(path).map_err(io_error(path))?.len() > MAX_JSON {
        return Err(damaged(path, "is far too large"));
    }
    fs::read(path).map_err(io_error(path))
}

fn check_size(path: &Path, part: &Part) -> Result<(), BundleError> {
    let metadata = fs::metadata(path).map_err(io_error(path))?;
    if !metadata.is_file() || metadata.len() != part.bytes {
        return Err(damaged(path, format!("has {} bytes where {} belong", metadata.len(), part.bytes)));
    }
    Ok(())
}

fn check_hash(path: &Path, part: &Part) -> Result<(), BundleError> {
    if sha256_of(path)? == part.sha256 { Ok(()) } else { Err(damaged(path, "is not what its hash says")) }
}

fn sha256_of(path: &Path) -> Result<String, BundleError> {
    let mut file = File::open(path).map_err(io_error(path))?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash).map_err(io_error(path))?;
    Ok(manifest::hex(&hash.finalize()))
}
