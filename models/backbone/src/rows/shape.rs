//! The rows a node works on.

use std::collections::HashMap;

use crate::ir::{DType, Graph, Node};
use crate::shape::{Dim, Facts};

use super::translate;

/// The shape that all values of a node have or are broadcast to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    /// Every axis but the last.
    lead: Vec<Dim>,
    /// The last axis; none where each row has one number.
    width: Option<Dim>,
}

impl Rows {
    fn of(dims: &[Dim]) -> Option<Self> {
        let (width, lead) = dims.split_last()?;
        let width = (width.as_known() != Some(1)).then(|| width.clone());
        (!lead.is_empty()).then(|| Rows { lead: lead.to_vec(), width })
    }

    /// The rows of a program that works on both.
    pub(super) fn with(&self, other: &Rows) -> Option<Rows> {
        let width = self.width.as_ref().or(other.width.as_ref()).cloned();
        let agrees = |own: &Option<Dim>| own.is_none() || *own == width;
        (self.lead == other.lead && agrees(&self.width) && agrees(&other.width)).then(|| Rows { width, ..self.clone() })
    }

    /// Whether a value of the shape `dims` is broadcast to these rows, or has one number for each.
    fn takes(&self, dims: &[Dim]) -> bool {
        let Some((width, lead)) = dims.split_last() else { return true };
        let Some(ahead) = self.lead.len().checked_sub(lead.len()) else { return false };
        let fits = |(dim, own): (&Dim, &Dim)| dim == own || dim.as_known() == Some(1);
        let width = width.as_known() == Some(1) || self.width.as_ref() == Some(width);
        width && lead.iter().zip(&self.lead[ahead..]).all(fits)
    }

    /// Whether a value of the shape `dims` has all these rows, whole or one number for each.
    fn is_shape(&self, dims: &[Dim]) -> bool {
        dims.len() == self.lead.len() + 1 && self.takes(dims) && dims[..self.lead.len()] == self.lead[..]
    }
}

/// The rows `node` works on, if a program could take its place.
pub(super) fn rows_of(
    node: &Node,
    graph: &Graph,
    facts: &Facts,
    consumers: &HashMap<&str, Vec<usize>>,
) -> Option<Rows> {
    if !translate::covers(node, graph, facts) {
        return None;
    }
    let shape = |value: &String| facts.shape(value);
    let reads: Vec<&String> = translate::tensors(node).collect();
    // A reduction's rows are its input's.
    let widest = if node.op.starts_with("Reduce") { reads.first()? } else { node.outputs.first()? };
    let rows = Rows::of(shape(widest)?)?;
    let number = |value: &String| facts.dtype(value) == Some(DType::F32);
    let decides = |at: usize, value: &String| at == 0 && node.is("Where") && is_guard(value, graph, consumers);
    let takes = |(at, value): (usize, &&String)| {
        (number(value) || decides(at, value)) && shape(value).is_some_and(|dims| rows.takes(dims))
    };
    let makes = |value: &String| {
        (number(value) || is_guard(value, graph, consumers)) && shape(value).is_some_and(|dims| rows.is_shape(dims))
    };
    let made = node.outputs.iter().filter(|output| !output.is_empty()).all(makes);
    (made && reads.iter().enumerate().all(takes)).then_some(rows)
}

/// Whether `IsNaN` makes a value, and `Where` alone reads it, to decide by.
fn is_guard(value: &str, graph: &Graph, consumers: &HashMap<&str, Vec<usize>>) -> bool {
    let made = graph.nodes.iter().any(|node| node.is("IsNaN") && node.output(0) == Some(value));
    let decides = |&at: &usize| {
        let node = &graph.nodes[at];
        node.is("Where") && node.input(0) == Some(value) && node.inputs[1..].iter().all(|input| input != value)
    };
    made && consumers.get(value).is_some_and(|readers| readers.iter().all(decides))
}
