//! How much memory a step of a training graph holds, from the shapes and lifetimes of its values.

use std::collections::{HashMap, HashSet};

use super::TrainingGraph;
use super::layout::{forward_pass, made};
use crate::ir::{Data, Graph, Node};
use crate::shape::{Facts, sizes};

/// Bytes that a training step of one shape holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Weights as the graph stores them.
    pub weights: u64,
    /// Of those, in files.
    pub in_files: u64,
    /// The same with those that products read as 32-bit floats; of tables the rows alone are ever unpacked.
    pub floats: u64,
    /// The largest sum of values held at the same time, each from the node that makes it to the last that reads it.
    pub step: u64,
    /// The same where what the backward pass reads of the forward pass is held until its end, as for a branch.
    pub branched: u64,
    /// The same of the forward pass alone.
    pub forward: u64,
    /// Operators.
    pub nodes: u64,
}

/// Operators that pass their first input on under other dimensions.
const VIEWS: [&str; 5] = ["Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten"];

/// Values by name: size in bytes, and how long each is held.
struct Lives<'a> {
    /// What a value is a view of, itself if it is none.
    origin: HashMap<&'a str, &'a str>,
    bytes: HashMap<&'a str, u64>,
    /// The last node that reads it.
    last: HashMap<&'a str, usize>,
}

impl TrainingGraph {
    /// What a step on `batch` rows of `length` tokens holds.
    pub fn footprint(&self, batch: usize, length: usize) -> Footprint {
        let numbers = sizes(batch, length);
        let graph = self.for_engines(self.graph.clone());
        let facts = Facts::of_graph_at(&graph, &numbers);
        let bytes = |name: &str| -> u64 {
            let (Some(shape), Some(dtype)) = (facts.shape_at(name, &numbers), facts.dtype(name)) else { return 0 };
            (shape.iter().product::<usize>() * dtype.bits()).div_ceil(8) as u64
        };
        let forward = forward_pass(&graph, &self.forward);
        let early: HashSet<&str> = made(&forward).collect();
        let lives = Lives::of(&graph, &bytes);
        let backward: Vec<bool> =
            graph.nodes.iter().map(|n| !n.outputs.iter().any(|o| early.contains(o.as_str()))).collect();
        let branch = graph.nodes.iter().zip(&backward).filter_map(|(node, late)| late.then_some(node));
        let captured: HashSet<&str> = branch
            .flat_map(Node::reads)
            .filter(|name| early.contains(name))
            .map(|name| lives.origin_of(name))
            .collect();
        let held: u64 = captured.iter().map(|name| lives.bytes_of(name)).sum();
        let unpacks = |node: &&Node| node.is("Cast") || node.is("DequantizeLinear");
        let unpacked: HashSet<&str> = graph.nodes.iter().filter(unpacks).filter_map(|node| node.input(0)).collect();
        let floats = graph.weights.iter().map(|(name, weight)| match unpacked.contains(name.as_str()) {
            true => 4 * weight.len(),
            false => weight.byte_len(),
        });
        let weights = graph.weights.values();
        Footprint {
            weights: weights.clone().map(|weight| weight.byte_len() as u64).sum(),
            in_files: weights.filter(|w| matches!(w.data, Data::File { .. })).map(|w| w.byte_len() as u64).sum(),
            floats: floats.map(|bytes| bytes as u64).sum(),
            step: lives.peak(&graph, |_| true, &HashSet::new()),
            branched: (held + lives.peak(&graph, |i| backward[i], &captured)).max(lives.peak(
                &graph,
                |i| !backward[i],
                &HashSet::new(),
            )),
            forward: Lives::of(&forward, &bytes).peak(&forward, |_| true, &HashSet::new()),
            nodes: graph.nodes.len() as u64,
        }
    }
}

impl<'a> Lives<'a> {
    fn of(graph: &'a Graph, bytes: &dyn Fn(&str) -> u64) -> Self {
        let mut origin: HashMap<&str, &str> = HashMap::new();
        // What is computed from weights alone is a constant to every engine, and no value of the step.
        let mut constant: HashSet<&str> = graph.weights.keys().map(String::as_str).collect();
        let mut sizes: HashMap<&str, u64> = HashMap::new();
        let mut last = HashMap::new();
        for (i, node) in graph.nodes.iter().enumerate() {
            let reads = node.reads();
            let is_constant = reads.iter().all(|name| constant.contains(name));
            for name in reads {
                last.insert(origin.get(name).copied().unwrap_or(name), i);
            }
            for output in node.outputs.iter().map(String::as_str).filter(|name| !name.is_empty()) {
                let view = VIEWS.contains(&node.op.as_str()) && node.domain.is_empty();
                let source = node.input(0).filter(|name| view && !constant.contains(name));
                if is_constant {
                    constant.insert(output);
                    continue;
                }
                match source {
                    Some(source) => {
                        let source = origin.get(source).copied().unwrap_or(source);
                        origin.insert(output, source);
                    }
                    None => {
                        sizes.insert(output, bytes(output));
                    }
                }
            }
        }
        for port in &graph.outputs {
            let name = port.name.as_str();
            last.insert(origin.get(name).copied().unwrap_or(name), graph.nodes.len());
        }
        Lives { origin, bytes: sizes, last }
    }

    fn origin_of(&self, name: &'a str) -> &'a str {
        self.origin.get(name).copied().unwrap_or(name)
    }

    fn bytes_of(&self, name: &str) -> u64 {
        self.bytes.get(name).copied().unwrap_or(0)
    }

    /// The largest sum of values that the nodes chosen make, those `apart` left out.
    fn peak(&self, graph: &'a Graph, chosen: impl Fn(usize) -> bool, apart: &HashSet<&str>) -> u64 {
        let mut ends: HashMap<usize, Vec<&str>> = HashMap::new();
        let (mut held, mut peak) = (0u64, 0u64);
        for (i, node) in graph.nodes.iter().enumerate() {
            if chosen(i) {
                for output in node.outputs.iter().map(String::as_str) {
                    let Some(&bytes) = self.bytes.get(output).filter(|_| !apart.contains(output)) else { continue };
                    held += bytes;
                    ends.entry(self.last.get(output).copied().unwrap_or(i)).or_default().push(output);
                }
                peak = peak.max(held);
            }
            for ended in ends.remove(&i).unwrap_or_default() {
                held -= self.bytes_of(ended);
            }
        }
        peak
    }
}
