//! Matrix products.

use super::emit::{as_matrix, gemm as product, reshape_to, shape_of, swap_last_two};
use super::{Builder, Call, Grads, unbroadcast};
use crate::ir::Attr;
use crate::vjp::VjpError;

/// dA = dY B^T, dB = A^T dY.
///
/// Where B is a matrix both are one `Gemm` over all rows, which reads B as it is stored; a `Transpose` of a frozen
/// weight would be folded into a second copy of it.
pub(super) fn matmul(b: &mut Builder, call: &Call<'_>) -> Grads {
    let (left, right) = (call.x(0)?, call.x(1)?);
    let (left_rank, right_rank) = (call.rank(b, left)?, call.rank(b, right)?);
    if left_rank >= 2 && right_rank == 2 { rows_by_matrix(b, call, left_rank) } else { batched(b, call) }
}

fn rows_by_matrix(b: &mut Builder, call: &Call<'_>, rank: usize) -> Grads {
    let (left, right) = (call.x(0)?, call.x(1)?);
    let rows = as_matrix(b, call.dy()?, rank);
    let mut grads = vec![None, None];
    if call.wants(0) {
        let grad = product(b, &rows, right, false, true, 1.0);
        grads[0] = Some(if rank == 2 { grad } else { reshape_rows(b, call, &grad, left)? });
    }
    if call.wants(1) {
        let left_rows = as_matrix(b, left, rank);
        grads[1] = Some(product(b, &left_rows, &rows, true, false, 1.0));
    }
    Ok(grads)
}

/// Rows [m, k] in the shape of `x` [.., k]. Where that has to be read at run time it is read from dY, which is at hand,
/// so that `x` need not be kept.
pub(super) fn reshape_rows(b: &mut Builder, call: &Call<'_>, rows: &str, x: &str) -> Result<String, VjpError> {
    let width = b.dims(x).and_then(|dims| dims.last()?.as_known());
    let free = b.dims(x).map_or(usize::MAX, |dims| dims.iter().filter(|d| d.as_known().is_none()).count());
    let Some(width) = width.filter(|_| free > 1) else { return Ok(reshape_to(b, rows, x)) };
    let dy = call.dy()?;
    let from = b.graph.nodes.len();
    let shape = shape_of(b, x);
    if !b.graph.nodes[from..].iter().any(|node| node.input(0) == Some(x)) {
        return Ok(b.op("Reshape", &[rows, &shape], &[]));
    }
    let leading = b.op("Shape", &[dy], &[("end", Attr::Int(-1))]);
    let width = b.ints(&[width]);
    let shape = b.op("Concat", &[&leading, &width], &[("axis", Attr::Int(0))]);
    Ok(b.op("Reshape", &[rows, &shape], &[]))
}

fn batched(b: &mut Builder, call: &Call<'_>) -> Grads {
    let (x_left, x_right) = (call.x(0)?, call.x(1)?);
    let (left, left_rank) = at_least_matrix(b, call, x_left, 0)?;
    let (right, right_rank) = at_least_matrix(b, call, x_right, 1)?;
    let mut dy = call.dy()?.to_string();
    for (x, axis) in [(x_left, -2), (x_right, -1)] {
        if call.rank(b, x)? == 1 {
            let axes = b.ints(&[axis]);
            dy = b.op("Unsqueeze", &[&dy, &axes], &[]);
        }
    }
    let mut grads = vec![None, None];
    if call.wants(0) {
        let transposed = swap_last_two(b, &right, right_rank);
        let full = b.op("MatMul", &[&dy, &transposed], &[]);
        let grad = unbroadcast(b, call, &full, &left)?;
        grads[0] = Some(reshape_to(b, &grad, x_left));
    }
    if call.wants(1) {
        let transposed = swap_last_two(b, &left, left_rank);
        let full = b.op("MatMul", &[&transposed, &dy], &[]);
        let grad = unbroadcast(b, call, &full, &right)?;
        grads[1] = Some(reshape_to(b, &grad, x_right));
    }
    Ok(grads)
}

/// A vector operand as the row (axis 0) or column (axis 1) `MatMul` takes it for.
fn at_least_matrix(b: &mut Builder, call: &Call<'_>, x: &str, axis: i64) -> Result<(String, usize), VjpError> {
    let rank = call.rank(b, x)?;
    if rank >= 2 {
        return Ok((x.to_string(), rank));
    }
    let axes = b.ints(&[axis]);
    Ok((b.op("Unsqueeze", &[x, &axes], &[]), 2))
}

/// Y = alpha A' B' + beta C, where ' is a transposition or nothing.
pub(super) fn gemm(b: &mut Builder, call: &Call<'_>) -> Grads {
    let (left, right, dy) = (call.x(0)?, call.x(1)?, call.dy()?);
    let alpha = call.node.float("alpha").unwrap_or(1.0);
    let beta = call.node.float("beta").unwrap_or(1.0);
    let flag = |name| call.node.int(name).unwrap_or(0) != 0;
    let (trans_a, trans_b) = (flag("transA"), flag("transB"));
    let mut grads = vec![None; call.node.inputs.len()];
    if call.wants(0) {
        grads[0] = Some(if trans_a {
            product(b, right, dy, trans_b, true, alpha)
        } else {
            product(b, dy, right, false, !trans_b, alpha)
        });
    }
    if call.wants(1) {
        grads[1] = Some(if trans_b {
            product(b, dy, left, true, trans_a, alpha)
        } else {
            product(b, left, dy, !trans_a, false, alpha)
        });
    }
    if call.wants(2) {
        let sum = unbroadcast(b, call, dy, call.x(2)?)?;
        grads[2] = Some(super::emit::scale(b, &sum, beta));
    }
    Ok(grads)
}
