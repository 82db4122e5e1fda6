//! Taking values apart along an axis and putting them together.

use super::emit::{dim_of, zeros_like};
use super::indexing::scatter_along;
use super::{Builder, Call, Grads};
use crate::ir::{Attr, DType};
use crate::vjp::VjpError;

/// Ends at or beyond this mean "to the end".
const TO_THE_END: i64 = i32::MAX as i64;
/// Starts at or below this mean "from the start".
const FROM_THE_START: i64 = -TO_THE_END;

/// A length along an axis: a number, or a tensor of one integer.
#[derive(Clone)]
pub(super) enum Length {
    Known(i64),
    Value(String),
}

impl Length {
    /// The extent of `x` along `axis`.
    pub(super) fn of_axis(b: &mut Builder, x: &str, axis: usize) -> Self {
        let known = b.facts.shape(x).and_then(|dims| dims.get(axis)?.as_known());
        known.map_or_else(|| Length::Value(dim_of(b, x, axis)), Length::Known)
    }

    fn emit(&self, b: &mut Builder) -> String {
        match self {
            Length::Known(value) => b.ints(&[*value]),
            Length::Value(name) => name.clone(),
        }
    }

    pub(super) fn plus(&self, b: &mut Builder, other: &Length, sign: i64) -> Length {
        match (self, other) {
            (Length::Known(x), Length::Known(y)) => Length::Known(x + sign * y),
            (x, Length::Known(0)) => x.clone(),
            _ => {
                let (x, y) = (self.emit(b), other.emit(b));
                Length::Value(b.op(if sign < 0 { "Sub" } else { "Add" }, &[&x, &y], &[]))
            }
        }
    }
}

/// A vector of the lengths.
fn vector(b: &mut Builder, lengths: &[Length]) -> String {
    let known: Option<Vec<i64>> =
        lengths.iter().map(|l| if let Length::Known(v) = l { Some(*v) } else { None }).collect();
    match known {
        Some(values) => b.ints(&values),
        None => {
            let pieces: Vec<String> = lengths.iter().map(|l| l.emit(b)).collect();
            b.op("Concat", &pieces.iter().map(String::as_str).collect::<Vec<_>>(), &[("axis", Attr::Int(0))])
        }
    }
}

/// `g` with zeros before and after it along some axes.
pub(super) fn pad_with_zeros(b: &mut Builder, g: &str, rank: usize, margins: &[(usize, Length, Length)]) -> String {
    let nothing = |l: &Length| matches!(l, Length::Known(0));
    if margins.iter().all(|(_, before, after)| nothing(before) && nothing(after)) {
        return g.to_string();
    }
    let mut pads = vec![Length::Known(0); 2 * rank];
    for (axis, before, after) in margins {
        pads[*axis] = before.clone();
        pads[rank + axis] = after.clone();
    }
    let pads = vector(b, &pads);
    b.op("Pad", &[g, &pads], &[])
}

/// Zeros around dy; with a step other than 1, dy scattered into zeros.
pub(super) fn slice(b: &mut Builder, call: &Call<'_>) -> Grads {
    let x = call.x(0)?;
    let rank = call.rank(b, x)?;
    let constants = |i: usize| match call.node.input(i) {
        Some(name) => b.facts.ints(name),
        None => None,
    };
    let (starts, ends) = (constants(1), constants(2));
    let listed = call.node.input(3).is_some().then(|| constants(3));
    let steps = call.node.input(4).is_some().then(|| constants(4));
    let count = starts.as_ref().or(ends.as_ref()).map(Vec::len);
    let axes = match listed {
        Some(Some(axes)) => axes,
        Some(None) => return Err(call.error("its axes are computed at run time; re-export with constant axes")),
        None => (0..count.ok_or_else(|| call.error("its starts are of unknown length"))? as i64).collect(),
    };
    let axes = axes.into_iter().map(|a| call.axis(a, rank)).collect::<Result<Vec<_>, _>>()?;
    let steps = match steps {
        Some(Some(steps)) => steps,
        Some(None) => return Err(call.error("its steps are computed at run time; re-export with constant steps")),
        None => vec![1; axes.len()],
    };
    for listed in [&starts, &ends, &Some(steps.clone())].into_iter().flatten() {
        if listed.len() != axes.len() {
            return Err(call.error("its starts, ends, axes and steps differ in length; the model is malformed"));
        }
    }
    if steps.iter().any(|&step| step != 1) {
        return strided(b, call, starts, ends, &axes, &steps);
    }

    let mut margins = Vec::new();
    for (i, &axis) in axes.iter().enumerate() {
        let start = starts.as_ref().map(|s| if s[i] <= FROM_THE_START { 0 } else { s[i] });
        let end = ends.as_ref().map(|e| e[i]);
        let extent = b.facts.shape(x).and_then(|dims| dims.get(axis)?.as_known());
        let (before, after) = match (start, end, extent) {
            (Some(start), Some(end), Some(extent)) => {
                let clamp = |at: i64| if at < 0 { (at.saturating_add(extent)).max(0) } else { at.min(extent) };
                let (start, end) = (clamp(start), clamp(end));
                (Length::Known(start), Length::Known(extent - end.max(start)))
            }
            (Some(start @ 0..), Some(TO_THE_END..), _) => (Length::Known(start), Length::Known(0)),
            (Some(start @ 0..), Some(end @ FROM_THE_START..0), _) => (Length::Known(start), Length::Known(-end)),
            _ => margins_at_run_time(b, call, (i, axis), start)?,
        };
        margins.push((axis, before, after));
    }
    let grad = pad_with_zeros(b, call.dy()?, rank, &margins);
    call.first(grad)
}

fn margins_at_run_time(
    b: &mut Builder,
    call: &Call<'_>,
    (i, axis): (usize, usize),
    start: Option<i64>,
) -> Result<(Length, Length), VjpError> {
    let (x, dy) = (call.x(0)?, call.dy()?);
    let whole = Length::of_axis(b, x, axis);
    let part = Length::of_axis(b, dy, axis);
    let before = match start {
        Some(start @ 0..) => Length::Known(start),
        Some(start) => whole.plus(b, &Length::Known(start), 1),
        None => {
            let (from, to, axes) = (b.ints(&[i as i64]), b.ints(&[i as i64 + 1]), b.ints(&[0]));
            let start = b.op("Slice", &[call.x(1)?, &from, &to, &axes], &[]);
            let start = b.cast(&start, DType::I64);
            let zero = b.ints(&[0]);
            let negative = b.op("Less", &[&start, &zero], &[]);
            let extent = whole.emit(b);
            let wrap = keep_where_int(b, &negative, &extent);
            let start = b.op("Add", &[&start, &wrap], &[]);
            Length::Value(b.op("Min", &[&start, &extent], &[]))
        }
    };
    let rest = whole.plus(b, &before, -1);
    let after = rest.plus(b, &part, -1);
    Ok((before, after))
}

fn keep_where_int(b: &mut Builder, condition: &str, x: &str) -> String {
    let zero = b.ints(&[0]);
    b.op("Where", &[condition, x, &zero], &[])
}

fn strided(
    b: &mut Builder,
    call: &Call<'_>,
    starts: Option<Vec<i64>>,
    ends: Option<Vec<i64>>,
    axes: &[usize],
    steps: &[i64],
) -> Grads {
    let x = call.x(0)?;
    let refuse =
        || call.error("a step other than 1 has a rule only along one axis of fixed extent, with constant bounds");
    let (Some(starts), Some(ends), [axis], [step]) = (starts, ends, axes, steps) else { return Err(refuse()) };
    let extent = b.facts.shape(x).and_then(|dims| dims.get(*axis)?.as_known()).ok_or_else(refuse)?;
    if *step == 0 {
        return Err(call.error("its step is 0; the model is malformed"));
    }
    let from_front = |at: i64| if at < 0 { at.saturating_add(extent) } else { at };
    let (low, high) = if *step > 0 { (0, extent) } else { (-1, extent - 1) };
    let end = from_front(ends[0]).clamp(low, high);
    let mut at = from_front(starts[0]).clamp(low.max(0), high);
    let mut indices = Vec::new();
    while (*step > 0 && at < end) || (*step < 0 && at > end) {
        indices.push(at);
        at += step;
    }
    let indices = b.ints(&indices);
    let grad = scatter_along(b, call, call.dy()?, &indices, *axis)?;
    call.first(grad)
}

/// The part of dy that lies where x was put.
pub(super) fn pad(b: &mut Builder, call: &Call<'_>) -> Grads {
    let (x, pads) = (call.x(0)?, call.x(1)?);
    if call.node.str("mode").is_some_and(|mode| mode != "constant") {
        return Err(call.error("only constant padding has a rule; re-export the model without it"));
    }
    let rank = call.rank(b, x)?;
    let axes: Vec<i64> = match call.node.input(3) {
        None => (0..rank as i64).collect(),
        Some(axes) => b.facts.ints(axes).ok_or_else(|| call.error("its axes are computed at run time"))?,
    };
    let pads = b.facts.ints(pads).filter(|pads| pads.len() == 2 * axes.len() && pads.iter().all(|&p| p >= 0));
    let pads = pads.ok_or_else(|| call.error("only constant pads of at least 0 have a rule"))?;
    let ends: Vec<i64> = pads[axes.len()..].iter().map(|&after| if after == 0 { i64::MAX } else { -after }).collect();
    let (starts, ends, axes) = (b.ints(&pads[..axes.len()]), b.ints(&ends), b.ints(&axes));
    let grad = b.op("Slice", &[call.dy()?, &starts, &ends, &axes], &[]);
    call.first(grad)
}

/// dy taken apart at the seams.
pub(super) fn concat(b: &mut Builder, call: &Call<'_>) -> Grads {
    let rank = call.rank(b, call.x(0)?)?;
    let axis = call.axis(call.node.int("axis").unwrap_or(0), rank)?;
    let count = call.node.inputs.len();
    let mut lengths = Vec::new();
    for i in 0..count {
        lengths.push(Length::of_axis(b, call.x(i)?, axis));
    }
    let mut grads = vec![None; count];
    let wanted: Vec<usize> = (0..count).filter(|&i| call.wants(i)).collect();
    if let [only] = wanted[..] {
        let mut start = Length::Known(0);
        for length in &lengths[..only] {
            start = start.plus(b, length, 1);
        }
        let end = start.plus(b, &lengths[only], 1);
        let (start, end, axes) = (start.emit(b), end.emit(b), b.ints(&[axis as i64]));
        grads[only] = Some(b.op("Slice", &[call.dy()?, &start, &end, &axes], &[]));
        return Ok(grads);
    }
    let sizes = vector(b, &lengths);
    let parts = b.op_n("Split", &[call.dy()?, &sizes], count, &[("axis", Attr::Int(axis as i64))]);
    for i in wanted {
        grads[i] = Some(parts[i].clone());
    }
    Ok(grads)
}

/// The parts' cotangents put together, zeros for parts without one.
pub(super) fn split(b: &mut Builder, call: &Call<'_>) -> Grads {
    let axis = call.node.int("axis").unwrap_or(0);
    let mut parts = Vec::new();
    for (i, cotangent) in call.cotangents.iter().enumerate() {
        parts.push(match cotangent {
            Some(cotangent) => cotangent.clone(),
            None => {
                let part = call.y(i)?;
                zeros_like(b, part)
            }
        });
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    call.first(b.op("Concat", &parts, &[("axis", Attr::Int(axis))]))
}
