//! Nodes, ports and the graph that holds them.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{DType, Weight};

/// A node's attribute.
#[derive(Clone, Debug)]
pub enum Attr {
    /// One integer.
    Int(i64),
    /// One float.
    Float(f32),
    /// One string.
    Str(String),
    /// Several integers.
    Ints(Vec<i64>),
    /// Several floats.
    Floats(Vec<f32>),
    /// Several strings.
    Strs(Vec<String>),
    /// A tensor.
    Tensor(Weight),
    /// A subgraph, which may refer to values of the graphs around it.
    Graph(Box<Graph>),
}

/// One operator applied to named values.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// The exporter's name for it, for messages; may be empty.
    pub name: String,
    /// Operator, such as `MatMul`.
    pub op: String,
    /// Operator set; empty for ONNX's own.
    pub domain: String,
    /// Names of the values read; empty for an optional input left out.
    pub inputs: Vec<String>,
    /// Names of the values made; empty for an optional output left out.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attrs: BTreeMap<String, Attr>,
}

impl Node {
    /// The i-th input's name, if it is there.
    pub fn input(&self, i: usize) -> Option<&str> {
        self.inputs.get(i).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The i-th output's name, if it is there.
    pub fn output(&self, i: usize) -> Option<&str> {
        self.outputs.get(i).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attrs.get(name) {
            Some(Attr::Int(v)) => Some(*v),
            _ => None,
        }
    }

    /// A float attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attrs.get(name) {
            Some(Attr::Float(v)) => Some(*v),
            _ => None,
        }
    }

    /// An integer-list attribute.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attrs.get(name) {
            Some(Attr::Ints(v)) => Some(v),
            _ => None,
        }
    }

    /// A string attribute.
    pub fn str(&self, name: &str) -> Option<&str> {
        match self.attrs.get(name) {
            Some(Attr::Str(v)) => Some(v),
            _ => None,
        }
    }

    /// Whether this is ONNX's own operator `op`.
    pub fn is(&self, op: &str) -> bool {
        self.op == op && self.domain.is_empty()
    }

    /// Operator with its domain, as messages show it: `MatMul`, `com.microsoft::Attention`.
    pub fn op_name(&self) -> String {
        if self.domain.is_empty() { self.op.clone() } else { format!("{}::{}", self.domain, self.op) }
    }

    /// How messages name this node: its own name, or the value it makes.
    pub fn label(&self) -> &str {
        if self.name.is_empty() { self.outputs.first().map_or("?", String::as_str) } else { &self.name }
    }

    /// Every value this node reads, those captured by its subgraphs included.
    pub fn reads(&self) -> Vec<&str> {
        let own = self.inputs.iter().map(String::as_str).filter(|name| !name.is_empty());
        let captured = self.attrs.values().filter_map(|attr| match attr {
            Attr::Graph(graph) => Some(graph.captures()),
            _ => None,
        });
        own.chain(captured.flatten()).collect()
    }
}

/// A dimension of a graph input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortDim {
    /// A fixed size.
    Known(usize),
    /// A size that varies, by name.
    Symbol(String),
    /// A size of which nothing is said.
    Unknown,
}

/// A graph input or output.
#[derive(Clone, Debug)]
pub struct Port {
    /// The value's name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, if the rank is stated.
    pub shape: Option<Vec<PortDim>>,
}

/// Nodes in an order in which every value is made before it is read.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The exporter's name for it.
    pub name: String,
    /// Operators in topological order.
    pub nodes: Vec<Node>,
    /// Constant values by name.
    pub weights: BTreeMap<String, Weight>,
    /// What is fed.
    pub inputs: Vec<Port>,
    /// What is returned.
    pub outputs: Vec<Port>,
}

impl Graph {
    /// Index of the node that makes each value.
    pub fn producers(&self) -> HashMap<&str, usize> {
        let mut map = HashMap::new();
        for (i, node) in self.nodes.iter().enumerate() {
            map.extend(node.outputs.iter().filter(|o| !o.is_empty()).map(|o| (o.as_str(), i)));
        }
        map
    }

    /// Indices of the nodes that read each value, captured values included.
    pub fn consumers(&self) -> HashMap<&str, Vec<usize>> {
        let mut map: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, node) in self.nodes.iter().enumerate() {
            for value in node.reads() {
                let readers = map.entry(value).or_default();
                if readers.last() != Some(&i) {
                    readers.push(i);
                }
            }
        }
        map
    }

    /// The number a constant of one element holds.
    pub fn number(&self, value: &str) -> Option<f32> {
        let weight = self.weights.get(value).filter(|weight| weight.len() == 1)?;
        let float = || weight.to_f32s()?.first().copied();
        let int = || weight.to_i64s()?.first().map(|&v| v as f32);
        float().or_else(int)
    }

    /// Values of the enclosing graphs that this graph reads.
    pub fn captures(&self) -> Vec<&str> {
        let mut own: HashSet<&str> = self.weights.keys().map(String::as_str).collect();
        own.extend(self.inputs.iter().map(|p| p.name.as_str()));
        own.extend(self.nodes.iter().flat_map(|n| n.outputs.iter().map(String::as_str)));
        let reads = self.nodes.iter().flat_map(Node::reads);
        let outputs = self.outputs.iter().map(|p| p.name.as_str());
        reads.chain(outputs).filter(|value| !own.contains(value)).collect()
    }

    /// Drops the nodes and weights that no output needs.
    pub fn prune(&mut self) {
        let mut needed: HashSet<String> = self.outputs.iter().map(|p| p.name.clone()).collect();
        let mut keep = vec![false; self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate().rev() {
            if node.outputs.iter().any(|o| needed.contains(o)) {
                keep[i] = true;
                needed.extend(node.reads().into_iter().map(str::to_string));
            }
        }
        let mut flags = keep.into_iter();
        self.nodes.retain(|_| flags.next().unwrap_or(false));
        self.weights.retain(|name, _| needed.contains(name));
    }

    /// Makes every node that reads `from` read `to` instead. Subgraphs and graph outputs keep what they read.
    pub fn redirect(&mut self, from: &str, to: &str) {
        for input in self.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
            if input == from {
                *input = to.to_string();
            }
        }
    }
}
