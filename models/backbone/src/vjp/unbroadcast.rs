//! The adjoint of broadcasting: a sum over the axes along which a value was repeated.

use super::call::{Call, VjpError};
use super::emit::{reduce, reshape_to};
use crate::ir::{Attr, Builder};

/// Sums `g` over the axes along which `x` was broadcast to it. Decided from the inferred shapes; where those leave it
/// open, at run time.
pub(crate) fn unbroadcast(b: &mut Builder, call: &Call<'_>, g: &str, x: &str) -> Result<String, VjpError> {
    call.rank(b, g)?;
    call.rank(b, x)?;
    let (Some(from), Some(to)) = (b.dims(g), b.dims(x)) else { return Ok(g.to_string()) };
    let Some(lead) = from.len().checked_sub(to.len()) else {
        return Err(call.error(format!("`{x}` has a higher rank than the result it is broadcast to")));
    };

    let mut axes: Vec<i64> = (0..lead as i64).collect();
    for (i, dim) in to.iter().enumerate() {
        let wide = &from[lead + i];
        match dim.as_known() {
            Some(1) if wide.as_known() != Some(1) => axes.push((lead + i) as i64),
            Some(_) => {}
            None if dim == wide || wide.as_known() == Some(1) => {}
            None => return Ok(unbroadcast_at_run_time(b, g, x, lead, from.len())),
        }
    }
    if axes.is_empty() {
        return Ok(g.to_string());
    }
    if axes.len() == lead {
        return Ok(reduce(b, "ReduceSum", g, &axes, false));
    }
    let sum = reduce(b, "ReduceSum", g, &axes, true);
    if lead == 0 {
        return Ok(sum);
    }
    let leading = b.ints(&(0..lead as i64).collect::<Vec<_>>());
    Ok(b.op("Squeeze", &[&sum, &leading], &[]))
}

/// Splits every axis of extent n of `g` into [m, n / m], where m is `x`'s extent there (1 or n), and sums over the
/// second parts: the axes summed over are the same whatever the shapes turn out to be.
fn unbroadcast_at_run_time(b: &mut Builder, g: &str, x: &str, lead: usize, rank: usize) -> String {
    let mut narrow = b.op("Shape", &[x], &[]);
    if lead > 0 {
        let ones = b.ints(&vec![1; lead]);
        narrow = b.op("Concat", &[&ones, &narrow], &[("axis", Attr::Int(0))]);
    }
    let wide = b.op("Shape", &[g], &[]);
    let one = b.ints(&[1]);
    let divisor = b.op("Max", &[&narrow, &one], &[]);
    let ratio = b.op("Div", &[&wide, &divisor], &[]);
    let column = b.ints(&[1]);
    let narrow_column = b.op("Unsqueeze", &[&narrow, &column], &[]);
    let ratio_column = b.op("Unsqueeze", &[&ratio, &column], &[]);
    let pairs = b.op("Concat", &[&narrow_column, &ratio_column], &[("axis", Attr::Int(1))]);
    let flat = b.ints(&[2 * rank as i64]);
    let target = b.op("Reshape", &[&pairs, &flat], &[]);
    let split = b.op("Reshape", &[g, &target], &[]);
    let odd: Vec<i64> = (0..rank as i64).map(|i| 2 * i + 1).collect();
    let sum = reduce(b, "ReduceSum", &split, &odd, false);
    reshape_to(b, &sum, x)
}
