//! Where integers come from: `Shape`, `Size`, `Range` and constants.

use super::context::{Context, one};
use super::view::fill;
use super::{Dim, Fact};
use crate::ir::{Attr, DType, Weight};

/// `Shape`, of all dimensions or of those from `start` to `end`.
pub(super) fn shape(cx: &Context) -> Option<Vec<Fact>> {
    let Some(shape) = cx.shape(0) else {
        return one(Some(DType::I64), Some(cx.unknown_shape(0, 1)));
    };
    let rank = i64::try_from(shape.len()).ok()?;
    let clamp = |at: i64| usize::try_from(if at < 0 { at.saturating_add(rank) } else { at }.clamp(0, rank)).ok();
    let (start, end) = (clamp(cx.node.int("start").unwrap_or(0))?, clamp(cx.node.int("end").unwrap_or(rank))?);
    let dims = shape.get(start..end.max(start))?.to_vec();
    Some(vec![Fact { dtype: Some(DType::I64), shape: Some(vec![length(dims.len())]), value: Some(dims) }])
}

/// `Size`.
pub(super) fn size(cx: &Context) -> Option<Vec<Fact>> {
    let value = cx.shape(0).map(|shape| vec![Dim::product(shape)]);
    Some(vec![Fact { dtype: Some(DType::I64), shape: Some(Vec::new()), value }])
}

/// `Range`: as many elements as there are steps from start to limit.
pub(super) fn range(cx: &Context) -> Option<Vec<Fact>> {
    let dtype = (0..3).find_map(|i| cx.dtype(i));
    let scalar = |i: usize| cx.value(i).filter(|value| value.len() == 1).and_then(<[Dim]>::first);
    let known = |step: &Dim| step.as_known().filter(|&step| step != 0);
    let (Some(start), Some(limit), Some(step)) = (scalar(0), scalar(1), scalar(2).and_then(known)) else {
        return one(dtype, Some(cx.unknown_shape(0, 1)));
    };
    let shape = vec![(limit - start).ceil_div(&Dim::known(step)).max(&Dim::known(0))];
    let value =
        fill(&shape, |index| Some(start + &Dim::known(i64::try_from(*index.first()?).ok()?.checked_mul(step)?)));
    Some(vec![Fact { dtype, shape: Some(shape), value }])
}

/// `Constant`, of which a graph has none after import, though subgraphs may.
pub(super) fn constant(cx: &Context) -> Option<Vec<Fact>> {
    let known = |values: &[i64], shape| Fact {
        dtype: Some(DType::I64),
        shape: Some(shape),
        value: Some(values.iter().copied().map(Dim::known).collect()),
    };
    let floats = |shape| Fact::new(Some(DType::F32), Some(shape));
    let fact = match cx.node.attrs.iter().next()? {
        (name, Attr::Tensor(weight)) if name == "value" => Fact::of_weight(weight),
        (name, Attr::Int(value)) if name == "value_int" => known(&[*value], Vec::new()),
        (name, Attr::Ints(values)) if name == "value_ints" => known(values, vec![length(values.len())]),
        (name, Attr::Float(value)) if name == "value_float" => Fact::of_weight(&Weight::f32s(&[], &[*value])),
        (name, Attr::Floats(values)) if name == "value_floats" => floats(vec![length(values.len())]),
        _ => return None,
    };
    Some(vec![fact])
}

/// `ConstantOfShape`, of float zeros if no value is given.
pub(super) fn constant_of_shape(cx: &Context) -> Option<Vec<Fact>> {
    let element = match cx.node.attrs.get("value") {
        Some(Attr::Tensor(weight)) => weight.clone(),
        _ => Weight::f32s(&[1], &[0.0]),
    };
    let shape = match cx.value(0) {
        Some(dims) => Some(dims.to_vec()),
        None => cx.length(0).map(|rank| cx.unknown_shape(0, rank)),
    };
    let single = Fact::of_weight(&element).value.and_then(|value| value.first().cloned());
    let value = shape.as_deref().zip(single).and_then(|(shape, single)| fill(shape, |_| Some(single.clone())));
    Some(vec![Fact { dtype: Some(element.dtype), shape, value }])
}

/// A number of elements as a dimension.
pub(super) fn length(count: usize) -> Dim {
    Dim::known(i64::try_from(count).unwrap_or(i64::MAX))
}
