//! From an ONNX file to a backbone that is known to be trainable.

use std::path::Path;

use crate::backbone::{Backbone, BackboneError};
use crate::import::{self, ImportError};
use crate::ir::{Graph, Node};
use crate::sites::View;
use crate::training::{TrainingError, TrainingGraph};
use crate::vjp::{VjpError, refusal};

/// Why an ONNX file cannot become a backbone.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It cannot be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Its structure is not recognised.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// It cannot be trained in.
    #[error(transparent)]
    Training(#[from] TrainingError),
}

/// Reads an ONNX file, finds its blocks and sites, and makes sure that gradients reach every site.
///
/// # Errors
/// When the file is refused, its structure is not recognised, or an operator between a site and the output has no
/// gradient. Where a fused or quantised operator hides the structure, that operator is named.
pub fn prepare(path: &Path, named_sites: Option<&[(String, String)]>) -> Result<Backbone, PrepareError> {
    let graph = import::read(path)?;
    let backbone = match Backbone::new(graph.clone(), named_sites) {
        Ok(backbone) => backbone,
        Err(error) => match hidden_behind(&graph) {
            Some(refused) => return Err(TrainingError::Vjp(refused).into()),
            None => return Err(error.into()),
        },
    };
    TrainingGraph::probes(&backbone, backbone.hidden_state())?;
    Ok(backbone)
}

/// The first fused or quantised operator that computes on data, which may be why no structure was found.
fn hidden_behind(graph: &Graph) -> Option<VjpError> {
    let facts = crate::shape::Facts::of_graph(graph);
    let view = View::new(graph, &facts);
    let on_data = |node: &&Node| node.input(0).is_some_and(|x| !view.is_constant(x));
    let refused = graph.nodes.iter().filter(on_data).filter_map(|node| Some((node, refusal(node)?)));
    // An If off the gradient path and a table stored as integers do no harm, so they are named only when nothing else
    // explains the failure.
    let (node, advice) = refused.min_by_key(|(node, _)| node.is("If") || node.is("DequantizeLinear"))?;
    Some(VjpError { node: node.label().to_string(), op: node.op_name(), message: advice.to_string() })
}
