//! Functions of several values that broadcast against each other.

use super::emit::{
    constant_scalar, div as divide, keep_unless, keep_where, mul as times, neg, offset, producer, scale,
};
use super::{Builder, Call, Grads, unbroadcast};
use crate::ir::{DType, Node};
use crate::vjp::VjpError;

/// da = dy, db = dy.
pub(super) fn add(b: &mut Builder, call: &Call<'_>) -> Grads {
    sum(b, call)
}

/// dx_i = dy for each input.
pub(super) fn sum(b: &mut Builder, call: &Call<'_>) -> Grads {
    let dy = call.dy()?;
    (0..call.node.inputs.len())
        .map(|i| if call.wants(i) { unbroadcast(b, call, dy, call.x(i)?).map(Some) } else { Ok(None) })
        .collect()
}

/// dx_i = dy / n for each of n inputs.
pub(super) fn mean(b: &mut Builder, call: &Call<'_>) -> Grads {
    let share = scale(b, call.dy()?, 1.0 / call.node.inputs.len() as f32);
    (0..call.node.inputs.len())
        .map(|i| if call.wants(i) { unbroadcast(b, call, &share, call.x(i)?).map(Some) } else { Ok(None) })
        .collect()
}

/// da = dy, db = -dy.
pub(super) fn sub(b: &mut Builder, call: &Call<'_>) -> Grads {
    let dy = call.dy()?;
    let left = call.wants(0).then(|| unbroadcast(b, call, dy, call.x(0)?)).transpose()?;
    let right = if call.wants(1) {
        let sum = unbroadcast(b, call, dy, call.x(1)?)?;
        Some(neg(b, &sum))
    } else {
        None
    };
    Ok(vec![left, right])
}

/// da = dy b, db = dy a; 2 dy x for a square.
pub(super) fn mul(b: &mut Builder, call: &Call<'_>) -> Grads {
    let (dy, left, right) = (call.dy()?, call.x(0)?, call.x(1)?);
    if left == right {
        let doubled = scale(b, dy, 2.0);
        return call.first(times(b, left, &doubled));
    }
    let mut grads = vec![None, None];
    for (i, (x, other)) in [(left, right), (right, left)].into_iter().enumerate() {
        if call.wants(i) {
            let full = times(b, dy, other);
            grads[i] = Some(unbroadcast(b, call, &full, x)?);
        }
    }
    Ok(grads)
}

/// da = dy / b, db = -(dy / b) y.
pub(super) fn div(b: &mut Builder, call: &Call<'_>) -> Grads {
    let quotient = divide(b, call.dy()?, call.x(1)?);
    let left = call.wants(0).then(|| unbroadcast(b, call, &quotient, call.x(0)?)).transpose()?;
    let right = if call.wants(1) {
        let full = times(b, &quotient, call.y(0)?);
        let sum = unbroadcast(b, call, &full, call.x(1)?)?;
        Some(neg(b, &sum))
    } else {
        None
    };
    Ok(vec![left, right])
}

/// The exponent of a `Pow`, where it is one constant number.
pub(super) fn constant_exponent(b: &Builder, node: &Node) -> Option<f32> {
    constant_scalar(b, node.input(1)?)
}

/// dx = dy p x^(p - 1), dp = dy y log(x).
pub(super) fn pow(b: &mut Builder, call: &Call<'_>) -> Grads {
    let (dy, x, exponent) = (call.dy()?, call.x(0)?, call.x(1)?);
    if let Some(p) = constant_exponent(b, call.node).filter(|_| !call.wants(1)) {
        return call.first(constant_pow(b, call, p)?);
    }
    let dtype = b.facts.dtype(x).unwrap_or(DType::F32);
    let mut grads = vec![None, None];
    if call.wants(0) {
        let p = b.cast(exponent, dtype);
        let less = offset(b, &p, -1.0);
        let power = b.op("Pow", &[x, &less], &[]);
        let slope = times(b, &p, &power);
        let full = times(b, dy, &slope);
        grads[0] = Some(unbroadcast(b, call, &full, x)?);
    }
    if call.wants(1) {
        let zero = b.scalar_like(0.0, x);
        let positive = b.op("Greater", &[x, &zero], &[]);
        let one = b.scalar_like(1.0, x);
        let base = b.op("Where", &[&positive, x, &one], &[]);
        let log = b.op("Log", &[&base], &[]);
        let slope = times(b, call.y(0)?, &log);
        let full = times(b, dy, &slope);
        let sum = unbroadcast(b, call, &full, exponent)?;
        grads[1] = Some(b.cast(&sum, b.facts.dtype(exponent).unwrap_or(dtype)));
    }
    Ok(grads)
}

/// dy p x^(p - 1) with the constant on dy, which may be the smaller of the two.
fn constant_pow(b: &mut Builder, call: &Call<'_>, p: f32) -> Result<String, VjpError> {
    let (dy, x) = (call.dy()?, call.x(0)?);
    let scaled = scale(b, dy, p);
    let power = match p {
        1.0 => return Ok(scaled),
        2.0 => x.to_string(),
        3.0 => times(b, x, x),
        _ => {
            let less = b.scalar_like(p - 1.0, x);
            b.op("Pow", &[x, &less], &[])
        }
    };
    Ok(times(b, &power, &scaled))
}

/// `Max` and `Min`: dy goes to the input that was chosen, to the first of equals.
pub(super) fn extremum(b: &mut Builder, call: &Call<'_>) -> Grads {
    let (dy, y) = (call.dy()?, call.y(0)?);
    let count = call.node.inputs.len();
    let last = (0..count).rev().find(|&i| call.wants(i));
    let mut grads = vec![None; count];
    let mut rest = dy.to_string();
    for (i, grad) in grads.iter_mut().enumerate().take_while(|(i, _)| Some(*i) <= last) {
        let x = call.x(i)?;
        let chosen = b.op("Equal", &[x, y], &[]);
        if call.wants(i) {
            let full = keep_where(b, &chosen, &rest);
            *grad = Some(unbroadcast(b, call, &full, x)?);
        }
        if Some(i) < last {
            rest = keep_unless(b, &chosen, &rest);
        }
    }
    Ok(grads)
}

/// dy goes to the branch that was chosen.
pub(super) fn choose(b: &mut Builder, call: &Call<'_>) -> Grads {
    let (condition, dy) = (call.x(0)?, call.dy()?);
    let mut grads = vec![None; 3];
    if call.wants(1) {
        let full = keep_where(b, condition, dy);
        grads[1] = Some(unbroadcast(b, call, &full, call.x(1)?)?);
    }
    if call.wants(2) {
        let full = if is_guarded_softmax(b, call) { dy.to_string() } else { keep_unless(b, condition, dy) };
        grads[2] = Some(unbroadcast(b, call, &full, call.x(2)?)?);
    }
    Ok(grads)
}

/// Whether this is `Where(IsNaN(p), 0, p)` with p a softmax, whose rule is zero in those rows already.
fn is_guarded_softmax(b: &Builder, call: &Call<'_>) -> bool {
    let guarded = || {
        let probabilities = call.node.input(2)?;
        let condition = producer(b, call.node.input(0)?)?;
        let softmax = producer(b, probabilities)?;
        let zero = constant_scalar(b, call.node.input(1)?) == Some(0.0);
        Some(zero && condition.is("IsNaN") && condition.input(0) == Some(probabilities) && softmax.is("Softmax"))
    };
    guarded().unwrap_or(false)
}
