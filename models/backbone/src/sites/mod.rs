//! Where adapters go: the blocks of a transformer and its sites, found by structure.
//!
//! Names differ per exporter and mean nothing, so nothing here looks at one. A *site* is the output of a projection
//! with constant weights whose result is added to the residual stream, possibly after a norm: the attention output
//! projection and the last MLP projection of each block, in every family from BERT to Gemma-2.

mod anatomy;
mod branch;
mod check;
mod outputs;
mod residual;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

pub use anatomy::{dissect, with_named_sites};
pub(crate) use branch::{probabilities, projection_behind};
pub use check::check;
pub(crate) use outputs::token_table;

use crate::ir::{Graph, Node};
use crate::shape::Facts;

/// What a site is the output of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SiteKind {
    /// The attention output projection.
    Attn,
    /// The last MLP projection.
    Mlp,
    /// The query projection (or a fused one that holds the query).
    Query,
    /// The value projection.
    Value,
}

impl SiteKind {
    /// The id of the site of this kind in `block`, such as `0.attn`.
    pub fn id(self, block: usize) -> String {
        let kind = match self {
            SiteKind::Attn => "attn",
            SiteKind::Mlp => "mlp",
            SiteKind::Query => "query",
            SiteKind::Value => "value",
        };
        format!("{block}.{kind}")
    }
}

/// No transformer has more blocks; the deepest have a few hundred.
pub const MAX_BLOCKS: usize = 1000;

/// A tensor an adapter can be grafted onto.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// `<block>.<kind>`, such as `0.attn`.
    pub id: String,
    /// Block it belongs to, counted from the embeddings.
    pub block: usize,
    /// What it is the output of.
    pub kind: SiteKind,
    /// The value: the projection's output, bias included, before residual and norm.
    pub tensor: String,
    /// The value the projection reads.
    pub input: String,
    /// Width of the value the projection reads.
    pub width_in: usize,
    /// Width of the value itself.
    pub width_out: usize,
}

/// The parts of a transformer that training needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anatomy {
    /// Width of the hidden state: the residual stream's, unless a projection leads to another, as in OPT-350m.
    pub hidden: usize,
    /// Attention and MLP sites, in the order the graph computes them.
    pub sites: Vec<Site>,
    /// Query and value projections, for parallel branches (LoRA); empty where they were not recognised.
    pub branches: Vec<Site>,
    /// For each block, the residual stream that enters it: every path from the blocks below passes through it.
    /// `None` for the first block and where no single value does.
    pub streams: Vec<Option<String>>,
    /// The final hidden state, `[batch, sequence, hidden]`.
    pub hidden_state: String,
    /// The vocabulary logits of a causal language model, `[batch, sequence, vocabulary]`, if the export has them.
    pub logits: Option<String>,
    /// Whether each token attends to itself and those before it alone; `None` where that was not found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causal: Option<bool>,
}

impl Anatomy {
    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.streams.len()
    }
}

/// Why the adapter sites of a graph could not be told.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// No projection's output is added to a residual stream.
    #[error(
        "no adapter site found: no projection with constant weights is added to a residual stream \
         (is this a transformer? if so, name the tensors with --sites FILE)"
    )]
    NoSites,
    /// Blocks do not each have one attention and one MLP site.
    #[error(
        "block {block} has no {missing} site; name the sites with --sites FILE ({found} sites were found: {names})"
    )]
    Lopsided {
        /// The block.
        block: usize,
        /// What it lacks.
        missing: &'static str,
        /// Sites found in all.
        found: usize,
        /// Their tensors.
        names: String,
    },
    /// The graph has no output the loss can be put on.
    #[error("the graph has no floating-point output with the hidden state or logits; its outputs are: {outputs}")]
    NoOutput {
        /// The outputs there are.
        outputs: String,
    },
    /// What a bundle says of its graph is not so.
    #[error("backbone.json does not fit the graph: `{field}` {problem}; prepare the model again")]
    Recorded {
        /// The field, such as `anatomy.sites[3].width_out`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor named by hand does not exist or cannot carry an adapter.
    #[error("site `{id}`: tensor `{tensor}` {problem}")]
    Named {
        /// The site.
        id: String,
        /// The tensor named.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A graph with the look-ups that walking it needs.
pub(crate) struct View<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) facts: &'a Facts,
    pub(crate) producers: HashMap<&'a str, usize>,
    pub(crate) consumers: HashMap<&'a str, Vec<usize>>,
    constant: HashSet<&'a str>,
}

impl<'a> View<'a> {
    pub(crate) fn new(graph: &'a Graph, facts: &'a Facts) -> Self {
        let mut constant: HashSet<&str> = graph.weights.keys().map(String::as_str).collect();
        for node in &graph.nodes {
            if node.reads().iter().all(|value| constant.contains(value)) {
                constant.extend(node.outputs.iter().map(String::as_str));
            }
        }
        View { graph, facts, producers: graph.producers(), consumers: graph.consumers(), constant }
    }

    /// Whether a value is computed from weights alone.
    pub(crate) fn is_constant(&self, value: &str) -> bool {
        self.constant.contains(value)
    }

    /// Names of the graph's outputs.
    pub(crate) fn outputs(&self) -> Vec<&'a str> {
        self.graph.outputs.iter().map(|port| port.name.as_str()).collect()
    }

    /// Everything that `value` is computed from, itself included.
    pub(crate) fn behind(&self, value: &'a str) -> HashSet<&'a str> {
        let mut pending = vec![value];
        let mut seen = HashSet::new();
        while let Some(value) = pending.pop() {
            if seen.insert(value) {
                pending.extend(self.producer(value).into_iter().flat_map(|node| node.reads()));
            }
        }
        seen
    }

    pub(crate) fn producer(&self, value: &str) -> Option<&'a Node> {
        self.producers.get(value).map(|&i| &self.graph.nodes[i])
    }

    pub(crate) fn readers(&self, value: &str) -> impl Iterator<Item = &'a Node> + use<'a, '_> {
        let graph = self.graph;
        self.consumers.get(value).into_iter().flatten().map(move |&i| &graph.nodes[i])
    }

    /// The last dimension of a value, if it is a known number.
    pub(crate) fn width(&self, value: &str) -> Option<usize> {
        self.facts.shape(value)?.last()?.as_known().and_then(|w| usize::try_from(w).ok())
    }

    /// Whether `node` multiplies data by constant weights, and nothing else.
    pub(crate) fn is_projection(&self, node: &Node) -> bool {
        let by_constant = match (node.domain.as_str(), node.op.as_str()) {
            ("", "MatMul" | "Gemm") => {
                node.input(1).is_some_and(|w| self.is_constant(w) && self.facts.rank(w) != Some(1))
            }
            ("com.microsoft", "MatMulNBits") => true,
            _ => false,
        };
        by_constant && node.input(0).is_some_and(|x| !self.is_constant(x))
    }

    /// The value of a projection once its bias, if any, is added.
    pub(crate) fn with_bias(&self, projection: &'a Node) -> Option<&'a str> {
        let output = projection.output(0)?;
        let mut readers = self.readers(output);
        let (Some(reader), None) = (readers.next(), readers.next()) else { return Some(output) };
        let is_bias = |value: &str| {
            let shape = self.facts.shape(value).unwrap_or_default();
            let leading_ones = shape.iter().rev().skip(1).all(|d| d.as_known() == Some(1));
            self.is_constant(value) && !shape.is_empty() && leading_ones
        };
        let adds_bias = reader.is("Add") && reader.inputs.iter().any(|v| v != output && is_bias(v));
        if adds_bias { reader.output(0) } else { Some(output) }
    }
}
