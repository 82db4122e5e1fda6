//! The gains of LayerNorm and RMSNorm, which may be trained along with the adapters.

use std::collections::HashMap;

use super::TrainingError;
use crate::backbone::Backbone;
use crate::graft::add_input;
use crate::ir::{Builder, DType, Graph, Node};
use crate::shape::{Dim, Facts};
use crate::sites::View;

/// A norm's gain.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// Its name as a graph input and a parameter: `norm.<n>`, counted from the embeddings.
    pub name: String,
    /// The weight it stands for.
    pub weight: String,
    /// Its value in the backbone, of the residual stream's width.
    pub value: Vec<f32>,
}

/// The gains that lie at or above block `from`, in the order the graph applies them: the scale of a
/// `LayerNormalization`, and in decomposed norms the vector of the hidden width that multiplies
/// a value of the stream.
///
/// # Errors
/// When a gain cannot be read.
pub fn norms(backbone: &Backbone, from: usize) -> Result<Vec<Norm>, TrainingError> {
    let view = View::new(&backbone.graph, &backbone.facts);
    let first = backbone.anatomy.streams.get(from).cloned().flatten();
    let start = first.and_then(|stream| view.producers.get(stream.as_str()).copied()).unwrap_or(0);
    let width = backbone.anatomy.sites.last().map_or(backbone.anatomy.hidden, |site| site.width_out);
    let mut found: Vec<Norm> = Vec::new();
    for (index, node) in backbone.graph.nodes.iter().enumerate() {
        let Some(weight) = gain(&view, node, width).filter(|_| index >= start) else { continue };
        if found.iter().any(|norm| norm.weight == weight) {
            continue;
        }
        let value = backbone.graph.weights.get(weight).and_then(|w| w.to_f32s());
        let value = value.ok_or_else(|| TrainingError::Task(format!("the gain `{weight}` cannot be read")))?;
        found.push(Norm { name: format!("norm.{}", found.len()), weight: weight.to_string(), value });
    }
    Ok(found)
}

fn gain<'a>(view: &View<'_>, node: &'a Node, width: usize) -> Option<&'a str> {
    let fits = |value: &&str| {
        let width = [Dim::known(width as i64)];
        view.graph.weights.contains_key(*value)
            && view.facts.shape(value) == Some(&width)
            && view.facts.dtype(value).is_some_and(|t| t.is_float())
    };
    match node.op.as_str() {
        "LayerNormalization" => node.input(1).filter(fits),
        "Mul" => node.inputs.iter().map(String::as_str).find(fits),
        _ => None,
    }
}

/// Turns the gains' weights into graph inputs.
pub(super) fn into_inputs(graph: &mut Graph, facts: &mut Facts, norms: &[Norm]) {
    let nodes = std::mem::take(&mut graph.nodes);
    let mut b = Builder::new(std::mem::take(graph), std::mem::take(facts));
    b.reserve(&Graph { nodes: nodes.clone(), ..Graph::default() });
    let mut stands_for: HashMap<&str, String> = HashMap::new();
    for norm in norms {
        let dtype = b.graph.weights.remove(&norm.weight).map_or(DType::F32, |weight| weight.dtype);
        add_input(&mut b, &norm.name, DType::F32, &[Dim::known(norm.value.len() as i64)]);
        let value = b.cast(&norm.name, dtype);
        stands_for.insert(norm.weight.as_str(), value);
    }
    for mut node in nodes {
        for input in &mut node.inputs {
            if let Some(value) = stands_for.get(input.as_str()) {
                input.clone_from(value);
            }
        }
        b.push_known(node);
    }
    *graph = b.graph;
    *facts = b.facts;
}
