//! A run's whole state in one file, so that it can be continued exactly.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fedtt_tt::OptimiserState;
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use super::Position;
use crate::tensors::{TensorFile, TensorFileError};

/// What is saved.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Hash of the run's settings and data.
    pub(crate) identity: String,
    /// The adapter's values.
    pub(crate) values: BTreeMap<String, ArrayD<f32>>,
    /// Those of the best adapter so far; empty while there is none.
    pub(crate) best: BTreeMap<String, ArrayD<f32>>,
    /// The optimiser's state.
    pub(crate) optimiser: OptimiserState,
    /// Where the run stands.
    pub(crate) position: Position,
}

/// Why a checkpoint is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// It is not a checkpoint.
    #[error("{} is not a checkpoint: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        message: String,
    },
    /// It belongs to a run with other settings or data.
    #[error(
        "{} belongs to a run with other settings, data or backbone; repeat that run's options, or start afresh \
         without --resume", path.display()
    )]
    OtherRun {
        /// The file.
        path: PathBuf,
    },
}

const KEY: &str = "fedtt.checkpoint";
const FORMAT: u32 = 1;

/// The part that is not tensors.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    identity: String,
    position: Position,
    step: u64,
    updates: Vec<u64>,
}

impl Checkpoint {
    /// Writes the file in one go: whoever reads it sees the old or the new content.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        let header = Header {
            format: FORMAT,
            identity: self.identity.clone(),
            position: self.position.clone(),
            step: self.optimiser.step,
            updates: self.optimiser.updates.clone(),
        };
        let header = serde_json::to_string(&header)
            .map_err(|e| CheckpointError::Content { path: path.to_path_buf(), message: e.to_string() })?;
        let mut tensors = BTreeMap::new();
        for (group, named) in [("value", &self.values), ("best", &self.best)] {
            tensors.extend(named.iter().map(|(name, tensor)| (format!("{group}/{name}"), tensor.clone())));
        }
        for (group, moments) in [("first", &self.optimiser.first), ("second", &self.optimiser.second)] {
            tensors.extend(moments.iter().enumerate().map(|(i, tensor)| (format!("{group}/{i}"), tensor.clone())));
        }
        Ok(TensorFile { header, tensors }.write(path, KEY)?)
    }

    /// Reads a file back.
    ///
    /// # Errors
    /// When it cannot be read or is not a checkpoint.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let refuse = |message: String| CheckpointError::Content { path: path.to_path_buf(), message };
        let mut file = TensorFile::read(path, KEY)?;
        let header: Header = serde_json::from_str(&file.header).map_err(|e| refuse(e.to_string()))?;
        if header.format != FORMAT {
            return Err(refuse(format!("format {}, where this program reads {FORMAT}", header.format)));
        }
        let mut moments = |group: &str| {
            let take = |i: usize| {
                let name = format!("{group}/{i}");
                file.tensors.remove(&name).ok_or_else(|| refuse(format!("`{name}` is missing")))
            };
            (0..header.updates.len()).map(take).collect::<Result<Vec<_>, _>>()
        };
        let (first, second) = (moments("first")?, moments("second")?);
        let named = |group: &str| {
            let own = file.tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(group)?, tensor)));
            own.map(|(name, tensor)| (name.to_string(), tensor.clone())).collect::<BTreeMap<_, _>>()
        };
        Ok(Checkpoint {
            identity: header.identity,
            values: named("value/"),
            best: named("best/"),
            optimiser: OptimiserState { step: header.step, updates: header.updates, first, second },
            position: header.position,
        })
    }

    /// Whether it belongs to the run with this identity.
    pub(crate) fn check(&self, path: &Path, identity: &str) -> Result<(), CheckpointError> {
        if self.identity == identity {
            return Ok(());
        }
        Err(CheckpointError::OtherRun { path: path.to_path_buf() })
    }
}
