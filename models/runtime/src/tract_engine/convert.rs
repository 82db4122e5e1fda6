//! Tensors into tract and back.

use ndarray::{ArrayD, IxDyn};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::bail;

use crate::Tensor;

/// The element type tract knows `tensor` by.
pub(super) fn datum_type(tensor: &Tensor) -> DatumType {
    match tensor {
        Tensor::F32(_) => DatumType::F32,
        Tensor::I64(_) => DatumType::I64,
        Tensor::I32(_) => DatumType::I32,
        Tensor::Bool(_) => DatumType::Bool,
    }
}

/// Copies `tensor` into tract.
pub(super) fn into_tract(tensor: &Tensor) -> TractResult<TValue> {
    fn copy<T: Datum + Copy>(array: &ArrayD<T>) -> TractResult<TValue> {
        let standard = array.as_standard_layout();
        let data = standard.as_slice().unwrap_or_default();
        Ok(tract_onnx::prelude::Tensor::from_shape(array.shape(), data)?.into_tvalue())
    }
    match tensor {
        Tensor::F32(a) => copy(a),
        Tensor::I64(a) => copy(a),
        Tensor::I32(a) => copy(a),
        Tensor::Bool(a) => copy(a),
    }
}

/// Copies `value` out of tract, as one of the element types that cross the boundary.
pub(super) fn from_tract(value: &TValue) -> TractResult<Tensor> {
    fn copy<T: Datum + Copy>(value: &TValue) -> TractResult<ArrayD<T>> {
        let value = value.cast_to::<T>()?;
        let data = value.try_as_plain_ram()?.as_slice::<T>()?.to_vec();
        Ok(ArrayD::from_shape_vec(IxDyn(value.shape()), data)?)
    }
    Ok(match value.datum_type() {
        DatumType::F32 | DatumType::F16 | DatumType::F64 => Tensor::F32(copy(value)?),
        DatumType::I64 | DatumType::TDim => Tensor::I64(copy(value)?),
        DatumType::I32 => Tensor::I32(copy(value)?),
        DatumType::Bool => Tensor::Bool(copy(value)?),
        other => bail!("{other:?} elements are not passed on"),
    })
}
