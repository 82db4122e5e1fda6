//! Small pieces the rules are written with.

use crate::ir::{Attr, Builder, DType, Node, Weight};
use crate::shape::Dim;

pub(crate) fn add(b: &mut Builder, x: &str, y: &str) -> String {
    b.op("Add", &[x, y], &[])
}

pub(crate) fn sub(b: &mut Builder, x: &str, y: &str) -> String {
    b.op("Sub", &[x, y], &[])
}

pub(crate) fn mul(b: &mut Builder, x: &str, y: &str) -> String {
    b.op("Mul", &[x, y], &[])
}

pub(crate) fn div(b: &mut Builder, x: &str, y: &str) -> String {
    b.op("Div", &[x, y], &[])
}

pub(crate) fn neg(b: &mut Builder, x: &str) -> String {
    b.op("Neg", &[x], &[])
}

/// `x * factor`.
pub(crate) fn scale(b: &mut Builder, x: &str, factor: f32) -> String {
    if factor == 1.0 {
        return x.to_string();
    }
    let factor = b.scalar_like(factor, x);
    mul(b, x, &factor)
}

/// `x + offset`.
pub(crate) fn offset(b: &mut Builder, x: &str, offset: f32) -> String {
    let offset = b.scalar_like(offset, x);
    add(b, x, &offset)
}

/// `x` where `condition` holds, 0 elsewhere.
pub(crate) fn keep_where(b: &mut Builder, condition: &str, x: &str) -> String {
    let zero = b.scalar_like(0.0, x);
    b.op("Where", &[condition, x, &zero], &[])
}

/// 0 where `condition` holds, `x` elsewhere.
pub(crate) fn keep_unless(b: &mut Builder, condition: &str, x: &str) -> String {
    let zero = b.scalar_like(0.0, x);
    b.op("Where", &[condition, &zero, x], &[])
}

/// A reduction over `axes`.
pub(crate) fn reduce(b: &mut Builder, op: &str, x: &str, axes: &[i64], keepdims: bool) -> String {
    let axes = b.ints(axes);
    b.op(op, &[x, &axes], &[("keepdims", Attr::Int(keepdims.into()))])
}

/// `x` with its axes permuted; a permutation of a permutation is done in one.
pub(crate) fn transpose(b: &mut Builder, x: &str, perm: &[usize]) -> String {
    let source = producer(b, x).filter(|node| node.is("Transpose")).and_then(|node| {
        let inner = node.ints("perm")?;
        let composed: Option<Vec<usize>> =
            perm.iter().map(|&p| inner.get(p).and_then(|&q| usize::try_from(q).ok())).collect();
        Some((node.input(0)?.to_string(), composed?))
    });
    let (x, perm) = source.unwrap_or_else(|| (x.to_string(), perm.to_vec()));
    if perm.iter().enumerate().all(|(i, &p)| i == p) {
        return x;
    }
    b.op("Transpose", &[&x], &[("perm", Attr::Ints(perm.iter().map(|&p| p as i64).collect()))])
}

/// `x` with its last two axes swapped.
pub(crate) fn swap_last_two(b: &mut Builder, x: &str, rank: usize) -> String {
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    transpose(b, x, &perm)
}

/// The node that makes `value`.
pub(crate) fn producer<'a>(b: &'a Builder, value: &str) -> Option<&'a Node> {
    b.graph.nodes.iter().rev().find(|node| node.outputs.iter().any(|o| o == value))
}

/// The number a constant of one element holds.
pub(crate) fn constant_scalar(b: &Builder, value: &str) -> Option<f32> {
    b.graph.number(value)
}

/// The dimensions of `x` as a one-dimensional integer tensor, read from a graph input where one has them, so that no
/// activation is kept alive for its shape.
pub(crate) fn shape_of(b: &mut Builder, x: &str) -> String {
    let pieces = b.dims(x).and_then(|dims| dims.iter().map(|dim| shape_piece(b, dim)).collect::<Option<Vec<_>>>());
    let Some(pieces) = pieces else { return b.op("Shape", &[x], &[]) };

    let mut runs: Vec<ShapePiece> = Vec::new();
    for piece in pieces {
        match (runs.last_mut(), piece) {
            (Some(ShapePiece::Known(run)), ShapePiece::Known(more)) => run.extend(more),
            (Some(ShapePiece::Input { name, end, .. }), ShapePiece::Input { name: next, start, end: next_end })
                if *name == next && *end == start =>
            {
                *end = next_end;
            }
            (_, piece) => runs.push(piece),
        }
    }
    let vectors: Vec<String> = runs.into_iter().map(|run| run.emit(b)).collect();
    match vectors.as_slice() {
        [] => b.ints(&[]),
        [one] => one.clone(),
        many => b.op("Concat", &many.iter().map(String::as_str).collect::<Vec<_>>(), &[("axis", Attr::Int(0))]),
    }
}

/// Where one or more neighbouring dimensions come from.
enum ShapePiece {
    Known(Vec<i64>),
    Input { name: String, start: usize, end: usize },
}

impl ShapePiece {
    fn emit(self, b: &mut Builder) -> String {
        match self {
            ShapePiece::Known(values) => b.ints(&values),
            ShapePiece::Input { name, start, end } => {
                b.op("Shape", &[&name], &[("start", Attr::Int(start as i64)), ("end", Attr::Int(end as i64))])
            }
        }
    }
}

fn shape_piece(b: &Builder, dim: &Dim) -> Option<ShapePiece> {
    if let Some(value) = dim.as_known() {
        return Some(ShapePiece::Known(vec![value]));
    }
    b.graph.inputs.iter().find_map(|port| {
        let axis = b.facts.shape(&port.name)?.iter().position(|d| d == dim)?;
        Some(ShapePiece::Input { name: port.name.clone(), start: axis, end: axis + 1 })
    })
}

/// One dimension of `x` as a tensor of one integer.
pub(crate) fn dim_of(b: &mut Builder, x: &str, axis: usize) -> String {
    let dim = b.dims(x).and_then(|dims| dims.get(axis).cloned());
    match dim.and_then(|dim| shape_piece(b, &dim)) {
        Some(piece) => piece.emit(b),
        None => b.op("Shape", &[x], &[("start", Attr::Int(axis as i64)), ("end", Attr::Int(axis as i64 + 1))]),
    }
}

/// `g` in the shape of `x`, which has as many elements.
pub(crate) fn reshape_to(b: &mut Builder, g: &str, x: &str) -> String {
    let (have, want) = (b.dims(g), b.dims(x));
    if have.is_some() && have == want {
        return g.to_string();
    }
    let target = match static_target(have.as_deref(), want.as_deref()) {
        Some(target) => b.ints(&target),
        None => shape_of(b, x),
    };
    b.op("Reshape", &[g, &target], &[])
}

/// A constant `Reshape` target: numbers, 0 where a dimension stays in place, -1 for at most one other.
fn static_target(have: Option<&[Dim]>, want: Option<&[Dim]>) -> Option<Vec<i64>> {
    let mut target = Vec::new();
    for (i, dim) in want?.iter().enumerate() {
        let same = || have.is_some_and(|have| have.get(i) == Some(dim));
        target.push(match dim.as_known() {
            Some(0) => return None,
            Some(n) => n,
            None if same() => 0,
            None => -1,
        });
    }
    (target.iter().filter(|&&t| t == -1).count() <= 1).then_some(target)
}

/// Whether `g` is known to have extent 1 along an axis along which `x` may have more.
pub(crate) fn is_narrower(b: &Builder, g: &str, x: &str) -> bool {
    match (b.facts.shape(g), b.facts.shape(x)) {
        (Some(g), Some(x)) if g.len() == x.len() => {
            g.iter().zip(x).any(|(g, x)| g.as_known() == Some(1) && x.as_known() != Some(1))
        }
        _ => false,
    }
}

/// `g` broadcast to the shape of `x`.
pub(crate) fn expand_to(b: &mut Builder, g: &str, x: &str) -> String {
    let shape = shape_of(b, x);
    b.op("Expand", &[g, &shape], &[])
}

/// Zeros of the type and shape of `x`.
pub(crate) fn zeros_like(b: &mut Builder, x: &str) -> String {
    let shape = shape_of(b, x);
    let zeros = b.op("ConstantOfShape", &[&shape], &[("value", Attr::Tensor(Weight::f32s(&[1], &[0.0])))]);
    b.cast(&zeros, b.facts.dtype(x).unwrap_or(DType::F32))
}

/// `x` as a matrix: all axes but the last in one.
pub(crate) fn as_matrix(b: &mut Builder, x: &str, rank: usize) -> String {
    if rank == 2 {
        return x.to_string();
    }
    b.op("Flatten", &[x], &[("axis", Attr::Int(rank as i64 - 1))])
}

/// `Gemm` with its transposition flags.
pub(crate) fn gemm(b: &mut Builder, x: &str, y: &str, trans_a: bool, trans_b: bool, alpha: f32) -> String {
    let mut attrs = Vec::new();
    if trans_a {
        attrs.push(("transA", Attr::Int(1)));
    }
    if trans_b {
        attrs.push(("transB", Attr::Int(1)));
    }
    if alpha != 1.0 {
        attrs.push(("alpha", Attr::Float(alpha)));
    }
    b.op("Gemm", &[x, y], &attrs)
}
