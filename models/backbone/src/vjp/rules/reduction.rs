//! Reductions over axes.

use super::emit::{div, expand_to, mul, scale, sub};
use super::{Builder, Call, Grads};
use crate::ir::DType;
use crate::vjp::VjpError;

/// dx = dy along the reduced axes.
pub(super) fn sum(b: &mut Builder, call: &Call<'_>) -> Grads {
    let dy = kept(b, call, call.dy()?)?;
    call.first(spread(b, call, &dy)?)
}

/// dx = dy / n along the reduced axes.
pub(super) fn mean(b: &mut Builder, call: &Call<'_>) -> Grads {
    let (x, y) = (call.x(0)?, call.y(0)?);
    let axes = axes(b, call)?;
    let dims = b.dims(x).unwrap_or_default();
    let count: Option<i64> = axes.iter().map(|&a| dims.get(a)?.as_known()).product();
    let share = match count {
        Some(n) => scale(b, call.dy()?, 1.0 / n.max(1) as f32),
        None => {
            let (all, left) = (b.op("Size", &[x], &[]), b.op("Size", &[y], &[]));
            let dtype = b.facts.dtype(x).unwrap_or(DType::F32);
            let (all, left) = (b.cast(&all, dtype), b.cast(&left, dtype));
            let fraction = div(b, &left, &all);
            mul(b, call.dy()?, &fraction)
        }
    };
    let share = kept(b, call, &share)?;
    call.first(spread(b, call, &share)?)
}

/// dx = dy x / y.
pub(super) fn l2(b: &mut Builder, call: &Call<'_>) -> Grads {
    let ratio = div(b, call.dy()?, call.y(0)?);
    let ratio = kept(b, call, &ratio)?;
    call.first(mul(b, call.x(0)?, &ratio))
}

/// dx = dy sign(x).
pub(super) fn l1(b: &mut Builder, call: &Call<'_>) -> Grads {
    let dy = kept(b, call, call.dy()?)?;
    let sign = b.op("Sign", &[call.x(0)?], &[]);
    call.first(mul(b, &sign, &dy))
}

/// dx = 2 dy x.
pub(super) fn sum_square(b: &mut Builder, call: &Call<'_>) -> Grads {
    let doubled = scale(b, call.dy()?, 2.0);
    let doubled = kept(b, call, &doubled)?;
    call.first(mul(b, call.x(0)?, &doubled))
}

/// dx = dy exp(x - y).
pub(super) fn log_sum_exp(b: &mut Builder, call: &Call<'_>) -> Grads {
    let (dy, y) = (kept(b, call, call.dy()?)?, kept(b, call, call.y(0)?)?);
    let difference = sub(b, call.x(0)?, &y);
    let share = b.op("Exp", &[&difference], &[]);
    call.first(mul(b, &share, &dy))
}

/// `ReduceMax` and `ReduceMin`: dy in equal parts to the elements that were chosen.
pub(super) fn extremum(b: &mut Builder, call: &Call<'_>) -> Grads {
    let x = call.x(0)?;
    let (dy, y) = (kept(b, call, call.dy()?)?, kept(b, call, call.y(0)?)?);
    let chosen = b.op("Equal", &[x, &y], &[]);
    let mask = b.cast(&chosen, b.facts.dtype(x).unwrap_or(DType::F32));
    let reduced: Vec<i64> = axes(b, call)?.into_iter().map(|a| a as i64).collect();
    let count = super::emit::reduce(b, "ReduceSum", &mask, &reduced, true);
    let share = div(b, &dy, &count);
    call.first(mul(b, &mask, &share))
}

/// The reduced axes, counted from the front; none where the node leaves its input as it is.
fn axes(b: &Builder, call: &Call<'_>) -> Result<Vec<usize>, VjpError> {
    let rank = call.rank(b, call.x(0)?)?;
    let listed = match call.node.input(1) {
        Some(name) => {
            let message =
                || call.error(format!("its axes `{name}` are computed at run time; re-export with constant axes"));
            b.facts.ints(name).ok_or_else(message)?
        }
        None => Vec::new(),
    };
    if listed.is_empty() {
        let nothing = call.node.int("noop_with_empty_axes").unwrap_or(0) != 0;
        return Ok(if nothing { Vec::new() } else { (0..rank).collect() });
    }
    let mut axes = listed.into_iter().map(|a| call.axis(a, rank)).collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    axes.dedup();
    Ok(axes)
}

/// A value of the output's shape with the reduced axes put back, of extent 1.
fn kept(b: &mut Builder, call: &Call<'_>, value: &str) -> Result<String, VjpError> {
    let axes: Vec<i64> = axes(b, call)?.into_iter().map(|a| a as i64).collect();
    if call.node.int("keepdims").unwrap_or(1) != 0 || axes.is_empty() {
        return Ok(value.to_string());
    }
    let axes = b.ints(&axes);
    Ok(b.op("Unsqueeze", &[value, &axes], &[]))
}

/// A value with reduced axes of extent 1 as the input's cotangent: left narrow where that shows in the inferred shapes,
/// so that the sum with other contributions or the next rule broadcasts it.
fn spread(b: &mut Builder, call: &Call<'_>, value: &str) -> Result<String, VjpError> {
    let x = call.x(0)?;
    let axes = axes(b, call)?;
    let (Some(have), Some(want)) = (b.dims(value), b.dims(x)) else { return Ok(expand_to(b, value, x)) };
    let shows = axes.iter().all(|&a| {
        let narrow = have.get(a).is_some_and(|d| d.as_known() == Some(1));
        narrow && want.get(a).is_some()
    });
    Ok(if shows && have.len() == want.len() { value.to_string() } else { expand_to(b, value, x) })
}
