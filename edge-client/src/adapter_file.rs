//! A trained adapter in one safetensors file, with everything needed to use it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fedtt_backbone::training::{Pooling, Task, norms};
use fedtt_tt::{AdapterSet, HeadSize};
use fedtt_wire::RunId;
use ndarray::{Array1, ArrayD};
use serde::{Deserialize, Serialize};

use crate::data::{Columns, Labels};
use crate::evaluate::TargetScale;
use crate::export::DENSE;
use crate::model::{ModelError, Objective};
use crate::source::Source;
use crate::task::TaskKind;
use crate::tensors::{TensorFile, TensorFileError};
use crate::train::TrainSettings;

/// Key of the header in the file's metadata.
const KEY: &str = "fedtt.adapter";
const FORMAT: u32 = 1;

/// What an adapter is for; the header of its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterHeader {
    /// Version of this header.
    pub format: u32,
    /// Hash of the bundle it was trained in.
    pub bundle: String,
    /// What it learnt.
    pub task: TaskKind,
    /// Classes in the order of the head's outputs; empty unless it tells classes apart.
    pub labels: Option<Labels>,
    /// How the head's numbers relate to the data's; for regression.
    pub scale: Option<TargetScale>,
    /// How hidden states are pooled for the head.
    pub pooling: Pooling,
    /// The columns it was trained on.
    pub columns: Columns,
    /// The settings it was trained with; they fix its shape.
    pub training: TrainSettings,
    /// The state of a run it is, where it was taken from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<RunState>,
}

/// A global state of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunState {
    /// The run.
    pub run: RunId,
    /// Rounds that led to it.
    pub round: u32,
    /// Digest of its values, in hexadecimal.
    pub digest: String,
}

/// An adapter with its header.
#[derive(Clone, Debug)]
pub struct AdapterFile {
    /// What it is for.
    pub header: AdapterHeader,
    /// Its values.
    pub set: AdapterSet,
}

/// Why an adapter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdapterFileError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// The header is not understood.
    #[error("{}: adapter header not understood: {message}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// It was trained in another backbone.
    #[error("{} was trained in backbone {trained}, not in {given} ({name}); give the bundle it was trained in", path.display())]
    OtherBackbone {
        /// The file.
        path: PathBuf,
        /// Hash of its bundle.
        trained: String,
        /// Hash of the bundle given.
        given: String,
        /// Where that came from.
        name: String,
    },
    /// Its tensors do not fit its own header.
    #[error("{}: {source}", path.display())]
    Values {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: Box<ModelError>,
    },
}

impl AdapterHeader {
    /// What the graph is to compute in the backbone of `source`.
    ///
    /// # Errors
    /// When a norm's gain that trains cannot be read.
    pub fn objective(&self, source: &Source) -> Result<Objective, ModelError> {
        let task = match self.task {
            TaskKind::Classify => Task::Classify { classes: self.labels.as_ref().map_or(0, |l| l.names().len()) },
            TaskKind::Regress => Task::Regress { targets: 1 },
            TaskKind::Lm => Task::CausalLm,
        };
        let blocks = source.backbone.anatomy.blocks();
        let lowest = blocks.saturating_sub(self.training.adapter.depth.unwrap_or(blocks));
        let norms = if self.training.train_norms { norms(&source.backbone, lowest)? } else { Vec::new() };
        Ok(Objective { task, pooling: self.pooling, norms })
    }

    /// Fresh adapters of this kind, with values from the training seed.
    ///
    /// # Errors
    /// When the settings do not fit the backbone.
    pub fn fresh(&self, source: &Source, objective: &Objective) -> Result<AdapterSet, ModelError> {
        let input = source.backbone.anatomy.hidden;
        let head = match objective.task {
            Task::Classify { classes } => Some(HeadSize { input, outputs: classes }),
            Task::Regress { targets } => Some(HeadSize { input, outputs: targets }),
            Task::CausalLm => None,
        };
        let sites = source.backbone.adapter_sites();
        let mut set = AdapterSet::new(&self.training.adapter, &sites, head, self.training.seed)?;
        for norm in &objective.norms {
            let value: ArrayD<f32> = Array1::from(norm.value.clone()).into_dyn();
            set.add_extra(norm.name.clone(), value);
        }
        Ok(set)
    }
}

impl AdapterFile {
    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), AdapterFileError> {
        self.write_with(path, BTreeMap::new())
    }

    /// Writes the file with further tensors in it, which [`AdapterFile::read`] passes over: their names begin with [`DENSE`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_with(&self, path: &Path, more: BTreeMap<String, ArrayD<f32>>) -> Result<(), AdapterFileError> {
        let header = serde_json::to_string(&self.header)
            .map_err(|e| AdapterFileError::Header { path: path.to_path_buf(), message: e.to_string() })?;
        let mut tensors = self.set.tensors();
        tensors.extend(more);
        Ok(TensorFile { header, tensors }.write(path, KEY)?)
    }

    /// The values of the adapter in another file, in the order of [`AdapterSet::parameters`], if it is of this one's kind.
    ///
    /// # Errors
    /// When the file is not an adapter, or another kind of one.
    pub fn reread(&self, path: &Path) -> Result<Vec<ArrayD<f32>>, AdapterFileError> {
        let file = TensorFile::read(path, KEY)?;
        let header = AdapterHeader { origin: self.header.origin.clone(), ..Self::understood(&file, path)? };
        if header != self.header {
            let message = "is an adapter of another kind".into();
            return Err(AdapterFileError::Header { path: path.to_path_buf(), message });
        }
        let unfit =
            |source| AdapterFileError::Values { path: path.to_path_buf(), source: Box::new(ModelError::from(source)) };
        let mut set = self.set.clone();
        set.load(&file.tensors).map_err(unfit)?;
        Ok(set.values().iter().map(|value| value.to_owned()).collect())
    }

    /// The header of the adapter in a file, whatever backbone it is for.
    ///
    /// # Errors
    /// When the file is not an adapter.
    pub fn header(path: &Path) -> Result<AdapterHeader, AdapterFileError> {
        Self::understood(&TensorFile::read(path, KEY)?, path)
    }

    fn understood(file: &TensorFile, path: &Path) -> Result<AdapterHeader, AdapterFileError> {
        let refuse = |message: String| AdapterFileError::Header { path: path.to_path_buf(), message };
        let header: AdapterHeader = serde_json::from_str(&file.header).map_err(|e| refuse(e.to_string()))?;
        if header.format != FORMAT {
            return Err(refuse(format!("format {}, where this program reads {FORMAT}", header.format)));
        }
        if header.task == TaskKind::Classify && header.labels.as_ref().is_none_or(|l| l.names().is_empty()) {
            return Err(refuse("a classifier without labels".into()));
        }
        Ok(header)
    }

    /// Reads an adapter for use in the backbone of `source`.
    ///
    /// # Errors
    /// When the file is not an adapter, belongs to another backbone, or contradicts itself.
    pub fn read(path: &Path, source: &Source) -> Result<Self, AdapterFileError> {
        let mut file = TensorFile::read(path, KEY)?;
        let header = Self::understood(&file, path)?;
        file.tensors.retain(|name, _| !name.starts_with(DENSE));
        if header.bundle != source.hash {
            return Err(AdapterFileError::OtherBackbone {
                path: path.to_path_buf(),
                trained: header.bundle,
                given: source.hash.clone(),
                name: source.name.clone(),
            });
        }
        let unfit = |source| AdapterFileError::Values { path: path.to_path_buf(), source: Box::new(source) };
        let objective = header.objective(source).map_err(unfit)?;
        let mut set = header.fresh(source, &objective).map_err(unfit)?;
        set.load(&file.tensors).map_err(|e| unfit(e.into()))?;
        Ok(AdapterFile { header, set })
    }

    /// The current version of the header.
    pub const FORMAT: u32 = FORMAT;
}
