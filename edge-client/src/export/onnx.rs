//! One model of plain nodes: token ids in, logits or predictions out.

use std::path::{Path, PathBuf};

use fedtt_backbone::backbone::Role;
use fedtt_backbone::export::{MAX_MODEL, keep_products_exact, save};
use fedtt_backbone::training::{TrainingGraph, TrainingSpec};

use super::ExportError;
use crate::adapter_file::AdapterFile;
use crate::source::Source;
use crate::task::TaskKind;

/// A model that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxModel {
    /// The file with weights beside it, if there is one: both go together.
    pub data: Option<PathBuf>,
    /// What is fed, each `[batch, sequence]`, by what it carries.
    pub inputs: Vec<(Role, String)>,
    /// What comes out: `[batch, classes]`, `[batch, 1]`, or for a language model `[batch, sequence, vocabulary]`.
    pub output: String,
}

/// Writes the backbone of `source` with the adapter and its head grafted into its graph as the ONNX model `path` (opset 21).
/// Inputs have the names they had in the model the backbone was made from; the output is `logits`. Of a regression it is the
/// scaled target: the data's number is `mean + deviation * logits`, with both in the metadata.
///
/// Quantised weights stay as they are stored, and products with them are computed in float32.
///
/// The model's metadata hold what it takes to use it: `fedtt.task`, `fedtt.labels` (a JSON array, in the order of the logits),
/// `fedtt.scale`, `fedtt.max_length`, `fedtt.bundle`. Weights are within the model up to 2 GB, and with `beside` from the first
/// byte, or beyond that in the file `<name>.data` beside it.
///
/// # Errors
/// When the adapter does not fit the backbone, or a file cannot be written.
pub fn onnx(adapter: &AdapterFile, source: &Source, path: &Path, beside: bool) -> Result<OnnxModel, ExportError> {
    let AdapterFile { header, set } = adapter;
    let objective = header.objective(source)?;
    let spec = TrainingSpec {
        adapters: set.forms().into_iter().map(|(site, form)| (site.id, form)).collect(),
        head: set.head_form(),
        task: objective.task,
        pooling: objective.pooling,
        from_block: None,
        norms: objective.norms,
        frozen: Vec::new(),
    };
    let training = TrainingGraph::build(&source.backbone, &spec)?;
    let mut graph = training.applied(&set.graph_inputs())?;
    keep_products_exact(&mut graph);
    let task = match header.task {
        TaskKind::Classify => "classify",
        TaskKind::Regress => "regress",
        TaskKind::Lm => "lm",
    };
    let json = |value: serde_json::Value| value.to_string();
    let mut metadata = vec![
        ("fedtt.bundle", header.bundle.clone()),
        ("fedtt.task", task.to_string()),
        ("fedtt.max_length", header.training.max_length.to_string()),
    ];
    metadata.extend(header.labels.as_ref().map(|labels| ("fedtt.labels", json(labels.names().into()))));
    let scale = header.scale.map(|scale| serde_json::json!({ "mean": scale.mean, "deviation": scale.deviation }));
    metadata.extend(scale.map(|scale| ("fedtt.scale", json(scale))));
    let data = save(&graph, path, if beside { 0 } else { MAX_MODEL }, &metadata)?;
    let fed = |(_, name): &&(Role, String)| graph.inputs.iter().any(|port| port.name == *name);
    Ok(OnnxModel {
        data,
        inputs: training.feeds.iter().filter(fed).cloned().collect(),
        output: graph.outputs.first().map(|port| port.name.clone()).unwrap_or_default(),
    })
}
