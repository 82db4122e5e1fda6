//! A frozen transformer in memory: its graph, what is known of it, and where adapters go.

use fedtt_runtime::{Model, Tensor};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, BundleError};
use crate::export::{self, ExportError, WeightsFile};
use crate::ir::{DType, Graph, Port, PortDim};
use crate::shape::Facts;
use crate::sites::{Anatomy, Site, SiteError, SiteKind, View, check, dissect, token_table, with_named_sites};
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
            Some(named) => with_named_sites(&graph, &facts, ids(&graph), named)?,
            None => dissect(&graph, &facts, ids(&graph))?,
        };
        let feeds = graph.inputs.iter().map(role).collect::<Result<_, _>>()?;
        Ok(Backbone { graph, facts, anatomy, feeds, weights: None })
    }

    /// The backbone in a bundle.
    ///
    /// # Errors
    /// When the bundle's graph cannot be read, one of its inputs is not recognised, or it is not what `backbone.json` says.
    pub fn open(bundle: &Bundle) -> Result<Self, BackboneError> {
        let graph = bundle.graph()?;
        let facts = Facts::of_graph(&graph);
        let feeds = graph.inputs.iter().map(role).collect::<Result<_, _>>()?;
        let anatomy = bundle.settings().anatomy.clone();
        check(&anatomy, &graph, &facts)?;
        let backbone = Backbone { graph, facts, anatomy, feeds, weights: bundle.weights_file() };
        match (bundle.settings().vocabulary, backbone.vocabulary()) {
            (Some(said), Some(found)) if said != found => Err(SiteError::Recorded {
                field: "vocabulary".into(),
                problem: format!("is {said}; the table that token ids index has {found} rows"),
            }
            .into()),
            _ => Ok(backbone),
        }
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
        token_table(&View::new(&self.graph, &self.facts), self.input(Role::Ids)?).map(|(rows, _)| rows)
    }

    /// Width of the residual stream that enters `block`.
    pub fn stream_width(&self, block: usize) -> usize {
        let width = |value: &String| usize::try_from(self.facts.shape(value)?.last()?.as_known()?).ok();
        let stream = self.anatomy.streams.get(block).and_then(Option::as_ref).and_then(width);
        stream.unwrap_or(self.anatomy.hidden)
    }

    /// The logits of a causal language model.
    ///
    /// # Errors
    /// Says why it is none.
    pub fn causal_logits(&self) -> Result<&str, &'static str> {
        match (self.anatomy.causal, &self.anatomy.logits) {
            (Some(false), _) => {
                Err("this backbone is no causal language model: its tokens attend to those after them, \
                                     so that it sees what it would have to predict; use it for classification or regression")
            }
            (_, Some(logits)) => Ok(logits),
            (_, None) => Err("this backbone has no logits output; export it with its language-model head"),
        }
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

/// The input of token ids.
fn ids(graph: &Graph) -> Option<&str> {
    let ids = |port: &&Port| matches!(role(port), Ok((Role::Ids, _)));
    graph.inputs.iter().find(ids).map(|port| port.name.as_str())
}

fn role(port: &Port) -> Result<(Role, String), BackboneError> {
    let name = port.name.to_lowercase();
    let role = match name.as_str() {
        n if n.contains("past") || n.contains("cache") => Err("re-export without a key/value cache (use_cache=False)"),
        n if n.contains("mask") => Ok(Role::Mask),
        n if n.contains("type") || n.contains("segment") => Ok(Role::Types),
        n if n.contains("position") => Ok(Role::Positions),
        n if n.contains("id") || n.contains("token") => Ok(Role::Ids),
        _ => {
            Err("its name says nothing of what it carries; a backbone takes token ids (`id` or `token` in the name), \
                  an attention mask (`mask`), token types (`type` or `segment`) and positions (`position`): re-export with \
                  only these, and names such as input_ids and attention_mask (input_names)")
        }
    };
    let refuse = |advice: String| Err(BackboneError::Input { input: port.name.clone(), advice });
    let fixed = port.shape.iter().flatten().find_map(|dim| match dim {
        PortDim::Known(size) => Some(size),
        _ => None,
    });
    match (role, fixed) {
        (Ok(role), _) if port.shape.as_ref().is_some_and(|shape| shape.len() != 2) => refuse(format!(
            "its shape is [{}], where [batch, sequence] is what can be fed; re-export with a 2-D {}",
            port.shape.iter().flatten().map(dimension).collect::<Vec<_>>().join(", "),
            match role {
                Role::Ids => "input_ids",
                Role::Mask => "attention_mask",
                Role::Types => "token_type_ids",
                Role::Positions => "position_ids",
            },
        )),
        (Ok(_), Some(size)) => refuse(format!(
            "the export fixed one of its dimensions to {size}; re-export with dynamic batch and sequence axes \
             (dynamic_axes or dynamic_shapes)"
        )),
        (Ok(role), _) => Ok((role, port.name.clone())),
        (Err(advice), _) => refuse(advice.into()),
    }
}

/// A dimension as messages show it.
fn dimension(dim: &PortDim) -> String {
    match dim {
        PortDim::Known(size) => size.to_string(),
        PortDim::Symbol(name) => name.clone(),
        PortDim::Unknown => "?".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn input<const RANK: usize>(name: &str, shape: [PortDim; RANK]) -> Port {
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
        let unnamed = role(&input("input.1", [PortDim::Unknown, PortDim::Unknown])).unwrap_err().to_string();
        for name in ["`input.1`", "`id`", "`token`", "`mask`", "`type`", "`segment`", "`position`", "input_names"] {
            assert!(unnamed.contains(name), "{unnamed}");
        }
    }

    #[test]
    fn what_is_not_batch_by_sequence_is_refused() {
        let dim = |name: &str| PortDim::Symbol(name.into());
        let mask = input("attention_mask", [dim("batch"), PortDim::Known(1), dim("sequence"), PortDim::Unknown]);
        let error = role(&mask).unwrap_err().to_string();
        assert!(error.contains("`attention_mask`") && error.contains("[batch, 1, sequence, ?]"), "{error}");
        assert!(error.contains("2-D attention_mask"), "{error}");
        assert!(role(&input("position_ids", [dim("sequence")])).is_err());
        assert!(role(&Port { shape: None, ..mask }).is_ok());
    }

    #[test]
    fn an_export_of_one_size_is_refused() {
        for name in ["input_ids", "attention_mask", "position_ids"] {
            let error = role(&input(name, [PortDim::Symbol("batch".into()), PortDim::Known(128)])).unwrap_err();
            assert!(error.to_string().contains("128") && error.to_string().contains("dynamic_axes"), "{error}");
        }
    }
}
