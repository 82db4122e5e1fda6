//! Less memory for more time: the backward pass computes a block's inner values again instead of finding them kept.
//!
//! What enters each block is kept. The nodes between it and what the backward pass reads of the block are copied to where that
//! reads them, with what enters the block taken through `Where(c, x, x)`, `c` made from the cotangent that arrives at the block:
//! so they can neither run earlier nor be merged with those they are copies of. The last block's values are read at once and
//! stay as they are. (Chen et al. 2016, "Training deep nets with sublinear memory cost", in one graph.)

use std::collections::{HashMap, HashSet};

use super::layout::passes;
use crate::ir::{Attr, Builder, DType, Graph, Node};
use crate::shape::Facts;

/// A block whose inner values can be computed again.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    /// The value that enters it.
    pub(super) stream: String,
    /// The cotangent of the value that leaves it; none of the last block's.
    pub(super) arriving: Option<String>,
}

/// Makes the nodes that the values `forward` do not need read no inner value of a stage but copies made when its cotangent is
/// there.
pub(super) fn recompute(graph: &Graph, forward: &[String], stages: &[Stage]) -> Graph {
    let (first, second) = passes(graph, forward);
    let mut pass = Pass::new(graph, first, stages);
    for node in second {
        let mut own = node.clone();
        for input in &mut own.inputs {
            if let Some(copy) = pass.again(input) {
                *input = copy;
            }
        }
        pass.builder.push_known(own);
        pass.arrived.extend(node.outputs.iter().map(String::as_str));
    }
    pass.builder.graph
}

struct Pass<'a> {
    builder: Builder,
    forward: Vec<&'a Node>,
    /// Where in `forward` each value is made.
    producers: HashMap<&'a str, usize>,
    /// The stage whose stream each value depends on, and no later one's.
    stage_of: HashMap<&'a str, usize>,
    stages: &'a [Stage],
    copies: HashMap<&'a str, String>,
    /// What the backward pass has made by now.
    arrived: HashSet<&'a str>,
}

impl<'a> Pass<'a> {
    fn new(graph: &Graph, forward: Vec<&'a Node>, stages: &'a [Stage]) -> Self {
        let shell = Graph { nodes: Vec::new(), ..graph.clone() };
        let mut builder = Builder::new(shell, Facts::default());
        builder.reserve(graph);
        let (mut producers, mut stage_of) = (HashMap::new(), HashMap::new());
        for (i, &node) in forward.iter().enumerate() {
            builder.push_known(node.clone());
            let inherited = node.reads().iter().filter_map(|value| stage_of.get(*value).copied()).max();
            for output in node.outputs.iter().map(String::as_str).filter(|output| !output.is_empty()) {
                producers.insert(output, i);
                let entered = stages.iter().position(|stage| stage.stream == output);
                if let Some(stage) = entered.or(inherited) {
                    stage_of.insert(output, stage);
                }
            }
        }
        Pass { builder, forward, producers, stage_of, stages, copies: HashMap::new(), arrived: HashSet::new() }
    }

    /// The copy of an inner value, made if it is not there yet; none for what stays as it is.
    fn again(&mut self, value: &str) -> Option<String> {
        if let Some(copy) = self.copies.get(value) {
            return Some(copy.clone());
        }
        let (&value, &stage) = self.stage_of.get_key_value(value)?;
        let arriving = self.stages[stage].arriving.as_ref()?;
        if !self.is_inner(value, stage) || !self.arrived.contains(arriving.as_str()) {
            return None;
        }
        for i in self.between(value, stage) {
            self.copy(self.forward[i], stage, arriving);
        }
        self.copies.get(value).cloned()
    }

    /// Whether a value of a stage is neither what enters it nor made by a subgraph.
    fn is_inner(&self, value: &str, stage: usize) -> bool {
        let node = self.producers.get(value).map(|&i| self.forward[i]);
        let plain = node.is_some_and(|node| !node.attrs.values().any(|attr| matches!(attr, Attr::Graph(_))));
        plain && value != self.stages[stage].stream && self.stage_of.get(value) == Some(&stage)
    }

    /// The nodes that make `value` from what enters its stage, in order.
    fn between(&self, value: &'a str, stage: usize) -> Vec<usize> {
        let (mut open, mut found) = (vec![value], HashSet::new());
        while let Some(value) = open.pop() {
            if self.copies.contains_key(value) || !self.is_inner(value, stage) {
                continue;
            }
            let i = self.producers[value];
            if found.insert(i) {
                open.extend(self.forward[i].inputs.iter().map(String::as_str));
            }
        }
        let mut found: Vec<usize> = found.into_iter().collect();
        found.sort_unstable();
        found
    }

    fn copy(&mut self, node: &'a Node, stage: usize, arriving: &str) {
        let mut copy = Node { name: String::new(), ..node.clone() };
        for input in &mut copy.inputs {
            if *input == self.stages[stage].stream {
                *input = self.entering(&self.stages[stage].stream, arriving);
            } else if let Some(name) = self.copies.get(input.as_str()) {
                input.clone_from(name);
            }
        }
        for (output, original) in copy.outputs.iter_mut().zip(&node.outputs).filter(|(_, name)| !name.is_empty()) {
            *output = self.builder.fresh(original);
            self.copies.insert(original, output.clone());
        }
        self.builder.push_known(copy);
    }

    /// What enters a stage, once its cotangent is there.
    fn entering(&mut self, stream: &'a str, arriving: &str) -> String {
        if let Some(copy) = self.copies.get(stream) {
            return copy.clone();
        }
        let b = &mut self.builder;
        let flat = b.ints(&[-1]);
        let flat = b.op("Reshape", &[arriving, &flat], &[]);
        let first = b.ints(&[0]);
        let first = b.op("Gather", &[&flat, &first], &[]);
        let any = b.op("Cast", &[&first], &[("to", Attr::Int(DType::Bool.onnx()))]);
        let copy = b.op("Where", &[&any, stream, stream], &[]);
        self.copies.insert(stream, copy.clone());
        copy
    }
}
