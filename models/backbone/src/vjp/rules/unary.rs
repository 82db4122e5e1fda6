//! Functions of one value, element by element.

use super::emit::{div, keep_where, mul, neg as negate, offset, scale, sub};
use super::{Builder, Call, Grads};
use crate::ir::DType;

/// y = x.
pub(super) fn identity(_: &mut Builder, call: &Call<'_>) -> Grads {
    call.first(call.dy()?.to_string())
}

/// y = x outside training.
pub(super) fn dropout(b: &mut Builder, call: &Call<'_>) -> Grads {
    let training = call.node.input(2);
    if training.is_some_and(|mode| b.facts.ints(mode).as_deref() != Some(&[0])) {
        return Err(call.error("it is in training mode; export the model in evaluation mode (model.eval())"));
    }
    call.first(call.dy()?.to_string())
}

/// A change of type; only between floats does a gradient pass.
pub(super) fn cast(b: &mut Builder, call: &Call<'_>) -> Grads {
    let dtype = b.facts.dtype(call.x(0)?).unwrap_or(DType::F32);
    let grad = b.cast(call.dy()?, dtype);
    call.first(grad)
}

/// dx = -dy.
pub(super) fn neg(b: &mut Builder, call: &Call<'_>) -> Grads {
    call.first(negate(b, call.dy()?))
}

/// dx = dy sign(x).
pub(super) fn abs(b: &mut Builder, call: &Call<'_>) -> Grads {
    let sign = b.op("Sign", &[call.x(0)?], &[]);
    call.first(mul(b, call.dy()?, &sign))
}

/// dx = dy / (2 y).
pub(super) fn sqrt(b: &mut Builder, call: &Call<'_>) -> Grads {
    let half = scale(b, call.dy()?, 0.5);
    call.first(div(b, &half, call.y(0)?))
}

/// dx = -dy y^2.
pub(super) fn reciprocal(b: &mut Builder, call: &Call<'_>) -> Grads {
    let y = call.y(0)?;
    let square = mul(b, y, y);
    let grad = mul(b, call.dy()?, &square);
    call.first(negate(b, &grad))
}

/// dx = dy y.
pub(super) fn exp(b: &mut Builder, call: &Call<'_>) -> Grads {
    call.first(mul(b, call.dy()?, call.y(0)?))
}

/// dx = dy / x.
pub(super) fn log(b: &mut Builder, call: &Call<'_>) -> Grads {
    call.first(div(b, call.dy()?, call.x(0)?))
}

/// dx = dy 2/sqrt(pi) exp(-x^2).
pub(super) fn erf(b: &mut Builder, call: &Call<'_>) -> Grads {
    let x = call.x(0)?;
    let square = mul(b, x, x);
    let exponent = negate(b, &square);
    let bell = b.op("Exp", &[&exponent], &[]);
    let slope = scale(b, &bell, std::f32::consts::FRAC_2_SQRT_PI);
    call.first(mul(b, call.dy()?, &slope))
}

/// dx = dy (1 - y^2).
pub(super) fn tanh(b: &mut Builder, call: &Call<'_>) -> Grads {
    let y = call.y(0)?;
    let square = mul(b, y, y);
    let part = mul(b, call.dy()?, &square);
    call.first(sub(b, call.dy()?, &part))
}

/// dx = dy y (1 - y).
pub(super) fn sigmoid(b: &mut Builder, call: &Call<'_>) -> Grads {
    let y = call.y(0)?;
    let part = mul(b, call.dy()?, y);
    let below = mul(b, &part, y);
    call.first(sub(b, &part, &below))
}

/// dx = dy cos(x).
pub(super) fn sin(b: &mut Builder, call: &Call<'_>) -> Grads {
    let cos = b.op("Cos", &[call.x(0)?], &[]);
    call.first(mul(b, call.dy()?, &cos))
}

/// dx = -dy sin(x).
pub(super) fn cos(b: &mut Builder, call: &Call<'_>) -> Grads {
    let sin = b.op("Sin", &[call.x(0)?], &[]);
    let grad = mul(b, call.dy()?, &sin);
    call.first(negate(b, &grad))
}

/// dx = dy where x was left as it is. The bounds have no gradient.
pub(super) fn clip(b: &mut Builder, call: &Call<'_>) -> Grads {
    if call.wants(1) || call.wants(2) {
        return Err(call.error("its bounds depend on an adapter; re-export with constant bounds"));
    }
    let inside = b.op("Equal", &[call.x(0)?, call.y(0)?], &[]);
    call.first(keep_where(b, &inside, call.dy()?))
}

/// 1 - y, for the rules that need it.
pub(super) fn one_minus(b: &mut Builder, y: &str) -> String {
    let minus = negate(b, y);
    offset(b, &minus, 1.0)
}
