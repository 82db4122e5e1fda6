//! `Slice`.

use super::context::{Context, one, resolve_axis};
use super::view::{fill, small};
use super::{Dim, Fact};

/// One axis cut from `start` towards `end` by `step`.
struct Cut {
    start: Dim,
    size: Dim,
    step: i64,
}

/// `Slice`, its bounds known or symbolic.
pub(super) fn slice(cx: &Context) -> Option<Vec<Fact>> {
    let Some(shape) = cx.shape(0) else { return one(cx.dtype(0), None) };
    let Some(count) = cx.length(1).or(cx.length(2)) else {
        return one(cx.dtype(0), Some(cx.unknown_shape(0, shape.len())));
    };
    let axes = if cx.has(3) { cx.ints(3) } else { i64::try_from(count).ok().map(|count| (0..count).collect()) };
    let steps = if cx.has(4) { cx.ints(4) } else { Some(vec![1; count]) };
    let axes: Option<Vec<usize>> =
        axes.and_then(|axes| axes.iter().map(|&axis| resolve_axis(axis, shape.len())).collect());
    let (Some(axes), Some(steps)) = (axes, steps) else {
        return one(cx.dtype(0), Some(cx.unknown_shape(0, shape.len())));
    };
    let mut cuts: Vec<Option<Cut>> =
        shape.iter().map(|dim| Some(Cut { start: Dim::known(0), size: dim.clone(), step: 1 })).collect();
    for (i, &axis) in axes.iter().enumerate() {
        let bound = |input: usize| cx.value(input).and_then(|value| value.get(i));
        let step = *steps.get(i)?;
        cuts[axis] = bound(1).zip(bound(2)).and_then(|(start, end)| cut(&shape[axis], start, end, step));
    }
    let sizes = cuts.iter().enumerate();
    let out: Vec<Dim> =
        sizes.map(|(axis, cut)| cut.as_ref().map_or_else(|| cx.unknown(0, axis), |cut| cut.size.clone())).collect();
    let value = elements(cx, &out, &cuts);
    Some(vec![Fact { dtype: cx.dtype(0), shape: Some(out), value }])
}

fn elements(cx: &Context, out: &[Dim], cuts: &[Option<Cut>]) -> Option<Vec<Dim>> {
    let sizes = cx.sizes(0)?;
    let view = cx.view(0, &sizes)?;
    small(out)?;
    fill(out, |index| {
        let own = index.iter().zip(cuts).map(|(&i, cut)| {
            let cut = cut.as_ref()?;
            let at = cut.start.as_known()?.checked_add(i64::try_from(i).ok()?.checked_mul(cut.step)?)?;
            usize::try_from(at).ok()
        });
        view.at(&own.collect::<Option<Vec<_>>>()?).cloned()
    })
}

/// Exporters write "to the end" as the largest integer of 32 or 64 bits.
const INFINITE: i64 = i32::MAX as i64;

fn cut(dim: &Dim, start: &Dim, end: &Dim, step: i64) -> Option<Cut> {
    let zero = Dim::known(0);
    let (start, size) = match step {
        0 => return None,
        1.. => {
            let (start, end) = (bound(dim, start)?, bound(dim, end)?);
            let span = &end - &start;
            (start, span.ceil_div(&Dim::known(step)).max(&zero))
        }
        _ => {
            // Counted down from the last element read to just before the first: both lie between -1 and dim - 1.
            let last = dim - &Dim::known(1);
            let start = if at_infinity(start) { last.clone() } else { from_front(dim, start)?.min(&last) };
            let end = match end.as_known() {
                Some(end) if end <= -INFINITE => Dim::known(-1),
                _ => from_front(dim, end)?.max(&Dim::known(-1)).min(&last),
            };
            let span = &start - &end;
            let size = span.ceil_div(&Dim::known(step.checked_neg()?)).max(&zero);
            (start, size)
        }
    };
    Some(Cut { start, size, step })
}

/// A bound of a forward cut, between 0 and `dim`.
fn bound(dim: &Dim, at: &Dim) -> Option<Dim> {
    let zero = Dim::known(0);
    match at.as_known() {
        _ if at_infinity(at) => Some(dim.clone()),
        Some(at) if at <= -INFINITE => Some(zero),
        _ => Some(from_front(dim, at)?.max(&zero).min(dim)),
    }
}

fn at_infinity(at: &Dim) -> bool {
    at.as_known().is_some_and(|at| at >= INFINITE)
}

/// An index counted from the front, if its sign is known.
fn from_front(dim: &Dim, at: &Dim) -> Option<Dim> {
    if let Some(known) = at.as_known() {
        Some(match dim.as_known() {
            _ if known >= 0 => at.clone(),
            Some(dim) => Dim::known(known.saturating_add(dim)),
            None => at + dim,
        })
    } else if at.at_least(0) {
        Some(at.clone())
    } else if (-at).is_positive() {
        Some(at + dim)
    } else {
        None
    }
}
