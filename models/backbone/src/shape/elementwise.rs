//! Operators that work element by element, under broadcasting.

use super::context::{Context, broadcast, one};
use super::view::fill;
use super::{Dim, Fact};
use crate::ir::DType;

/// The shape the first `count` inputs broadcast to.
fn broadcast_inputs(cx: &Context, count: usize) -> Option<Vec<Dim>> {
    (1..count).try_fold(cx.shape(0)?.to_vec(), |shape, i| Some(broadcast(&shape, cx.shape(i)?)))
}

/// The elements `f` makes of the first `count` inputs' elements, all integers.
fn map(cx: &Context, count: usize, shape: Option<&[Dim]>, f: impl Fn(&[&Dim]) -> Option<Dim>) -> Option<Vec<Dim>> {
    let sizes: Vec<Vec<usize>> = (0..count).map(|i| cx.sizes(i)).collect::<Option<_>>()?;
    let views = sizes.iter().enumerate().map(|(i, sizes)| cx.view(i, sizes)).collect::<Option<Vec<_>>>()?;
    fill(shape?, |index| {
        let elements = views.iter().map(|view| view.at_broadcast(index)).collect::<Option<Vec<_>>>()?;
        f(&elements)
    })
}

/// Operators of one input that keep its type, and whose effect on integers is followed.
pub(super) fn unary(cx: &Context) -> Option<Vec<Fact>> {
    let fact = cx.fact(0)?;
    let zero = Dim::known(0);
    let element = |x: &Dim| match cx.node.op.as_str() {
        "Neg" => Some(-x),
        "Not" => Some(&Dim::known(1) - x),
        "Abs" => Some(x.max(&-x)),
        "Sign" => Some(&zero.less(x) - &x.less(&zero)),
        "Identity" | "Floor" | "Ceil" | "Round" => Some(x.clone()),
        _ => None,
    };
    let value = fact.value.as_ref().and_then(|value| value.iter().map(element).collect());
    Some(vec![Fact { value, ..fact.clone() }])
}

/// Operators whose output has the type and shape of their first input.
pub(super) fn like_first(cx: &Context) -> Option<Vec<Fact>> {
    let fact = cx.fact(0)?;
    one(fact.dtype, fact.shape.clone())
}

/// The same with the type in an attribute.
pub(super) fn like_first_typed(cx: &Context) -> Option<Vec<Fact>> {
    let fact = cx.fact(0)?;
    let dtype = cx.node.int("dtype").map_or(fact.dtype, of_onnx);
    one(dtype, fact.shape.clone())
}

/// Two inputs of one type.
pub(super) fn arithmetic(cx: &Context) -> Option<Vec<Fact>> {
    let shape = broadcast_inputs(cx, 2);
    let dtype = cx.dtype(0).or(cx.dtype(1).filter(|_| cx.node.op != "Pow"));
    let element = |x: &[&Dim]| {
        let [a, b] = x else { return None };
        match cx.node.op.as_str() {
            "Add" => Some(*a + *b),
            "Sub" => Some(*a - *b),
            "Mul" => Some(*a * *b),
            "Div" if dtype.is_some_and(DType::is_float) => a.div_exact(b),
            "Div" => Some(a.trunc_div(b)),
            "Mod" if cx.node.int("fmod").unwrap_or(0) == 0 => modulo(a, b),
            "Pow" => power(a, b),
            _ => None,
        }
    };
    let value = map(cx, 2, shape.as_deref(), element).filter(|_| dtype.is_some_and(is_wide));
    Some(vec![Fact { dtype, shape, value }])
}

/// `a` modulo `b`, with the sign of `b`.
fn modulo(a: &Dim, b: &Dim) -> Option<Dim> {
    (b.as_known() != Some(0)).then(|| a - &(&a.floor_div(b) * b))
}

fn power(a: &Dim, b: &Dim) -> Option<Dim> {
    let exponent = b.as_known().filter(|power| (0..=8).contains(power))?;
    Some((0..exponent).fold(Dim::known(1), |product, _| &product * a))
}

/// Types in which sizes neither wrap around nor are rounded.
fn is_wide(dtype: DType) -> bool {
    matches!(dtype, DType::I64 | DType::I32 | DType::F32 | DType::F64)
}

/// Any number of inputs of one type.
pub(super) fn variadic(cx: &Context) -> Option<Vec<Fact>> {
    let count = cx.node.inputs.len();
    let shape = broadcast_inputs(cx, count);
    let dtype = (0..count).find_map(|i| cx.dtype(i));
    let value = map(cx, count, shape.as_deref(), |x| {
        let (first, rest) = x.split_first()?;
        let f: fn(&Dim, &Dim) -> Dim = match cx.node.op.as_str() {
            "Min" => Dim::min,
            "Max" => Dim::max,
            _ => return None,
        };
        Some(rest.iter().fold((*first).clone(), |result, x| f(&result, x)))
    });
    Some(vec![Fact { dtype, shape, value }])
}

/// Two inputs, a boolean output.
pub(super) fn compare(cx: &Context) -> Option<Vec<Fact>> {
    let shape = broadcast_inputs(cx, 2);
    let one = Dim::known(1);
    let element = |x: &[&Dim]| {
        let [a, b] = x else { return None };
        Some(match cx.node.op.as_str() {
            "Equal" => a.equal(b),
            "Less" => a.less(b),
            "LessOrEqual" => a.less(&(*b + &one)),
            "Greater" => b.less(a),
            "GreaterOrEqual" => b.less(&(*a + &one)),
            // Truth values are 0 and 1.
            "And" => *a * *b,
            "Or" => a.max(b),
            "Xor" => &one - &a.equal(b),
            _ => return None,
        })
    };
    let value = map(cx, 2, shape.as_deref(), element);
    Some(vec![Fact { dtype: Some(DType::Bool), shape, value }])
}

/// One float input, a boolean output.
pub(super) fn predicate(cx: &Context) -> Option<Vec<Fact>> {
    one(Some(DType::Bool), cx.shape(0).map(<[Dim]>::to_vec))
}

/// `Where`.
pub(super) fn choose(cx: &Context) -> Option<Vec<Fact>> {
    let shape = broadcast_inputs(cx, 3);
    let dtype = cx.dtype(1).or(cx.dtype(2));
    let value = map(cx, 3, shape.as_deref(), |x| match x {
        [condition, yes, no] => Some(condition.select(yes, no)),
        _ => None,
    });
    Some(vec![Fact { dtype, shape, value }])
}

/// `Clip`, whose bounds are scalars and may be left out.
pub(super) fn clip(cx: &Context) -> Option<Vec<Fact>> {
    let fact = cx.fact(0)?;
    let bound = |i: usize| match cx.has(i) {
        true => cx.value(i).and_then(<[Dim]>::first).map(Some),
        false => Some(None),
    };
    let value = fact.value.as_ref().and_then(|value| {
        let (low, high) = (bound(1)?, bound(2)?);
        let clip = |x: &Dim| {
            let x = low.map_or(x.clone(), |low| x.max(low));
            high.map_or(x.clone(), |high| x.min(high))
        };
        Some(value.iter().map(clip).collect())
    });
    Some(vec![Fact { value, ..fact.clone() }])
}

/// `Cast` and `CastLike`.
pub(super) fn cast(cx: &Context) -> Option<Vec<Fact>> {
    let fact = cx.fact(0);
    let dtype = if cx.node.op == "CastLike" { cx.dtype(1) } else { cx.node.int("to").and_then(of_onnx) };
    let element = |x: &Dim| match dtype? {
        DType::Bool => Some(&Dim::known(1) - &x.equal(&Dim::known(0))),
        DType::I64 | DType::F32 | DType::F64 => Some(x.clone()),
        DType::I32 => Some(x.clone()).filter(|x| x.as_known().is_none_or(|x| i32::try_from(x).is_ok())),
        _ => None,
    };
    let value = fact.and_then(|fact| fact.value.as_ref()?.iter().map(element).collect());
    Some(vec![Fact { dtype, shape: fact.and_then(|fact| fact.shape.clone()), value }])
}

/// `Dropout`: output and mask.
pub(super) fn dropout(cx: &Context) -> Option<Vec<Fact>> {
    let fact = cx.fact(0)?;
    Some(vec![Fact::new(fact.dtype, fact.shape.clone()), Fact::new(Some(DType::Bool), fact.shape.clone())])
}

/// The element type of ONNX's number (`TensorProto.DataType`).
pub(super) fn of_onnx(number: i64) -> Option<DType> {
    use DType::*;
    [F32, F64, F16, BF16, I64, I32, I16, I8, I4, U64, U32, U16, U8, U4, Bool]
        .into_iter()
        .find(|dtype| dtype.onnx() == number)
}
