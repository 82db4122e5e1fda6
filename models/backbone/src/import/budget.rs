//! How much a model may unfold into.
//!
//! Functions call functions and hand graphs on, so that a file of a few kilobytes can stand for any number of nodes. What
//! is copied is counted before it is.

use std::collections::BTreeMap;
use std::mem::size_of;

use super::ImportError;
use crate::ir::{Attr, Graph, Node, Port, PortDim, Weight};

/// Nodes a model may have once its functions are inlined.
const MAX_NODES: usize = 1_000_000;

/// Bytes of names, attributes and function bodies that may be copied on the way.
const MAX_BYTES: usize = 1 << 28;

/// What a model has unfolded into so far.
#[derive(Default)]
pub(super) struct Budget {
    nodes: usize,
    bytes: usize,
}

impl Budget {
    /// Takes note of `count` more nodes.
    pub(super) fn nodes(&mut self, count: usize) -> Result<(), ImportError> {
        self.nodes = self.nodes.saturating_add(count);
        if self.nodes > MAX_NODES {
            return Err(ImportError::model(format!("the model has more than {MAX_NODES} nodes, functions inlined")));
        }
        Ok(())
    }

    /// Takes note of `count` more bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Result<(), ImportError> {
        self.bytes = self.bytes.saturating_add(count);
        if self.bytes > MAX_BYTES {
            let limit = MAX_BYTES >> 20;
            let message = format!("inlining the model's functions takes more than {limit} MiB: export it inlined");
            return Err(ImportError::model(message));
        }
        Ok(())
    }

    /// A copy of `attr`, its subgraphs' nodes counted.
    pub(super) fn copy(&mut self, attr: &Attr) -> Result<Attr, ImportError> {
        let size = Size::of(attr);
        self.nodes(size.nodes)?;
        self.bytes(size.bytes)?;
        Ok(attr.clone())
    }
}

/// What a copy takes. In memory a constant's elements are shared, in the files written later they are not.
#[derive(Default)]
struct Size {
    nodes: usize,
    bytes: usize,
}

impl Size {
    fn of(attr: &Attr) -> Self {
        let mut size = Size::default();
        size.add_attr(attr);
        size
    }

    fn add_attr(&mut self, attr: &Attr) {
        self.bytes += size_of::<Attr>();
        match attr {
            Attr::Int(_) | Attr::Float(_) => {}
            Attr::Str(text) => self.add_text(text),
            Attr::Ints(values) => self.bytes += size_of::<i64>() * values.len(),
            Attr::Floats(values) => self.bytes += size_of::<f32>() * values.len(),
            Attr::Strs(texts) => texts.iter().for_each(|text| self.add_text(text)),
            Attr::Tensor(weight) => self.add_weight(weight),
            Attr::Graph(graph) => self.add_graph(graph),
        }
    }

    fn add_graph(&mut self, graph: &Graph) {
        self.bytes += size_of::<Graph>();
        self.add_text(&graph.name);
        graph.inputs.iter().chain(&graph.outputs).for_each(|port| self.add_port(port));
        for (name, weight) in &graph.weights {
            self.add_text(name);
            self.add_weight(weight);
        }
        graph.nodes.iter().for_each(|node| self.add_node(node));
    }

    fn add_node(&mut self, node: &Node) {
        self.nodes += 1;
        self.bytes += size_of::<Node>();
        let texts = [&node.name, &node.op, &node.domain].into_iter().chain(&node.inputs).chain(&node.outputs);
        texts.for_each(|text| self.add_text(text));
        self.add_attrs(&node.attrs);
    }

    fn add_attrs(&mut self, attrs: &BTreeMap<String, Attr>) {
        for (name, attr) in attrs {
            self.add_text(name);
            self.add_attr(attr);
        }
    }

    fn add_port(&mut self, port: &Port) {
        self.bytes += size_of::<Port>();
        self.add_text(&port.name);
        for dim in port.shape.iter().flatten() {
            self.bytes += size_of::<PortDim>();
            if let PortDim::Symbol(name) = dim {
                self.add_text(name);
            }
        }
    }

    fn add_weight(&mut self, weight: &Weight) {
        self.bytes += size_of::<Weight>() + size_of::<usize>() * weight.shape.len() + weight.byte_len();
    }

    fn add_text(&mut self, text: &str) {
        self.bytes += size_of::<String>() + text.len();
    }
}
