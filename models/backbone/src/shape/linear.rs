//! Matrix products and quantised weights.

use std::collections::BTreeMap;

use super::context::{Context, broadcast, one};
use super::elementwise::of_onnx;
use super::{Dim, Fact};
use crate::ir::DType;

/// `MatMul` (and `MatMulInteger`), by NumPy's rules: a vector counts as a row on the left, a column on the right.
pub(super) fn mat_mul(cx: &Context) -> Option<Vec<Fact>> {
    let dtype = if cx.node.op == "MatMulInteger" { Some(DType::I32) } else { cx.dtype(0).or(cx.dtype(1)) };
    let Some((a, b)) = cx.shape(0).zip(cx.shape(1)) else { return one(dtype, None) };
    let (outer_a, rows) = match a {
        [] => return None,
        [_] => (&a[..0], None),
        [outer @ .., rows, _] => (outer, Some(rows)),
    };
    let (outer_b, columns) = match b {
        [] => return None,
        [_] => (&b[..0], None),
        [outer @ .., _, columns] => (outer, Some(columns)),
    };
    let mut shape = broadcast(outer_a, outer_b);
    shape.extend(rows.into_iter().chain(columns).cloned());
    one(dtype, Some(shape))
}

/// `Gemm`.
pub(super) fn gemm(cx: &Context) -> Option<Vec<Fact>> {
    let side = |input: usize, attribute: &str, axis: usize| {
        let axis = if cx.node.int(attribute).unwrap_or(0) != 0 { 1 - axis } else { axis };
        cx.shape(input).and_then(|shape| shape.get(axis).cloned()).unwrap_or_else(|| cx.unknown(0, input))
    };
    one(cx.dtype(0).or(cx.dtype(1)), Some(vec![side(0, "transA", 0), side(1, "transB", 1)]))
}

/// `MatMulNBits`: the weight is `[N, blocks, bytes]`, the output's last dimension N.
pub(super) fn mat_mul_n_bits(cx: &Context) -> Option<Vec<Fact>> {
    let columns = Dim::known(cx.node.int("N").filter(|&n| n >= 0)?);
    let shape = cx.shape(0).and_then(|shape| {
        let (_, outer) = shape.split_last()?;
        Some([outer, &[columns]].concat())
    });
    one(cx.dtype(0), shape)
}

/// `Einsum`, without an ellipsis.
pub(super) fn einsum(cx: &Context) -> Option<Vec<Fact>> {
    let dtype = (0..cx.node.inputs.len()).find_map(|i| cx.dtype(i));
    one(dtype, einsum_shape(cx))
}

fn einsum_shape(cx: &Context) -> Option<Vec<Dim>> {
    let equation: String = cx.node.str("equation")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (terms, output) = match equation.split_once("->") {
        Some((terms, output)) => (terms, Some(output.to_string())),
        None => (equation.as_str(), None),
    };
    let mut sizes: BTreeMap<char, Dim> = BTreeMap::new();
    let terms: Vec<&str> = terms.split(',').collect();
    if terms.len() != cx.node.inputs.len() {
        return None;
    }
    for (i, term) in terms.iter().enumerate() {
        let shape = cx.shape(i)?;
        if term.chars().count() != shape.len() {
            return None;
        }
        for (letter, dim) in term.chars().zip(shape) {
            let size = sizes.get(&letter).map_or_else(|| dim.clone(), |size| size.broadcast(dim));
            sizes.insert(letter, size);
        }
    }
    // Without an output, the letters that occur once, in alphabetical order.
    let once = |letter: &&char| terms.iter().flat_map(|term| term.chars()).filter(|c| c == *letter).count() == 1;
    let output = output.unwrap_or_else(|| sizes.keys().filter(once).collect());
    output.chars().map(|letter| sizes.get(&letter).cloned()).collect()
}

/// `DequantizeLinear`, of the scale's type.
pub(super) fn dequantize(cx: &Context) -> Option<Vec<Fact>> {
    one(cx.dtype(1), cx.shape(0).map(<[Dim]>::to_vec))
}

/// `QuantizeLinear`, of the zero point's type.
pub(super) fn quantize(cx: &Context) -> Option<Vec<Fact>> {
    let stated = cx.node.int("output_dtype").filter(|&number| number != 0).and_then(of_onnx);
    let dtype = if cx.has(2) { cx.dtype(2) } else { stated.or(Some(DType::U8)) };
    one(dtype, cx.shape(0).map(<[Dim]>::to_vec))
}

/// `DynamicQuantizeLinear`: the quantised tensor, its scale and zero point.
pub(super) fn dynamic_quantize(cx: &Context) -> Option<Vec<Fact>> {
    let scalar = |dtype| Fact::new(Some(dtype), Some(Vec::new()));
    let quantised = Fact::new(Some(DType::U8), cx.shape(0).map(<[Dim]>::to_vec));
    Some(vec![quantised, scalar(DType::F32), scalar(DType::U8)])
}
