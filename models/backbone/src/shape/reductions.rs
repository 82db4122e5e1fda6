//! Operators that reduce along axes, and normalisations.

use super::context::{Context, one, resolve_axis};
use super::elementwise::of_onnx;
use super::view::fill;
use super::{Dim, Fact};
use crate::ir::DType;

/// The shape with `axes` reduced to 1 (`keep`) or dropped.
fn reduced(shape: &[Dim], axes: &[usize], keep: bool) -> Vec<Dim> {
    let dims = shape.iter().enumerate();
    let kept = dims.filter(|(axis, _)| keep || !axes.contains(axis));
    kept.map(|(axis, dim)| if axes.contains(&axis) { Dim::known(1) } else { dim.clone() }).collect()
}

fn keeps(cx: &Context) -> bool {
    cx.node.int("keepdims").unwrap_or(1) != 0
}

/// `ReduceSum` and its kin; no axes means all of them.
pub(super) fn reduce(cx: &Context) -> Option<Vec<Fact>> {
    let fact = cx.fact(0)?;
    let Some(shape) = fact.shape.as_deref() else { return one(fact.dtype, None) };
    let axes = if cx.has(1) { cx.ints(1) } else { Some(cx.node.ints("axes").unwrap_or_default().to_vec()) };
    let Some(axes) = axes else {
        return one(fact.dtype, keeps(cx).then(|| cx.unknown_shape(0, shape.len())));
    };
    if axes.is_empty() && cx.node.int("noop_with_empty_axes").unwrap_or(0) != 0 {
        return one(fact.dtype, fact.shape.clone());
    }
    let axes: Vec<usize> = match axes.as_slice() {
        [] => (0..shape.len()).collect(),
        axes => axes.iter().map(|&axis| resolve_axis(axis, shape.len())).collect::<Option<_>>()?,
    };
    let value = elements(cx, shape, &axes);
    Some(vec![Fact { dtype: fact.dtype, shape: Some(reduced(shape, &axes, keeps(cx))), value }])
}

fn elements(cx: &Context, shape: &[Dim], axes: &[usize]) -> Option<Vec<Dim>> {
    let f: fn(&Dim, &Dim) -> Dim = match cx.node.op.as_str() {
        "ReduceSum" => |a, b| a + b,
        "ReduceProd" => |a, b| a * b,
        "ReduceMax" => Dim::max,
        "ReduceMin" => Dim::min,
        _ => return None,
    };
    let sizes = cx.sizes(0)?;
    let view = cx.view(0, &sizes)?;
    let along: Vec<Dim> =
        shape.iter().enumerate().map(|(i, dim)| if axes.contains(&i) { dim.clone() } else { Dim::known(1) }).collect();
    fill(&reduced(shape, axes, true), |index| {
        let parts = fill(&along, |offset| {
            let own: Vec<usize> = index.iter().zip(offset).map(|(i, offset)| i + offset).collect();
            view.at(&own).cloned()
        })?;
        let (first, rest) = parts.split_first()?;
        Some(rest.iter().fold(first.clone(), |result, part| f(&result, part)))
    })
}

/// `ArgMax` and `ArgMin`.
pub(super) fn arg(cx: &Context) -> Option<Vec<Fact>> {
    let shape = match cx.shape(0) {
        Some(shape) => Some(reduced(shape, &[cx.axis(0, shape.len())?], keeps(cx))),
        None => None,
    };
    one(Some(DType::I64), shape)
}

/// `TopK`: values and indices.
pub(super) fn top_k(cx: &Context) -> Option<Vec<Fact>> {
    let shape = match cx.shape(0) {
        Some(shape) => {
            let axis = cx.axis(-1, shape.len())?;
            let mut out = shape.to_vec();
            out[axis] = cx.value(1).and_then(<[Dim]>::first).cloned().unwrap_or_else(|| cx.unknown(0, axis));
            Some(out)
        }
        None => None,
    };
    Some(vec![Fact::new(cx.dtype(0), shape.clone()), Fact::new(Some(DType::I64), shape)])
}

/// `LayerNormalization`: output, mean and inverse standard deviation.
pub(super) fn layer_normalization(cx: &Context) -> Option<Vec<Fact>> {
    let fact = cx.fact(0)?;
    let statistics = match fact.shape.as_deref() {
        Some(shape) => {
            let axes: Vec<usize> = (cx.axis(-1, shape.len())?..shape.len()).collect();
            Some(reduced(shape, &axes, true))
        }
        None => None,
    };
    let stash = Fact::new(cx.node.int("stash_type").map_or(Some(DType::F32), of_onnx), statistics);
    Some(vec![Fact::new(fact.dtype, fact.shape.clone()), stash.clone(), stash])
}

/// `SoftmaxCrossEntropyLoss` (loss and log-probabilities) and `NegativeLogLikelihoodLoss`.
pub(super) fn loss(cx: &Context) -> Option<Vec<Fact>> {
    let whole = cx.node.str("reduction").unwrap_or("mean") != "none";
    let shape = if whole { Some(Vec::new()) } else { cx.shape(1).map(<[Dim]>::to_vec) };
    let scores = cx.fact(0)?;
    Some(vec![Fact::new(scores.dtype, shape), Fact::new(scores.dtype, scores.shape.clone())])
}
