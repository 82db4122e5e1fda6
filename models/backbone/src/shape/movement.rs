//! Operators that move, repeat or join elements.

use super::compose::length;
use super::context::{Context, broadcast, one, resolve_axis};
use super::view::{View, fill};
use super::{Dim, Fact};

/// `Transpose`.
pub(super) fn transpose(cx: &Context) -> Option<Vec<Fact>> {
    let Some(shape) = cx.shape(0) else { return one(cx.dtype(0), None) };
    let perm: Vec<usize> = match cx.node.ints("perm") {
        Some(perm) => perm.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<_>>()?,
        None => (0..shape.len()).rev().collect(),
    };
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..shape.len()) {
        return None;
    }
    let out: Vec<Dim> = perm.iter().map(|&axis| shape[axis].clone()).collect();
    let value = cx.sizes(0).and_then(|sizes| {
        let view = cx.view(0, &sizes)?;
        fill(&out, |index| {
            let mut own = vec![0; index.len()];
            perm.iter().zip(index).for_each(|(&axis, &i)| own[axis] = i);
            view.at(&own).cloned()
        })
    });
    Some(vec![Fact { dtype: cx.dtype(0), shape: Some(out), value }])
}

/// `Expand`, a broadcast against a shape.
pub(super) fn expand(cx: &Context) -> Option<Vec<Fact>> {
    let target = cx.value(1).map(<[Dim]>::to_vec).or_else(|| cx.length(1).map(|rank| cx.unknown_shape(0, rank)));
    let shape = cx.shape(0).zip(target).map(|(shape, target)| broadcast(shape, &target));
    let value = cx.sizes(0).and_then(|sizes| {
        let view = cx.view(0, &sizes)?;
        fill(shape.as_deref()?, |index| view.at_broadcast(index).cloned())
    });
    Some(vec![Fact { dtype: cx.dtype(0), shape, value }])
}

/// `Concat`.
pub(super) fn concat(cx: &Context) -> Option<Vec<Fact>> {
    let count = cx.node.inputs.len();
    let dtype = (0..count).find_map(|i| cx.dtype(i));
    let shapes: Vec<Option<&[Dim]>> = (0..count).map(|i| cx.shape(i)).collect();
    let Some(rank) = shapes.iter().flatten().map(|shape| shape.len()).next() else { return one(dtype, None) };
    if shapes.iter().flatten().any(|shape| shape.len() != rank) {
        return None;
    }
    let axis = resolve_axis(cx.node.int("axis")?, rank)?;
    let dim = |at: usize| {
        let mut dims = shapes.iter().map(|shape| shape.map(|shape| &shape[at]));
        if at == axis {
            // The sum, if every part is known.
            let parts: Option<Vec<&Dim>> = dims.collect();
            parts.map(|parts| parts.into_iter().fold(Dim::known(0), |sum, part| &sum + part))
        } else {
            // All are the same; a number says most.
            dims.clone().flatten().find(|dim| dim.as_known().is_some()).or_else(|| dims.find_map(|dim| dim)).cloned()
        }
    };
    let shape: Vec<Dim> = (0..rank).map(|at| dim(at).unwrap_or_else(|| cx.unknown(0, at))).collect();
    // With nothing before the axis the parts lie one after another.
    let outer = shape[..axis].iter().all(|dim| dim.as_known() == Some(1));
    let parts = || (0..count).map(|i| cx.value(i)).collect::<Option<Vec<_>>>();
    let value = outer.then(parts).flatten().map(|parts| parts.concat());
    Some(vec![Fact { dtype, shape: Some(shape), value }])
}

/// `Split` into sizes given as an input, or into equal parts.
pub(super) fn split(cx: &Context) -> Option<Vec<Fact>> {
    let count = cx.node.outputs.len();
    let dtype = cx.dtype(0);
    let Some(shape) = cx.shape(0) else { return Some(vec![Fact::new(dtype, None); count]) };
    let axis = cx.axis(0, shape.len())?;
    let whole = &shape[axis];
    let sizes: Vec<Dim> = if cx.has(1) {
        match cx.value(1) {
            Some(sizes) if sizes.len() == count => sizes.to_vec(),
            Some(_) => return None,
            None => (0..count).map(|output| cx.unknown(output, axis)).collect(),
        }
    } else {
        let parts = match cx.node.int("num_outputs") {
            Some(parts) => usize::try_from(parts).ok().filter(|&parts| parts == count)?,
            None => count,
        };
        // Equal parts, of which the last takes what is left.
        let part = whole.ceil_div(&length(parts));
        let last = whole - &(&part * &length(parts - 1));
        (0..parts).map(|i| if i + 1 == parts { last.clone() } else { part.clone() }).collect()
    };
    let own = cx.sizes(0);
    let view = own.as_ref().and_then(|own| cx.view(0, own));
    let mut start = Some(0);
    let facts = sizes.into_iter().map(|size| {
        let mut out = shape.to_vec();
        out[axis] = size.clone();
        let value = view.zip(start).and_then(|(view, start)| part_of(view, &out, axis, start));
        start = start.zip(size.as_known()).and_then(|(start, size)| usize::try_from(size).ok()?.checked_add(start));
        Fact { dtype, shape: Some(out), value }
    });
    Some(facts.collect())
}

fn part_of(view: View, out: &[Dim], axis: usize, start: usize) -> Option<Vec<Dim>> {
    fill(out, |index| {
        let mut own = index.to_vec();
        own[axis] += start;
        view.at(&own).cloned()
    })
}

/// `Pad`, of all axes or of those given.
pub(super) fn pad(cx: &Context) -> Option<Vec<Fact>> {
    let Some(shape) = cx.shape(0) else { return one(cx.dtype(0), None) };
    let axes: Option<Vec<usize>> = match cx.has(3) {
        true => cx.ints(3).and_then(|axes| axes.iter().map(|&axis| resolve_axis(axis, shape.len())).collect()),
        false => Some((0..shape.len()).collect()),
    };
    let pads = axes.zip(cx.value(1)).filter(|(axes, pads)| pads.len() == 2 * axes.len());
    let Some((axes, pads)) = pads else { return one(cx.dtype(0), Some(cx.unknown_shape(0, shape.len()))) };
    let mut out = shape.to_vec();
    for (i, &axis) in axes.iter().enumerate() {
        out[axis] = &(&out[axis] + &pads[i]) + &pads[i + axes.len()];
    }
    one(cx.dtype(0), Some(out))
}

/// `Tile`.
pub(super) fn tile(cx: &Context) -> Option<Vec<Fact>> {
    let Some(shape) = cx.shape(0) else { return one(cx.dtype(0), None) };
    let Some(repeats) = cx.value(1) else { return one(cx.dtype(0), Some(cx.unknown_shape(0, shape.len()))) };
    if repeats.len() != shape.len() {
        return None;
    }
    let out: Vec<Dim> = shape.iter().zip(repeats).map(|(dim, times)| dim * times).collect();
    let value = cx.sizes(0).and_then(|sizes| {
        let view = cx.view(0, &sizes)?;
        fill(&out, |index| {
            let own = index.iter().zip(&sizes).map(|(&i, &size)| i.checked_rem(size));
            view.at(&own.collect::<Option<Vec<_>>>()?).cloned()
        })
    });
    Some(vec![Fact { dtype: cx.dtype(0), shape: Some(out), value }])
}
