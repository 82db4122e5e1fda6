//! Softmax and layer normalisation.

use super::emit::{constant_scalar, mul, reduce, sub};
use super::{Builder, Call, Grads, unbroadcast};
use crate::ir::DType;
use crate::vjp::VjpError;

/// dx = y (dy - sum(dy y)).
pub(super) fn softmax(b: &mut Builder, call: &Call<'_>) -> Grads {
    let axis = call.node.int("axis").unwrap_or(-1);
    let guarded = guarded_output(b, call.y(0)?);
    let y = guarded.as_deref().unwrap_or(call.y(0)?);
    let weighted = mul(b, call.dy()?, y);
    let sum = reduce(b, "ReduceSum", &weighted, &[axis], true);
    let centred = sub(b, call.dy()?, &sum);
    call.first(mul(b, &centred, y))
}

/// z = `Where(IsNaN(y), 0, y)`, if the graph has it. Rows of a softmax that mask everything are NaN; read through z they
/// have no gradient instead of a NaN one.
fn guarded_output(b: &Builder, y: &str) -> Option<String> {
    let reads = |node: &&crate::ir::Node| node.inputs.iter().any(|input| input == y);
    let is_nan = b.graph.nodes.iter().filter(reads).find(|node| node.is("IsNaN"))?.output(0)?;
    let guard = b.graph.nodes.iter().filter(reads).find(|node| {
        let zero = || node.input(1).and_then(|zero| constant_scalar(b, zero)) == Some(0.0);
        node.is("Where") && node.input(0) == Some(is_nan) && node.input(2) == Some(y) && zero()
    })?;
    guard.output(0).map(str::to_string)
}

/// dx = dy - softmax(x) sum(dy).
pub(super) fn log_softmax(b: &mut Builder, call: &Call<'_>) -> Grads {
    let axis = call.node.int("axis").unwrap_or(-1);
    let sum = reduce(b, "ReduceSum", call.dy()?, &[axis], true);
    let probabilities = b.op("Exp", &[call.y(0)?], &[]);
    let part = mul(b, &probabilities, &sum);
    call.first(sub(b, call.dy()?, &part))
}

/// With g = dy gain, c = x - mean, s the inverse deviation and means over the normalised axes:
/// dx = s (g - mean(g) - c s s mean(g c)); d gain = sum(dy c s); d bias = sum(dy).
///
/// In this order no intermediate value is larger than s g or dx: in half precision s^3 overflows where the deviation is below 0.025.
pub(super) fn layer_normalization(b: &mut Builder, call: &Call<'_>) -> Grads {
    let (x, gain, dy) = (call.x(0)?, call.x(1)?, call.dy()?);
    let rank = call.rank(b, x)?;
    let axis = call.axis(call.node.int("axis").unwrap_or(-1), rank)?;
    let axes: Vec<i64> = (axis as i64 - rank as i64..0).collect();
    let mut grads = vec![None; call.node.inputs.len()];
    if call.wants(2) {
        grads[2] = Some(unbroadcast(b, call, dy, call.x(2)?)?);
    }
    if !call.wants(0) && !call.wants(1) {
        return Ok(grads);
    }
    let (mean, deviation) = statistics(b, call)?;
    let centred = sub(b, x, &mean);
    if call.wants(1) {
        let normal = mul(b, &centred, &deviation);
        let full = mul(b, dy, &normal);
        grads[1] = Some(unbroadcast(b, call, &full, gain)?);
    }
    if call.wants(0) {
        let g = mul(b, dy, gain);
        let mean_g = reduce(b, "ReduceMean", &g, &axes, true);
        let gc = mul(b, &g, &centred);
        let mean_gc = reduce(b, "ReduceMean", &gc, &axes, true);
        let mean_gn = mul(b, &mean_gc, &deviation);
        let factor = mul(b, &mean_gn, &deviation);
        let along = mul(b, &centred, &factor);
        let g_centred = sub(b, &g, &mean_g);
        let across = sub(b, &g_centred, &along);
        grads[0] = Some(mul(b, &across, &deviation));
    }
    Ok(grads)
}

/// The forward node's mean and inverse standard deviation, in the input's type; the node is made to return them.
fn statistics(b: &mut Builder, call: &Call<'_>) -> Result<(String, String), VjpError> {
    let y = call.y(0)?;
    let mut names = Vec::new();
    for (i, hint) in [(1, "mean"), (2, "inv_std")] {
        names.push(call.node.output(i).map_or_else(|| b.fresh(hint), str::to_string));
    }
    let node = b.graph.nodes.iter_mut().find(|node| node.output(0) == Some(y));
    let node = node.ok_or_else(|| call.error("it is not a node of the graph being differentiated"))?;
    node.outputs = vec![y.to_string(), names[0].clone(), names[1].clone()];
    let node = node.clone();
    b.facts.infer_node(&node);
    let dtype = b.facts.dtype(call.x(0)?).unwrap_or(DType::F32);
    let [mean, deviation] = [&names[0], &names[1]].map(|name| b.cast(name, dtype));
    Ok((mean, deviation))
}
