//! Activation functions that are one operator.

use super::emit::{add, keep_where, mul, offset, scale, sub};
use super::unary::one_minus;
use super::{Builder, Call, Grads};
use crate::ir::{Attr, DType};

/// dx = dy where y > 0; y is never negative, so its sign is the mask.
pub(super) fn relu(b: &mut Builder, call: &Call<'_>) -> Grads {
    let mask = b.op("Sign", &[call.y(0)?], &[]);
    call.first(mul(b, call.dy()?, &mask))
}

/// dx = dy, or alpha dy where x < 0.
pub(super) fn leaky_relu(b: &mut Builder, call: &Call<'_>) -> Grads {
    let alpha = call.node.float("alpha").unwrap_or(0.01);
    let positive = is_positive(b, call.x(0)?);
    let leak = scale(b, call.dy()?, alpha);
    call.first(b.op("Where", &[&positive, call.dy()?, &leak], &[]))
}

/// dx = dy, or dy (y + alpha) where x < 0.
pub(super) fn elu(b: &mut Builder, call: &Call<'_>) -> Grads {
    let alpha = call.node.float("alpha").unwrap_or(1.0);
    let positive = is_positive(b, call.x(0)?);
    let slope = offset(b, call.y(0)?, alpha);
    let below = mul(b, call.dy()?, &slope);
    call.first(b.op("Where", &[&positive, call.dy()?, &below], &[]))
}

/// dx = dy sigmoid(x).
pub(super) fn softplus(b: &mut Builder, call: &Call<'_>) -> Grads {
    let slope = b.op("Sigmoid", &[call.x(0)?], &[]);
    call.first(mul(b, call.dy()?, &slope))
}

/// dx = dy (1 - |y|)^2.
pub(super) fn softsign(b: &mut Builder, call: &Call<'_>) -> Grads {
    let size = b.op("Abs", &[call.y(0)?], &[]);
    let root = one_minus(b, &size);
    let slope = mul(b, &root, &root);
    call.first(mul(b, call.dy()?, &slope))
}

/// dx = alpha dy where 0 < y < 1.
pub(super) fn hard_sigmoid(b: &mut Builder, call: &Call<'_>) -> Grads {
    let alpha = call.node.float("alpha").unwrap_or(0.2);
    let inside = strictly_inside_unit(b, call.y(0)?);
    let slope = scale(b, call.dy()?, alpha);
    call.first(keep_where(b, &inside, &slope))
}

/// y = x h(x) with h = clip(x/6 + 1/2, 0, 1): dx = dy (h + x/6 where 0 < h < 1).
pub(super) fn hard_swish(b: &mut Builder, call: &Call<'_>) -> Grads {
    let x = call.x(0)?;
    let sixth = scale(b, x, 1.0 / 6.0);
    let line = offset(b, &sixth, 0.5);
    let (zero, one) = (b.scalar_like(0.0, x), b.scalar_like(1.0, x));
    let gate = b.op("Clip", &[&line, &zero, &one], &[]);
    let inside = strictly_inside_unit(b, &gate);
    let inner = keep_where(b, &inside, &sixth);
    let slope = add(b, &gate, &inner);
    call.first(mul(b, call.dy()?, &slope))
}

/// Gelu, exact or in its tanh form.
pub(super) fn gelu(b: &mut Builder, call: &Call<'_>) -> Grads {
    let x = call.x(0)?;
    let slope = match call.node.str("approximate") {
        Some("tanh") => slope_of_tanh_gelu(b, x),
        None | Some("none") => slope_of_gelu(b, x),
        Some(other) => return Err(call.error(format!("unknown approximation `{other}`"))),
    };
    call.first(mul(b, call.dy()?, &slope))
}

/// (1 + erf(t))/2 + t exp(-t^2)/sqrt(pi) with t = x / sqrt(2); the factor 1/sqrt(pi) goes into the exponent.
fn slope_of_gelu(b: &mut Builder, x: &str) -> String {
    const LN_1_SQRT_PI: f32 = -0.572_364_9;
    let t = scale(b, x, std::f32::consts::FRAC_1_SQRT_2);
    let erf = b.op("Erf", &[&t], &[]);
    let distribution = half_of_one_more(b, &erf);
    let square = mul(b, &t, &t);
    let factor = b.scalar_like(LN_1_SQRT_PI, x);
    let exponent = sub(b, &factor, &square);
    let bell = b.op("Exp", &[&exponent], &[]);
    let skew = mul(b, &t, &bell);
    add(b, &distribution, &skew)
}

/// (1 + y)/2 for y between -1 and 1, in one pass where the type has the operator.
fn half_of_one_more(b: &mut Builder, y: &str) -> String {
    if b.facts.dtype(y) == Some(DType::BF16) {
        let half = scale(b, y, 0.5);
        return offset(b, &half, 0.5);
    }
    b.op("HardSigmoid", &[y], &[("alpha", Attr::Float(0.5)), ("beta", Attr::Float(0.5))])
}

/// (1 + u)/2 + x/2 (1 - u^2) k (1 + 3 c x^2) with u = tanh(k (x + c x^3)), k = sqrt(2/pi), c = 0.044715.
fn slope_of_tanh_gelu(b: &mut Builder, x: &str) -> String {
    const K: f32 = 0.797_884_6;
    const C: f32 = 0.044_715;
    let square = mul(b, x, x);
    let cubic = scale(b, &square, K * C);
    let factor = offset(b, &cubic, K);
    let inner = mul(b, x, &factor);
    let u = b.op("Tanh", &[&inner], &[]);
    let derivative = scale(b, &square, 1.5 * K * C);
    let derivative = offset(b, &derivative, 0.5 * K);
    let stretched = mul(b, x, &derivative);
    let u_squared = mul(b, &u, &u);
    let lost = mul(b, &stretched, &u_squared);
    let skew = sub(b, &stretched, &lost);
    let distribution = half_of_one_more(b, &u);
    add(b, &distribution, &skew)
}

fn is_positive(b: &mut Builder, x: &str) -> String {
    let zero = b.scalar_like(0.0, x);
    b.op("Greater", &[x, &zero], &[])
}

fn strictly_inside_unit(b: &mut Builder, y: &str) -> String {
    let positive = is_positive(b, y);
    let one = b.scalar_like(1.0, y);
    let below = b.op("Less", &[y, &one], &[]);
    b.op("And", &[&positive, &below], &[])
}
