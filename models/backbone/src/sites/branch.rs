//! The query and value projections, where parallel branches go.

use std::collections::HashSet;

use super::{Site, SiteKind, View};
use crate::ir::Node;

/// The query and value projections of the block whose attention output projection reads `context`.
///
/// Backwards from `context` lies `MatMul(probabilities, value)`; behind the probabilities' `Softmax` lies
/// `MatMul(query, key)`. The first projection behind `value` and behind `query` are the two; with a fused projection
/// both are the same and only the query site is returned.
pub(super) fn query_and_value(view: &View<'_>, context: &str, block: usize) -> Vec<Site> {
    let Some(mix) = mix(view, context) else { return Vec::new() };
    let query = mix
        .input(0)
        .and_then(|p| first_behind(view, p, |node| node.is("Softmax")))
        .and_then(|softmax| {
            first_behind(view, softmax.input(0)?, |node| node.is("MatMul") && !view.is_projection(node))
        })
        .and_then(|scores| projection_behind(view, scores.input(0)?));
    let value = mix.input(1).and_then(|v| projection_behind(view, v));
    let fused = match (query, value) {
        (Some(q), Some(v)) => std::ptr::eq(q, v),
        _ => false,
    };
    let query = query.and_then(|node| site(view, node, block, SiteKind::Query));
    let value = value.filter(|_| !fused).and_then(|node| site(view, node, block, SiteKind::Value));
    query.into_iter().chain(value).collect()
}

/// The probabilities of the attention whose output projection reads `context`, `[.., query, key]`.
pub(crate) fn probabilities<'a>(view: &View<'a>, context: &'a str) -> Option<&'a str> {
    mix(view, context)?.input(0)
}

/// The product of probabilities and values nearest behind `context`.
fn mix<'a>(view: &View<'a>, context: &'a str) -> Option<&'a Node> {
    first_behind(view, context, |node| node.is("MatMul") && node.input(0).is_some_and(|p| reaches_softmax(view, p)))
}

/// The nearest projection behind `value`.
pub(crate) fn projection_behind<'a>(view: &View<'a>, value: &'a str) -> Option<&'a Node> {
    first_behind(view, value, |node| view.is_projection(node))
}

/// Whether `tensor` is computed from a projection of `input` and nothing else: a bias may be added, a reshape follow, adapters
/// be part of the graph.
pub(super) fn is_projection_of<'a>(view: &View<'a>, tensor: &'a str, input: &str) -> bool {
    let mut pending = vec![tensor];
    let mut seen = HashSet::new();
    let mut projects = false;
    while let Some(value) = pending.pop() {
        if value == input || !seen.insert(value) {
            continue;
        }
        let Some(node) = view.producer(value) else { return false };
        let float = |value: &&str| view.facts.dtype(value).is_none_or(|t| t.is_float());
        let is_data = |value: &&str| !value.is_empty() && float(value) && !view.is_constant(value);
        let data: Vec<&str> = node.inputs.iter().map(String::as_str).filter(is_data).collect();
        let projection = view.is_projection(node);
        projects |= projection && node.input(0) == Some(input);
        if data.is_empty() || node.is("Softmax") || (node.is("MatMul") && !projection) {
            return false;
        }
        pending.extend(data);
    }
    projects
}

/// Breadth-first backwards over floating-point values to the nearest node that fits.
fn first_behind<'a>(view: &View<'a>, value: &'a str, fits: impl Fn(&Node) -> bool) -> Option<&'a Node> {
    let mut pending = std::collections::VecDeque::from([value]);
    let mut seen = HashSet::new();
    while let Some(value) = pending.pop_front() {
        if !seen.insert(value) {
            continue;
        }
        let Some(node) = view.producer(value) else { continue };
        if fits(node) {
            return Some(node);
        }
        pending.extend(
            node.inputs.iter().map(String::as_str).filter(|v| view.facts.dtype(v).is_none_or(|t| t.is_float())),
        );
    }
    None
}

/// Whether a `Softmax` lies behind `value` with no matrix product between.
fn reaches_softmax(view: &View<'_>, value: &str) -> bool {
    first_behind(view, value, |node| node.is("Softmax") || node.is("MatMul")).is_some_and(|node| node.is("Softmax"))
}

fn site(view: &View<'_>, projection: &Node, block: usize, kind: SiteKind) -> Option<Site> {
    let projection = view.producer(projection.output(0)?)?;
    let tensor = view.with_bias(projection)?;
    let input = projection.input(0)?;
    Some(Site {
        id: kind.id(block),
        block,
        kind,
        tensor: tensor.to_string(),
        input: input.to_string(),
        width_in: view.width(input)?,
        width_out: view.width(tensor)?,
    })
}
