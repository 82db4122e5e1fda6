//! Symbolic shape inference: the type, dimensions and, for small integer tensors, the elements of every value.
//!
//! Dimensions are polynomials over symbols (`batch`, `sequence`), so that `Reshape` targets computed in the graph from
//! `Shape`, `Gather`, `Concat` and arithmetic come out exact for any batch and length.
//!
//! Operators are read as opset 21 defines them. What cannot be told stays unknown: a malformed node, or one of an
//! unknown operator, leaves its outputs without facts.

mod compose;
mod context;
mod control;
mod convolution;
mod dim;
mod elementwise;
mod index;
mod inline;
mod linear;
mod movement;
mod ports;
mod programs;
mod reductions;
mod reshape;
mod rules;
mod slice;
#[cfg(test)]
mod tests;
mod view;

use std::collections::HashMap;

pub use dim::{Dim, known_different};
pub use inline::inline_known_branches;
pub use ports::{BATCH, SEQUENCE};
pub(crate) use rules::has_rule;

use crate::ir::{DType, Graph, Node, Weight};

/// Tensors of more elements have no [`Fact::value`].
pub const MAX_VALUE: usize = 64;

/// What is known of one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    /// Element type.
    pub dtype: Option<DType>,
    /// Dimensions, outermost first, if the rank is known.
    pub shape: Option<Vec<Dim>>,
    /// Elements in row-major order, for small integer (and boolean, as 0 and 1) tensors of known content; also for
    /// floats that are computed from whole numbers and are whole themselves, since exporters detour through them.
    pub value: Option<Vec<Dim>>,
}

impl Fact {
    /// A value of known type and dimensions, elements unknown.
    pub fn new(dtype: Option<DType>, shape: Option<Vec<Dim>>) -> Self {
        Fact { dtype, shape, value: None }
    }

    /// All that is to know of a constant.
    pub fn of_weight(weight: &Weight) -> Self {
        let small = weight.shape.iter().try_fold(1usize, |product, &d| product.checked_mul(d));
        let value = match small {
            Some(1) if weight.dtype.is_float() => weight.to_f32s().and_then(|floats| view::whole(&floats)),
            Some(len) if len <= MAX_VALUE => weight.to_i64s(),
            _ => None,
        };
        Fact {
            dtype: Some(weight.dtype),
            shape: Some(weight.shape.iter().map(|&d| Dim::known(i64::try_from(d).unwrap_or(i64::MAX))).collect()),
            value: value.map(|values| values.into_iter().map(Dim::known).collect()),
        }
    }

    /// The same with numbers put for symbols.
    pub fn bind(&self, numbers: &HashMap<String, i64>) -> Self {
        let bind = |dims: &Vec<Dim>| dims.iter().map(|dim| dim.bind(numbers)).collect();
        Fact { dtype: self.dtype, shape: self.shape.as_ref().map(bind), value: self.value.as_ref().map(bind) }
    }
}

/// What is known of every value of a graph.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    facts: HashMap<String, Fact>,
}

impl Facts {
    /// Infers the facts of every value of `graph` from its inputs and weights.
    ///
    /// Integer inputs of rank 2 (token ids, masks, positions) are [`BATCH`] by [`SEQUENCE`] wherever their dimensions
    /// are not numbers, whatever the exporter called them; the names it used mean the same in the other inputs.
    pub fn of_graph(graph: &Graph) -> Self {
        Self::of_graph_at(graph, &HashMap::new())
    }

    /// The same with numbers put for symbols from the start, so that more is decided on the way.
    pub fn of_graph_at(graph: &Graph, numbers: &HashMap<String, i64>) -> Self {
        let mut facts = Self::of_given(graph, numbers);
        for node in &graph.nodes {
            facts.infer_node(node);
        }
        facts
    }

    /// The facts of inputs and weights.
    fn of_given(graph: &Graph, numbers: &HashMap<String, i64>) -> Self {
        let mut facts = Facts::default();
        for (name, fact) in ports::facts_of_inputs(graph) {
            facts.facts.insert(name, fact.bind(numbers));
        }
        for (name, weight) in &graph.weights {
            facts.set(name, Fact::of_weight(weight));
        }
        facts
    }

    /// Infers and records the facts of a node's outputs.
    pub fn infer_node(&mut self, node: &Node) {
        let facts = if node.is("If") { control::branches(self, node) } else { rules::infer(self, node) };
        let mut facts = facts.unwrap_or_default().into_iter();
        for output in &node.outputs {
            let mut fact = facts.next().unwrap_or_default();
            if !output.is_empty() {
                view::drop_impossible(&mut fact);
                self.facts.insert(output.clone(), fact);
            }
        }
    }

    /// All facts with numbers put for symbols.
    pub fn bind(&self, numbers: &HashMap<String, i64>) -> Self {
        Facts { facts: self.facts.iter().map(|(name, fact)| (name.clone(), fact.bind(numbers))).collect() }
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

    /// A value's dimensions as numbers, once `batch`, `sequence` and whatever else they depend on is given.
    pub fn shape_at(&self, name: &str, numbers: &HashMap<String, i64>) -> Option<Vec<usize>> {
        self.shape(name)?.iter().map(|dim| dim.eval(numbers).and_then(|d| usize::try_from(d).ok())).collect()
    }
}

/// The numbers for [`BATCH`] and [`SEQUENCE`], to put for the symbols of facts.
pub fn sizes(batch: usize, sequence: usize) -> HashMap<String, i64> {
    let number = |size| i64::try_from(size).unwrap_or(i64::MAX);
    HashMap::from([(BATCH.to_string(), number(batch)), (SEQUENCE.to_string(), number(sequence))])
}
