//! Reading and writing by index: what one reads, the other adds.

use super::emit::{expand_to, zeros_like};
use super::slicing::{Length, pad_with_zeros};
use super::{Builder, Call, Grads};
use crate::ir::{Attr, DType};
use crate::vjp::VjpError;

/// `zeros` with `updates` added at `indices`; half floats are summed in single precision, the only one engines have.
fn scatter_add(b: &mut Builder, op: &str, [zeros, indices, updates]: [&str; 3], axis: Option<usize>) -> String {
    let mut attrs = vec![("reduction", Attr::Str("add".into()))];
    attrs.extend(axis.map(|axis| ("axis", Attr::Int(axis as i64))));
    if b.facts.dtype(zeros) != Some(DType::F16) {
        return b.op(op, &[zeros, indices, updates], &attrs);
    }
    let (zeros, updates) = (b.cast(zeros, DType::F32), b.cast(updates, DType::F32));
    let sum = b.op(op, &[&zeros, indices, &updates], &attrs);
    b.cast(&sum, DType::F16)
}

/// Zeros in the shape of the first input, with `g` added along `axis` at the one-dimensional `indices`.
pub(super) fn scatter_along(
    b: &mut Builder,
    call: &Call<'_>,
    g: &str,
    indices: &str,
    axis: usize,
) -> Result<String, VjpError> {
    let x = call.x(0)?;
    let rank = call.rank(b, x)?;
    let zeros = zeros_like(b, x);
    if axis == 0 {
        let column = b.ints(&[1]);
        let indices = b.op("Unsqueeze", &[indices, &column], &[]);
        return Ok(scatter_add(b, "ScatterND", [&zeros, &indices, g], None));
    }
    let others: Vec<i64> = (0..rank).filter(|&i| i != axis).map(|i| i as i64).collect();
    let others = b.ints(&others);
    let indices = b.op("Unsqueeze", &[indices, &others], &[]);
    let indices = expand_to(b, &indices, g);
    Ok(scatter_add(b, "ScatterElements", [&zeros, &indices, g], Some(axis)))
}

/// One constant position: zeros around dy. Others: dy added at the indices.
pub(super) fn gather(b: &mut Builder, call: &Call<'_>) -> Grads {
    let (x, indices, dy) = (call.x(0)?, call.x(1)?, call.dy()?);
    let rank = call.rank(b, x)?;
    let axis = call.axis(call.node.int("axis").unwrap_or(0), rank)?;
    let index_rank = call.rank(b, indices)?;
    if let (true, Some([position])) = (index_rank <= 1, b.facts.ints(indices).as_deref()) {
        let mut row = dy.to_string();
        if index_rank == 0 {
            let axes = b.ints(&[axis as i64]);
            row = b.op("Unsqueeze", &[dy, &axes], &[]);
        }
        if position.unsigned_abs() > i32::MAX as u64 {
            return Err(call.error(format!("its index {position} lies outside its input; the model is malformed")));
        }
        let extent = Length::of_axis(b, x, axis);
        let margins = if *position >= 0 {
            (Length::Known(*position), extent.plus(b, &Length::Known(position + 1), -1))
        } else {
            (extent.plus(b, &Length::Known(*position), 1), Length::Known(-position - 1))
        };
        return call.first(pad_with_zeros(b, &row, rank, &[(axis, margins.0, margins.1)]));
    }
    if index_rank == 1 {
        let grad = scatter_along(b, call, dy, indices, axis)?;
        return call.first(grad);
    }
    let one = b.ints(&[-1]);
    let flat = b.op("Reshape", &[indices, &one], &[]);
    let mut pieces = Vec::new();
    if axis > 0 {
        pieces.push(b.op("Shape", &[dy], &[("end", Attr::Int(axis as i64))]));
    }
    pieces.push(one);
    if axis + 1 < rank {
        pieces.push(b.op("Shape", &[dy], &[("start", Attr::Int((axis + index_rank) as i64))]));
    }
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let target = b.op("Concat", &pieces, &[("axis", Attr::Int(0))]);
    let rows = b.op("Reshape", &[dy, &target], &[]);
    let grad = scatter_along(b, call, &rows, &flat, axis)?;
    call.first(grad)
}

/// dy added at the indices.
pub(super) fn gather_elements(b: &mut Builder, call: &Call<'_>) -> Grads {
    let x = call.x(0)?;
    let axis = call.axis(call.node.int("axis").unwrap_or(0), call.rank(b, x)?)?;
    let zeros = zeros_like(b, x);
    let grad = scatter_add(b, "ScatterElements", [&zeros, call.x(1)?, call.dy()?], Some(axis));
    call.first(grad)
}

/// dy added at the indices.
pub(super) fn gather_nd(b: &mut Builder, call: &Call<'_>) -> Grads {
    if call.node.int("batch_dims").unwrap_or(0) != 0 {
        return Err(call.error("batch_dims other than 0 has no rule; re-export without it"));
    }
    let zeros = zeros_like(b, call.x(0)?);
    let grad = scatter_add(b, "ScatterND", [&zeros, call.x(1)?, call.dy()?], None);
    call.first(grad)
}

/// dy goes to the data where nothing was written, and to the updates where they were.
pub(super) fn scatter_nd(b: &mut Builder, call: &Call<'_>) -> Grads {
    scatter(b, call, "GatherND", &[])
}

/// dy goes to the data where nothing was written, and to the updates where they were.
pub(super) fn scatter_elements(b: &mut Builder, call: &Call<'_>) -> Grads {
    let axis = Attr::Int(call.node.int("axis").unwrap_or(0));
    scatter(b, call, "GatherElements", &[("axis", axis)])
}

fn scatter(b: &mut Builder, call: &Call<'_>, reader: &str, attrs: &[(&str, Attr)]) -> Grads {
    let (indices, updates, dy) = (call.x(1)?, call.x(2)?, call.dy()?);
    let adds = match call.node.str("reduction").unwrap_or("none") {
        "none" => false,
        "add" => true,
        other => return Err(call.error(format!("reduction `{other}` has no rule; re-export without it"))),
    };
    let mut grads = vec![None; 3];
    if call.wants(0) {
        grads[0] = Some(if adds {
            dy.to_string()
        } else {
            let zeros = zeros_like(b, updates);
            b.op(&call.node.op, &[dy, indices, &zeros], attrs)
        });
    }
    if call.wants(2) {
        grads[2] = Some(b.op(reader, &[dy, indices], attrs));
    }
    Ok(grads)
}

/// The sum runs the other way.
pub(super) fn cum_sum(b: &mut Builder, call: &Call<'_>) -> Grads {
    let reverse = call.node.int("reverse").unwrap_or(0) == 0;
    let exclusive = call.node.int("exclusive").unwrap_or(0);
    let attrs = [("reverse", Attr::Int(reverse.into())), ("exclusive", Attr::Int(exclusive))];
    let grad = b.op("CumSum", &[call.dy()?, call.x(1)?], &attrs);
    call.first(grad)
}
