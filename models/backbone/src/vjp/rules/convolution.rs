//! Convolutions with frozen weights.

use super::{Builder, Call, Grads};
use crate::shape::Fact;

/// dX = `ConvTranspose`(dY, W), which reads W as it is stored. With a stride the places it skips would have to be filled in.
pub(super) fn conv(b: &mut Builder, call: &Call<'_>) -> Grads {
    if call.wants(1) || call.wants(2) {
        return Err(call.error("a convolution's own weights are not trained; place adapters elsewhere"));
    }
    if call.node.ints("strides").is_some_and(|strides| strides.iter().any(|&stride| stride != 1)) {
        return Err(call.error("a convolution with a stride has no rule"));
    }
    if !["NOTSET", "VALID"].contains(&call.node.str("auto_pad").unwrap_or("NOTSET")) {
        return Err(call.error("a convolution has a rule with explicit pads alone; re-export without auto_pad"));
    }
    let kept = ["dilations", "group", "kernel_shape", "pads", "strides"];
    let attributes: Vec<_> =
        kept.into_iter().filter_map(|name| Some((name, call.node.attrs.get(name)?.clone()))).collect();
    let grad = b.op("ConvTranspose", &[call.dy()?, call.x(1)?], &attributes);
    if let Some(fact) = b.facts.get(call.x(0)?).cloned() {
        b.facts.set(&grad, Fact::new(fact.dtype, fact.shape));
    }
    call.first(grad)
}
