//! From an ONNX file to a backbone that is known to be trainable.

use std::collections::BTreeSet;
use std::path::Path;

use crate::backbone::{Backbone, BackboneError, Role};
use crate::causal::attends_back_only;
use crate::import::{self, ImportError};
use crate::ir::{Graph, Node};
use crate::shape::{Facts, has_rule};
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
    /// Its structure is not recognised, and it has operators of which nothing is known.
    #[error("{source}; nothing is known of {operators}, which may be why: re-export the model to other operators")]
    Unknown {
        /// What was not recognised.
        source: BackboneError,
        /// The operators.
        operators: String,
    },
    /// It cannot be told what is padding, and looks at it.
    #[error(
        "the export takes no attention mask, and its tokens attend to those after them: what it says of a text would depend on \
         the longer ones beside it; re-export with attention_mask among the inputs"
    )]
    Unmasked,
    /// It cannot be trained in.
    #[error(transparent)]
    Training(#[from] TrainingError),
}

/// Reads an ONNX file, finds its blocks and sites, and makes sure that gradients reach every site. Logits are kept only where
/// attention looks back alone: those of a masked language model do not predict the next token.
///
/// # Errors
/// When the file is refused, its structure is not recognised, or an operator between a site and the output has no
/// gradient. Where a fused, quantised or unknown operator hides the structure, that operator is named.
pub fn prepare(path: &Path, named_sites: Option<&[(String, String)]>) -> Result<Backbone, PrepareError> {
    let graph = import::read(path)?;
    let mut backbone = match Backbone::new(graph.clone(), named_sites) {
        Ok(backbone) => backbone,
        Err(error @ BackboneError::Sites(_)) => return Err(explained(error, &graph)),
        Err(error) => return Err(error.into()),
    };
    TrainingGraph::probes(&backbone, backbone.hidden_state())?;
    backbone.anatomy.causal = attends_back_only(&backbone);
    if backbone.anatomy.causal == Some(false) {
        if backbone.input(Role::Mask).is_none() {
            return Err(PrepareError::Unmasked);
        }
        backbone.anatomy.logits = None;
    }
    Ok(backbone)
}

/// Why no structure was found: the first fused or quantised operator that computes on data, or those of unknown shape.
fn explained(error: BackboneError, graph: &Graph) -> PrepareError {
    let facts = Facts::of_graph(graph);
    let view = View::new(graph, &facts);
    let on_data: Vec<&Node> =
        graph.nodes.iter().filter(|node| node.reads().iter().any(|value| !view.is_constant(value))).collect();
    let refused = on_data.iter().filter_map(|node| Some((node, refusal(node)?)));
    // An If off the gradient path and a table stored as integers do no harm, so they are named only when nothing else
    // explains the failure.
    if let Some((node, advice)) = refused.min_by_key(|(node, _)| node.is("If") || node.is("DequantizeLinear")) {
        let refused = VjpError { node: node.label().to_string(), op: node.op_name(), message: advice.to_string() };
        return TrainingError::Vjp(refused).into();
    }
    let unknown: BTreeSet<String> = on_data.iter().filter(|node| !has_rule(node)).map(|node| node.op_name()).collect();
    if unknown.is_empty() {
        return error.into();
    }
    PrepareError::Unknown { source: error, operators: unknown.into_iter().collect::<Vec<_>>().join(", ") }
}
