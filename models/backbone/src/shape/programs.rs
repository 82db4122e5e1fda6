//! Row programs.

use fedtt_runtime::rows::{Extent, PROGRAM, Program};

use super::context::{Context, broadcast};
use super::{Dim, Fact};
use crate::ir::DType;

/// What a program's outputs are: of the shape that its inputs are broadcast to, or with one number for each row.
pub(super) fn rows(context: &Context) -> Option<Vec<Fact>> {
    let program: Program = context.node.str(PROGRAM)?.parse().ok()?;
    let inputs = (0..program.inputs()).map(|i| context.shape(i)).collect::<Option<Vec<_>>>()?;
    let common = inputs.iter().fold(vec![Dim::known(1)], |common, dims| broadcast(&common, dims));
    let extent = |dims: &&[Dim]| if dims.last() == common.last() { Extent::Row } else { Extent::One };
    let extents = program.extents(&inputs.iter().map(extent).collect::<Vec<_>>());
    let fact = |&step: &usize| {
        let mut dims = common.clone();
        if let Some(last) = dims.last_mut().filter(|_| extents[step] == Extent::One) {
            *last = Dim::known(1);
        }
        Fact::new(Some(DType::F32), Some(dims))
    };
    Some(program.outputs().iter().map(fact).collect())
}
