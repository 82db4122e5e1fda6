//! Casts to int64 that stay numbers.
//!
//! tract reads every cast to int64 as one to its symbolic dimensions, for graphs whose shapes stay open, and several
//! of its kernels (CumSum, slices to the end) do not take those. Plans here have no open shapes.

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_hir::internal::*;

use super::lower::int;
use super::proto::tensor_proto::DataType;

/// Replaces tract's Cast.
pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("Cast", read);
}

fn read(_: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let to = int(node, "to").and_then(|to| i32::try_from(to).ok()).context("Cast needs the attribute `to`")?;
    let to: DatumType = DataType::try_from(to)?.try_into()?;
    Ok((expand(Cast { to }), vec![]))
}

#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct Cast {
    to: DatumType,
}

impl Expansion for Cast {
    fn name(&self) -> StaticName {
        "Cast".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, self.to.bex())?;
        solver.equals(&outputs[0].rank, &inputs[0].rank)?;
        solver.equals(&outputs[0].shape, &inputs[0].shape)?;
        Ok(())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, cast(self.to), &[inputs[0]])
    }
}
