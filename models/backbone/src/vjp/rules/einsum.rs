//! Sums of products over named axes.

use super::{Builder, Call, Grads};
use crate::ir::Attr;
use crate::vjp::VjpError;

/// d x_i = the einsum of dy and the other operands onto x_i's axes.
pub(super) fn einsum(b: &mut Builder, call: &Call<'_>) -> Grads {
    let (operands, output) = parse(call)?;
    let mut grads = vec![None; operands.len()];
    for i in (0..operands.len()).filter(|&i| call.wants(i)) {
        let mut labels = vec![output.as_str()];
        let mut values = vec![call.dy()?];
        for j in (0..operands.len()).filter(|&j| j != i) {
            labels.push(&operands[j]);
            values.push(call.x(j)?);
        }
        if operands[i].chars().any(|c| !labels.iter().any(|l| l.contains(c))) {
            return Err(call.error("it sums an operand over an axis no other has; re-export with MatMul and ReduceSum"));
        }
        let equation = format!("{}->{}", labels.join(","), operands[i]);
        grads[i] = Some(b.op("Einsum", &values, &[("equation", Attr::Str(equation))]));
    }
    Ok(grads)
}

/// The axes' letters of each operand and of the result.
fn parse(call: &Call<'_>) -> Result<(Vec<String>, String), VjpError> {
    let equation: String = call.node.str("equation").unwrap_or("").split_whitespace().collect();
    let refuse = || call.error(format!("equation `{equation}` has no rule; it needs distinct letters and `->`"));
    let (operands, output) = equation.split_once("->").ok_or_else(refuse)?;
    let operands: Vec<String> = operands.split(',').map(str::to_string).collect();
    let plain = |labels: &str| {
        let distinct = labels.chars().enumerate().all(|(i, c)| !labels.chars().take(i).any(|earlier| earlier == c));
        distinct && labels.chars().all(|c| c.is_ascii_alphabetic())
    };
    if operands.len() != call.node.inputs.len() || !operands.iter().all(|o| plain(o)) || !plain(output) {
        return Err(refuse());
    }
    Ok((operands, output.to_string()))
}
