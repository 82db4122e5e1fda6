//! A frozen transformer in memory: its graph, what is known of it, and where adapters go.

use fedtt_runtime::{Model, Tensor};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, BundleError};
use crate::export::{self, ExportError, WeightsFile};
use crate::ir::{DType, Graph, Port, PortDim};
use crate::shape::Facts;
use crate::sites::{Anatomy, Site, SiteError, SiteKind, dissect, with_named_sites};
use crate::unpack::unpack_in_place_of_use;

/// What a backbone input carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Token ids.
    Ids,
    /// 1 for tokens, 0 for padding.
    Mask,
    /// Segment of each token.
    Types,
    /// Position of each token.
    Positions,
}

/// A frozen transformer.
#[derive(Clone, Debug)]
pub struct Backbone {
    /// Its graph.
    pub graph: Graph,
    /// What is known of the graph's values.
    pub facts: Facts,
    /// Its blocks and sites.
    pub anatomy: Anatomy,
    /// Its inputs by role.
    pub feeds: Vec<(Role, String)>,
    /// The file derived graphs find their weights in; without one they carry them.
    pub weights: Option<WeightsFile>,
}

/// A value that a loss can be of, `[batch, sequence, width]`.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    /// Its name in the graph.
    pub value: &'a str,
    /// Numbers of each token.
    pub width: usize,
}

/// Why a graph is not a backbone that can be trained in.
#[derive(Debug, thiserror::Error)]
pub enum BackboneError {
    /// Its structure was not recognised.
    #[error(transparent)]
    Sites(#[from] SiteError),
    /// The bundle's graph cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// It has an input that nobody would know how to feed, or that takes one size only.
    #[error("input `{input}` cannot be fed: {advice}")]
    Input {
        /// The input.
        input: String,
        /// What to do.
        advice: String,
    },
}

impl Backbone {
    /// Recognises a transformer's blocks, sites, inputs and outputs.
    ///
    /// # Errors
    /// When its structure or one of its inputs is not recognised.
    pub fn new(graph: Graph, named_sites: Option<&[(String, String)]>) -> Result<Self, BackboneError> {
        let facts = Facts::of_graph(&graph);
        let anatomy = match named_sites {
            Some(named) => with_named_sites(&graph, &facts, named)?,
            None => dissect(&graph, &facts)?,
        };
        let feeds = graph.inputs.iter().map(role).collect::<Result<_, _>>()?;
        Ok(Backbone { graph, facts, anatomy, feeds, weights: None })
    }

    /// The backbone in a bundle.
    ///
    /// # Errors
    /// When the bundle's graph cannot be read or one of its inputs is not recognised.
    pub fn open(bundle: &Bundle) -> Result<Self, BackboneError> {
        let graph = bundle.graph()?;
        let facts = Facts::of_graph(&graph);
        let feeds = graph.inputs.iter().map(role).collect::<Result<_, _>>()?;
        let anatomy = bundle.settings().anatomy.clone();
        Ok(Backbone { graph, facts, anatomy, feeds, weights: bundle.weights_file() })
    }

    /// The name of the input with a role, if there is one.
    pub fn input(&self, role: Role) -> Option<&str> {
        self.feeds.iter().find(|(r, _)| *r == role).map(|(_, name)| name.as_str())
    }

    /// A site or branch by its id.
    pub fn site(&self, id: &str) -> Option<&Site> {
        self.sites().find(|site| site.id == id)
    }

    /// All sites and branches as the adapters' crate knows them. A bottleneck reads and writes the site's own tensor;
    /// a branch reads what the projection reads.
    pub fn adapter_sites(&self) -> Vec<fedtt_tt::model::Site> {
        use fedtt_tt::model::SiteKind as Kind;
        let convert = |site: &Site| {
            let (kind, input) = match site.kind {
                SiteKind::Attn => (Kind::Attention, site.width_out),
                SiteKind::Mlp => (Kind::Mlp, site.width_out),
                SiteKind::Query => (Kind::Query, site.width_in),
                SiteKind::Value => (Kind::Value, site.width_in),
            };
            fedtt_tt::model::Site { id: site.id.clone(), kind, block: site.block, input, output: site.width_out }
        };
        self.sites().map(convert).collect()
    }

    /// All sites and branches.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        self.anatomy.sites.iter().chain(&self.anatomy.branches)
    }

    /// Token ids, masks and so on in the type the input asks for.
    pub fn feed(&self, input: &str, values: ArrayD<i64>) -> Tensor {
        match self.graph.inputs.iter().find(|port| port.name == input).map(|port| port.dtype) {
            Some(DType::I32) => Tensor::I32(values.mapv(|v| v as i32)),
            Some(DType::Bool) => Tensor::Bool(values.mapv(|v| v != 0)),
            Some(DType::F32) => Tensor::F32(values.mapv(|v| v as f32)),
            _ => Tensor::I64(values),
        }
    }

    /// Size of the vocabulary: rows of the table that token ids index.
    pub fn vocabulary(&self) -> Option<usize> {
        let ids = self.input(Role::Ids)?;
        let table = self.graph.nodes.iter().find(|node| node.is("Gather") && node.input(1) == Some(ids))?.input(0)?;
        usize::try_from(self.facts.shape(table)?.first()?.as_known()?).ok()
    }

    /// The last hidden state.
    pub fn hidden_state(&self) -> Output<'_> {
        Output { value: &self.anatomy.hidden_state, width: self.anatomy.hidden }
    }

    /// A language model's logits where the export has them, else the last hidden state.
    pub fn last_output(&self) -> Output<'_> {
        let width = |value: &str| usize::try_from(self.facts.shape(value)?.last()?.as_known()?).ok();
        let logits = self.anatomy.logits.as_deref().and_then(|value| Some(Output { value, width: width(value)? }));
        logits.unwrap_or_else(|| self.hidden_state())
    }

    /// Whether activations are in half precision somewhere between the sites.
    pub fn computes_in_half(&self) -> bool {
        let half = |site: &Site| matches!(self.facts.dtype(&site.tensor), Some(DType::F16 | DType::BF16));
        self.anatomy.sites.iter().any(half)
    }

    /// The graph with only the outputs that training and evaluation start from.
    pub fn kept_graph(&self) -> Graph {
        let mut graph = self.graph.clone();
        let names = [Some(&self.anatomy.hidden_state), self.anatomy.logits.as_ref()];
        let port = |name: &String| Port {
            name: name.clone(),
            dtype: self.facts.dtype(name).unwrap_or(DType::F32),
            shape: None,
        };
        graph.outputs = names.into_iter().flatten().map(port).collect();
        graph.prune();
        graph
    }

    /// A graph derived from this backbone as ONNX for an engine: large weights left where they are, 8-bit ones unpacked where
    /// they are used.
    ///
    /// # Errors
    /// When a weight cannot be read.
    pub fn export(&self, graph: &Graph) -> Result<Model, ExportError> {
        let mut graph = graph.clone();
        unpack_in_place_of_use(&mut graph);
        export::to_model(&graph, self.weights.as_ref())
    }
}

fn role(port: &Port) -> Result<(Role, String), BackboneError> {
    let name = port.name.to_lowercase();
    let role = match name.as_str() {
        n if n.contains("past") || n.contains("cache") => Err("re-export without a key/value cache (use_cache=False)"),
        n if n.contains("mask") => Ok(Role::Mask),
        n if n.contains("type") || n.contains("segment") => Ok(Role::Types),
        n if n.contains("position") => Ok(Role::Positions),
        n if n.contains("id") || n.contains("token") => Ok(Role::Ids),
        _ => Err("a backbone takes token ids, attention mask, token types and position ids; re-export with only these"),
    };
    let refuse = |advice: String| Err(BackboneError::Input { input: port.name.clone(), advice });
    let fixed = port.shape.iter().flatten().find_map(|dim| match dim {
        PortDim::Known(size) => Some(size),
        _ => None,
    });
    match (role, fixed) {
        (Ok(Role::Ids), Some(size)) => refuse(format!(
            "the export fixed one of its dimensions to {size}; re-export with dynamic batch and sequence axes \
             (dynamic_axes or dynamic_shapes)"
        )),
        (Ok(role), _) => Ok((role, port.name.clone())),
        (Err(advice), _) => refuse(advice.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn input(name: &str, shape: [PortDim; 2]) -> Port {
        Port { name: name.into(), dtype: DType::I64, shape: Some(shape.to_vec()) }
    }

    #[test]
    fn inputs_are_known_by_their_names() {
        let of = |name: &str| role(&input(name, [PortDim::Unknown, PortDim::Unknown])).map(|(role, _)| role).ok();
        assert_eq!(of("input_ids"), Some(Role::Ids));
        assert_eq!(of("attention_mask"), Some(Role::Mask));
        assert_eq!(of("token_type_ids"), Some(Role::Types));
        assert_eq!(of("position_ids"), Some(Role::Positions));
        assert_eq!(of("past_key_values.0.key"), None);
    }

    #[test]
    fn an_export_of_one_size_is_refused() {
        let error = role(&input("input_ids", [PortDim::Symbol("batch".into()), PortDim::Known(128)])).unwrap_err();
        assert!(error.to_string().contains("128") && error.to_string().contains("dynamic_axes"), "{error}");
    }
}
