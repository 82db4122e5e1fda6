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
    let Some(mix) = first_behind(view, context, |node| {
        node.is("MatMul") && node.input(0).is_some_and(|p| reaches_softmax(view, p))
    }) else {
        return Vec::new();
    };
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

fn projection_behind<'a>(view: &View<'a>, value: &'a str) -> Option<&'a Node> {
    first_behind(view, value, |node| view.is_projection(node))
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
    let name = match kind {
        SiteKind::Query => "query",
        SiteKind::Value => "value",
        SiteKind::Attn => "attn",
        SiteKind::Mlp => "mlp",
    };
    Some(Site {
        id: format!("{block}.{name}"),
        block,
        kind,
        tensor: tensor.to_string(),
        input: input.to_string(),
        width_in: view.width(input)?,
        width_out: view.width(tensor)?,
    })
}
