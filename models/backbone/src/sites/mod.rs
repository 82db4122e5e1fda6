//! Where adapters go: the blocks of a transformer and its sites, found by structure.
//!
//! Names differ per exporter and mean nothing, so nothing here looks at one. A *site* is the output of a projection
//! with constant weights whose result is added to the residual stream, possibly after a norm: the attention output
//! projection and the last MLP projection of each block, in every family from BERT to Gemma-2.

mod anatomy;
mod branch;
mod residual;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

pub use anatomy::{dissect, with_named_sites};

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

/// A tensor an adapter can be grafted onto.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct Anatomy {
    /// Width of the residual stream.
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
