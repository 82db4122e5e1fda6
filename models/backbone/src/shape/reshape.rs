//! Operators that keep the elements in order and change the dimensions.

use super::context::{Context, one, resolve_axis};
use super::{Dim, Fact};

fn keep_elements(cx: &Context, shape: Option<Vec<Dim>>) -> Option<Vec<Fact>> {
    let fact = cx.fact(0)?;
    Some(vec![Fact { dtype: fact.dtype, shape, value: fact.value.clone() }])
}

/// `Reshape`: 0 copies a dimension, -1 takes what is left.
pub(super) fn reshape(cx: &Context) -> Option<Vec<Fact>> {
    let Some(target) = cx.value(1) else {
        return one(cx.dtype(0), cx.length(1).map(|rank| cx.unknown_shape(0, rank)));
    };
    let allow_zero = cx.node.int("allowzero").unwrap_or(0) != 0;
    let (zero, minus_one) = (Dim::known(0), Dim::known(-1));
    let mut rest = None;
    let mut shape = Vec::with_capacity(target.len());
    for (axis, dim) in target.iter().enumerate() {
        shape.push(if *dim == zero && !allow_zero {
            cx.shape(0).and_then(|own| own.get(axis).cloned()).unwrap_or_else(|| cx.unknown(0, axis))
        } else if *dim == minus_one {
            rest = Some(axis);
            Dim::known(1)
        } else if dim.at_least(0) {
            dim.clone()
        } else {
            // It may turn out to be -1.
            cx.unknown(0, axis)
        });
    }
    if let Some(axis) = rest {
        shape[axis] = left_over(cx.shape(0), &shape).unwrap_or_else(|| cx.unknown(0, axis));
    }
    keep_elements(cx, Some(shape))
}

/// What is left for a dimension when the others, and 1 in its place, are taken.
fn left_over(own: Option<&[Dim]>, others: &[Dim]) -> Option<Dim> {
    let (total, taken) = (Dim::product(own?), Dim::product(others));
    (taken.as_known() != Some(0)).then(|| total.floor_div(&taken))
}

/// `Flatten` to two dimensions.
pub(super) fn flatten(cx: &Context) -> Option<Vec<Fact>> {
    let Some(shape) = cx.shape(0) else { return one(cx.dtype(0), Some(cx.unknown_shape(0, 2))) };
    let axis = cx.node.int("axis").unwrap_or(1);
    // An axis may equal the rank.
    let rank = i64::try_from(shape.len()).ok()?;
    let at = usize::try_from(if axis < 0 { axis.checked_add(rank)? } else { axis }).ok()?;
    let (outer, inner) = shape.split_at_checked(at)?;
    keep_elements(cx, Some(vec![Dim::product(outer), Dim::product(inner)]))
}

/// `Squeeze` of the given axes, or of every dimension of 1.
pub(super) fn squeeze(cx: &Context) -> Option<Vec<Fact>> {
    let Some(shape) = cx.shape(0) else { return one(cx.dtype(0), None) };
    let kept = if cx.has(1) {
        cx.ints(1).and_then(|axes| {
            let axes = axes.iter().map(|&axis| resolve_axis(axis, shape.len())).collect::<Option<Vec<_>>>()?;
            Some(shape.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, dim)| dim.clone()).collect())
        })
    } else {
        let one = Dim::known(1);
        let decided = shape.iter().all(|dim| *dim == one || dim.equal(&one).as_known() == Some(0));
        decided.then(|| shape.iter().filter(|dim| **dim != one).cloned().collect())
    };
    keep_elements(cx, kept)
}

/// `Unsqueeze` at the given axes of the output.
pub(super) fn unsqueeze(cx: &Context) -> Option<Vec<Fact>> {
    let Some(shape) = cx.shape(0) else { return one(cx.dtype(0), None) };
    let Some(axes) = cx.ints(1) else {
        return one(cx.dtype(0), cx.length(1).map(|more| cx.unknown_shape(0, shape.len() + more)));
    };
    let rank = shape.len() + axes.len();
    let axes = axes.iter().map(|&axis| resolve_axis(axis, rank)).collect::<Option<Vec<_>>>()?;
    let mut own = shape.iter();
    let dims = (0..rank).map(|axis| if axes.contains(&axis) { Some(Dim::known(1)) } else { own.next().cloned() });
    // Axes given twice leave dimensions over.
    let dims: Option<Vec<Dim>> = dims.collect();
    keep_elements(cx, dims.filter(|_| own.next().is_none()))
}
