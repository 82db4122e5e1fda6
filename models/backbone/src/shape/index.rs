//! Operators that read by index.

use super::compose::length;
use super::context::{Context, one, resolve_axis};
use super::view::fill;
use super::{Dim, Fact};
use crate::ir::DType;

/// `Gather`: the axis gives way to the dimensions of the indices.
pub(super) fn gather(cx: &Context) -> Option<Vec<Fact>> {
    let dtype = cx.dtype(0);
    let Some((data, indices)) = cx.shape(0).zip(cx.shape(1)) else { return one(dtype, None) };
    let axis = cx.axis(0, data.len())?;
    let shape = [&data[..axis], indices, &data[axis + 1..]].concat();
    let value = gathered(cx, &shape, axis, indices.len());
    Some(vec![Fact { dtype, shape: Some(shape), value }])
}

fn gathered(cx: &Context, shape: &[Dim], axis: usize, indices: usize) -> Option<Vec<Dim>> {
    let (sizes, index_sizes) = (cx.sizes(0)?, cx.sizes(1)?);
    let (data, at) = (cx.view(0, &sizes)?, cx.view(1, &index_sizes)?);
    fill(shape, |index| {
        let (before, rest) = index.split_at(axis);
        let (middle, after) = rest.split_at(indices);
        let row = resolve_axis(at.at(middle)?.as_known()?, *sizes.get(axis)?)?;
        data.at(&[before, &[row], after].concat()).cloned()
    })
}

/// `GatherElements`: as many elements as there are indices.
pub(super) fn gather_elements(cx: &Context) -> Option<Vec<Fact>> {
    one(cx.dtype(0), cx.shape(1).map(<[Dim]>::to_vec))
}

/// `GatherND`: the indices' last dimension says how many of the data's each entry fixes.
pub(super) fn gather_nd(cx: &Context) -> Option<Vec<Fact>> {
    let shape = cx.shape(0).zip(cx.shape(1)).and_then(|(data, indices)| {
        let batch = usize::try_from(cx.node.int("batch_dims").unwrap_or(0)).ok()?;
        let (depth, outer) = indices.split_last()?;
        let fixed = batch.checked_add(usize::try_from(depth.as_known()?).ok()?)?;
        Some([outer, data.get(fixed..)?].concat())
    });
    one(cx.dtype(0), shape)
}

/// `OneHot`: a new dimension of the given depth, by default the last.
pub(super) fn one_hot(cx: &Context) -> Option<Vec<Fact>> {
    let shape = match cx.shape(0) {
        Some(indices) => {
            let axis = cx.axis(-1, indices.len() + 1)?;
            let depth = cx.value(1).and_then(<[Dim]>::first).cloned().unwrap_or_else(|| cx.unknown(0, axis));
            let mut shape = indices.to_vec();
            shape.insert(axis, depth);
            Some(shape)
        }
        None => None,
    };
    one(cx.dtype(2), shape)
}

/// `NonZero`: a column of coordinates for each element found.
pub(super) fn non_zero(cx: &Context) -> Option<Vec<Fact>> {
    let rank = cx.shape(0).map_or_else(|| cx.unknown(0, 0), |shape| length(shape.len()));
    one(Some(DType::I64), Some(vec![rank, cx.unknown(0, 1)]))
}
