//! Row programs as an operator of tract.

use std::sync::Arc;

use tract_linalg::multithread::{Executor, current_tract_executor};
use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::op_out_of_plan;
use tract_onnx::tract_hir::internal::*;

use crate::rows::{self, Extent, Program, RowShape};

/// Adds the operator to those tract reads.
pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert(rows::OPERATOR, read);
}

fn read(_: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let text = node.attribute.iter().find(|a| a.name == rows::PROGRAM).context("a row program has no text")?;
    let program: Program = std::str::from_utf8(&text.s)?.parse()?;
    Ok((expand(Rows { program: Arc::new(program) }), vec![]))
}

#[derive(Debug, Clone, PartialEq)]
struct Rows {
    program: Arc<Program>,
}

impl Rows {
    /// The shape of each output.
    fn outputs(&self, inputs: &[impl AsRef<[usize]>]) -> TractResult<(RowShape, Vec<Extent>)> {
        let dims: Vec<&[usize]> = inputs.iter().map(AsRef::as_ref).collect();
        let shape = RowShape::common(&dims).with_context(|| format!("shapes {dims:?} do not go together"))?;
        let extents = rows::output_extents(&self.program, &shape, &dims);
        Ok((shape, extents))
    }
}

impl Eq for Rows {}

impl Expansion for Rows {
    fn name(&self) -> StaticName {
        rows::OPERATOR.into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.program.outputs().len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.program.inputs())?;
        check_output_arity(outputs, self.program.outputs().len())?;
        for value in inputs.iter().chain(outputs) {
            solver.equals(&value.datum_type, f32::datum_type())?;
        }
        solver.given_all(inputs.iter().map(|input| &input.shape), move |solver, shapes| {
            let known =
                shapes.iter().map(|shape| shape.iter().map(|dim| Ok(dim.to_usize()?)).collect::<TractResult<Vec<_>>>());
            let (shape, extents) = self.outputs(&known.collect::<TractResult<Vec<_>>>()?)?;
            for (output, extent) in outputs.iter().zip(extents) {
                let dims: TVec<TDim> = shape.dims(extent).into_iter().map(|dim| dim.to_dim()).collect();
                solver.equals(&output.shape, dims)?;
            }
            Ok(())
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for Rows {
    fn name(&self) -> StaticName {
        rows::OPERATOR.into()
    }

    op_as_typed_op!();
}

impl TypedOp for Rows {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let known = inputs.iter().map(|fact| fact.shape.as_concrete().context("a row program's shapes are not known"));
        let (shape, extents) = self.outputs(&known.collect::<TractResult<Vec<_>>>()?)?;
        Ok(extents.into_iter().map(|extent| f32::fact(shape.dims(extent))).collect())
    }

    as_op!();
}

impl EvalOp for Rows {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let dims: Vec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
        let (shape, extents) = self.outputs(&dims)?;
        let data = inputs.iter().map(|input| input.try_as_plain_ram()).collect::<TractResult<Vec<_>>>()?;
        let data = data.iter().map(|input| input.as_slice::<f32>()).collect::<TractResult<Vec<_>>>()?;
        let fed: Vec<rows::Input<'_>> = dims.into_iter().zip(data).collect();
        let made = extents.iter().map(|&extent| Tensor::zero::<f32>(&shape.dims(extent)));
        let mut made = made.collect::<TractResult<Vec<_>>>()?;
        let mut plain = made.iter_mut().map(|output| output.try_as_plain_ram_mut()).collect::<TractResult<Vec<_>>>()?;
        let mut slices =
            plain.iter_mut().map(|output| output.as_slice_mut::<f32>()).collect::<TractResult<Vec<_>>>()?;
        rows::run(&self.program, &shape, &fed, &mut slices, |pieces, work| match current_tract_executor() {
            Executor::MultiThread(pool) if pieces > 1 => pool.scope(|scope| {
                (0..pieces).for_each(|piece| scope.spawn(move |_| work(piece)));
            }),
            _ => (0..pieces).for_each(work),
        });
        Ok(made.into_iter().map(IntoTValue::into_tvalue).collect())
    }
}
