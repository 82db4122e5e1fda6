//! A trained adapter in the forms that others take.
//!
//! - safetensors: the adapter's own file, with [`dense`] matrices beside the factors where asked for;
//! - `onnx`: backbone, adapter and head as one model of plain nodes;
//! - `bundle`: a backbone with the adapter in it, to be handed out and trained further.

mod bundle;
mod dense;
mod onnx;

use std::path::{Path, PathBuf};

use fedtt_backbone::backbone::BackboneError;
use fedtt_backbone::bundle::BundleError;
use fedtt_backbone::export::ExportError as GraphError;
use fedtt_backbone::training::TrainingError;

use crate::adapter_file::{AdapterFile, AdapterFileError};
use crate::model::ModelError;
use crate::source::SourceError;

pub use bundle::{BESIDE, bundle};
pub use dense::{DENSE, dense};
pub use onnx::{OnnxModel, onnx};

/// Why an adapter cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The adapter cannot be read or written.
    #[error(transparent)]
    Adapter(#[from] AdapterFileError),
    /// It does not fit its backbone.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// No graph can be made of it.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// The graph cannot be written.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The bundle cannot be written, or the one it is made from not be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The graph is no backbone.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// The bundle that was written cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Writes the adapter's own file to `path`; with `whole`, the dense matrices its factors stand for beside them.
///
/// # Errors
/// When it cannot be written.
pub fn safetensors(adapter: &AdapterFile, path: &Path, whole: bool) -> Result<PathBuf, ExportError> {
    match whole {
        true => adapter.write_with(path, dense(&adapter.set))?,
        false => adapter.write(path)?,
    }
    Ok(path.to_path_buf())
}
