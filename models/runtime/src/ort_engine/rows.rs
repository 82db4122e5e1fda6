//! Row programs as an operator of ONNX Runtime.

use std::ops::RangeInclusive;

use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::value::{TensorElementType, ValueRefMut};

use crate::rows::{self, Program, RowShape};

/// The operator set that models with row programs name.
pub(super) fn domain() -> ort::Result<OperatorDomain> {
    OperatorDomain::new(rows::DOMAIN)?.add(Rows)
}

struct Rows;

impl Operator for Rows {
    type Kernel<'attr> = RowsKernel;

    fn name(&self) -> &str {
        rows::OPERATOR
    }

    fn versions(&self) -> RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::variadic(1).homogenous(TensorElementType::Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::variadic(1).homogenous(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<RowsKernel> {
        let text: String = context.get(rows::PROGRAM).ok_or_else(|| ort::Error::new("it has no program"))?;
        Ok(RowsKernel { program: text.parse().map_err(|e: rows::ProgramError| ort::Error::new(e.to_string()))? })
    }
}

struct RowsKernel {
    program: Program,
}

impl Kernel for RowsKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let missing = || ort::Error::new("an input or output of the row program is missing");
        let inputs = (0..self.program.inputs())
            .map(|at| context.input(at)?.ok_or_else(missing))
            .collect::<ort::Result<Vec<_>>>()?;
        let inputs = inputs.iter().map(|input| input.try_extract_tensor::<f32>()).collect::<ort::Result<Vec<_>>>()?;
        let dims: Vec<Vec<usize>> = inputs
            .iter()
            .map(|(dims, _)| dims.iter().map(|&dim| usize::try_from(dim).unwrap_or_default()).collect())
            .collect();
        let borrowed: Vec<&[usize]> = dims.iter().map(Vec::as_slice).collect();
        let shape = RowShape::common(&borrowed)
            .ok_or_else(|| ort::Error::new(format!("shapes {dims:?} do not go together")))?;
        let extents = rows::output_extents(&self.program, &shape, &borrowed);
        let mut outputs = extents
            .iter()
            .enumerate()
            .map(|(at, &extent)| {
                let dims: Vec<i64> = shape.dims(extent).iter().map(|&dim| dim as i64).collect();
                context.output(at, dims)?.ok_or_else(missing)
            })
            .collect::<ort::Result<Vec<ValueRefMut<'_>>>>()?;
        let mut slices = outputs
            .iter_mut()
            .map(|output| Ok(output.try_extract_tensor_mut::<f32>()?.1))
            .collect::<ort::Result<Vec<_>>>()?;
        let inputs: Vec<rows::Input<'_>> =
            borrowed.iter().zip(&inputs).map(|(&dims, (_, data))| (dims, *data)).collect();
        let mut dealt = Ok(());
        rows::run(&self.program, &shape, &inputs, &mut slices, |pieces, work| dealt = context.par_for(pieces, 0, work));
        dealt
    }
}
