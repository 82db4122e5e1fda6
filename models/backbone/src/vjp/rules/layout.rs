//! Operators that move or repeat elements without computing on them.

use super::emit::{reduce, reshape_to, shape_of, transpose as permute};
use super::{Builder, Call, Grads, unbroadcast};
use crate::ir::Attr;

/// `Reshape`, `Flatten`, `Squeeze`, `Unsqueeze`: back to the shape of x.
pub(super) fn reshape(b: &mut Builder, call: &Call<'_>) -> Grads {
    call.first(reshape_to(b, call.dy()?, call.x(0)?))
}

/// The inverse permutation.
pub(super) fn transpose(b: &mut Builder, call: &Call<'_>) -> Grads {
    let rank = call.rank(b, call.x(0)?)?;
    let perm: Vec<i64> = match call.node.ints("perm") {
        Some(perm) => perm.to_vec(),
        None => (0..rank as i64).rev().collect(),
    };
    let mut inverse = vec![0; rank];
    for (i, &p) in perm.iter().enumerate() {
        let slot = usize::try_from(p).ok().and_then(|p| inverse.get_mut(p));
        *slot.ok_or_else(|| call.error("its permutation does not fit its input; the model is malformed"))? = i;
    }
    call.first(permute(b, call.dy()?, &inverse))
}

/// A sum over the axes that were expanded.
pub(super) fn expand(b: &mut Builder, call: &Call<'_>) -> Grads {
    let grad = unbroadcast(b, call, call.dy()?, call.x(0)?)?;
    call.first(grad)
}

/// A sum over the repetitions: dy as [r0, d0, r1, d1, ..], summed over the r.
pub(super) fn tile(b: &mut Builder, call: &Call<'_>) -> Grads {
    let (x, repeats) = (call.x(0)?, call.x(1)?);
    let rank = call.rank(b, x)? as i64;
    let column = b.ints(&[1]);
    let repeats = b.op("Unsqueeze", &[repeats, &column], &[]);
    let shape = shape_of(b, x);
    let shape = b.op("Unsqueeze", &[&shape, &column], &[]);
    let pairs = b.op("Concat", &[&repeats, &shape], &[("axis", Attr::Int(1))]);
    let flat = b.ints(&[2 * rank]);
    let target = b.op("Reshape", &[&pairs, &flat], &[]);
    let split = b.op("Reshape", &[call.dy()?, &target], &[]);
    let repetitions: Vec<i64> = (0..rank).map(|i| 2 * i).collect();
    let sum = reduce(b, "ReduceSum", &split, &repetitions, false);
    call.first(reshape_to(b, &sum, x))
}

/// The same triangle of dy.
pub(super) fn trilu(b: &mut Builder, call: &Call<'_>) -> Grads {
    let upper = Attr::Int(call.node.int("upper").unwrap_or(1));
    let mut inputs = vec![call.dy()?];
    inputs.extend(call.node.input(1));
    let grad = b.op("Trilu", &inputs, &[("upper", upper)]);
    call.first(grad)
}
