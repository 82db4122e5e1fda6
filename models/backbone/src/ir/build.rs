//! Adding nodes to a graph, with the facts of every new value known at once.

use std::collections::{BTreeMap, HashSet};

use super::{Attr, DType, Graph, Node, Weight};
use crate::shape::{Dim, Fact, Facts};

/// Appends nodes to a graph and keeps its [`Facts`] up to date. New values get names no other value has.
pub struct Builder {
    /// The graph being built.
    pub graph: Graph,
    /// What is known of every value in it.
    pub facts: Facts,
    taken: HashSet<String>,
    counter: usize,
}

impl Builder {
    /// Starts from a graph whose facts are known.
    pub fn new(graph: Graph, facts: Facts) -> Self {
        let mut taken: HashSet<String> = graph.weights.keys().cloned().collect();
        taken.extend(graph.inputs.iter().map(|p| p.name.clone()));
        taken.extend(graph.nodes.iter().flat_map(|n| n.outputs.iter().cloned()));
        Builder { graph, facts, taken, counter: 0 }
    }

    /// A name no value has, beginning with `hint`.
    pub fn fresh(&mut self, hint: &str) -> String {
        loop {
            let name = format!("{hint}~{}", self.counter);
            self.counter += 1;
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }

    /// Appends `op` with one output and returns the output's name.
    pub fn op(&mut self, op: &str, inputs: &[&str], attrs: &[(&str, Attr)]) -> String {
        let output = self.fresh(op);
        self.push(op, inputs, &[&output], attrs);
        output
    }

    /// Appends `op` with several outputs and returns their names.
    pub fn op_n(&mut self, op: &str, inputs: &[&str], outputs: usize, attrs: &[(&str, Attr)]) -> Vec<String> {
        let names: Vec<String> = (0..outputs).map(|_| self.fresh(op)).collect();
        self.push(op, inputs, &names.iter().map(String::as_str).collect::<Vec<_>>(), attrs);
        names
    }

    /// Appends `op` making the named outputs.
    pub fn push(&mut self, op: &str, inputs: &[&str], outputs: &[&str], attrs: &[(&str, Attr)]) {
        let attrs: BTreeMap<String, Attr> = attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
        self.push_node(Node {
            name: String::new(),
            op: op.to_string(),
            domain: String::new(),
            inputs: inputs.iter().map(|s| s.to_string()).collect(),
            outputs: outputs.iter().map(|s| s.to_string()).collect(),
            attrs,
        });
    }

    /// Keeps every name that occurs in `graph` from being given to a new value.
    pub fn reserve(&mut self, graph: &Graph) {
        self.taken.extend(graph.nodes.iter().flat_map(|n| n.outputs.iter().cloned()));
    }

    /// Appends a node whose outputs' facts are known already.
    pub fn push_known(&mut self, node: Node) {
        self.taken.extend(node.outputs.iter().cloned());
        self.graph.nodes.push(node);
    }

    /// Appends a whole node.
    pub fn push_node(&mut self, node: Node) {
        self.taken.extend(node.outputs.iter().cloned());
        self.facts.infer_node(&node);
        self.graph.nodes.push(node);
    }

    /// Adds a constant and returns its name.
    pub fn constant(&mut self, hint: &str, weight: Weight) -> String {
        let name = self.fresh(hint);
        self.facts.set(&name, Fact::of_weight(&weight));
        self.graph.weights.insert(name.clone(), weight);
        name
    }

    /// A one-dimensional constant of integers: axes, shapes, starts and ends.
    pub fn ints(&mut self, values: &[i64]) -> String {
        self.constant("ints", Weight::i64s(&[values.len()], values))
    }

    /// A scalar float constant (rank 0).
    pub fn scalar(&mut self, value: f32) -> String {
        self.constant("scalar", Weight::f32s(&[], &[value]))
    }

    /// A scalar constant of the float type of `like`, so that both may meet in one operator.
    pub fn scalar_like(&mut self, value: f32, like: &str) -> String {
        let scalar = self.scalar(value);
        self.cast(&scalar, self.facts.dtype(like).unwrap_or(DType::F32))
    }

    /// `value` as `dtype`; the value itself if that is its type already.
    pub fn cast(&mut self, value: &str, dtype: DType) -> String {
        if self.facts.dtype(value) == Some(dtype) {
            return value.to_string();
        }
        self.op("Cast", &[value], &[("to", Attr::Int(dtype.onnx()))])
    }

    /// Symbolic dimensions of `value`, if its rank is known.
    pub fn dims(&self, value: &str) -> Option<Vec<Dim>> {
        self.facts.shape(value).map(<[Dim]>::to_vec)
    }
}
