//! The tensors that cross the engine boundary.

use ndarray::{ArrayD, Axis, Slice};

/// A dense tensor going into or coming out of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    /// 32-bit floats: activations, factors, gradients.
    F32(ArrayD<f32>),
    /// 64-bit integers: token ids, masks, labels.
    I64(ArrayD<i64>),
    /// 32-bit integers.
    I32(ArrayD<i32>),
    /// Booleans.
    Bool(ArrayD<bool>),
}

impl Tensor {
    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        match self {
            Tensor::F32(a) => a.shape(),
            Tensor::I64(a) => a.shape(),
            Tensor::I32(a) => a.shape(),
            Tensor::Bool(a) => a.shape(),
        }
    }

    /// The entries `range` of the first dimension.
    pub fn rows(&self, range: std::ops::Range<usize>) -> Tensor {
        match self {
            Tensor::F32(a) => Tensor::F32(rows(a, range)),
            Tensor::I64(a) => Tensor::I64(rows(a, range)),
            Tensor::I32(a) => Tensor::I32(rows(a, range)),
            Tensor::Bool(a) => Tensor::Bool(rows(a, range)),
        }
    }

    /// The array, if it holds 32-bit floats.
    pub fn as_f32(&self) -> Option<&ArrayD<f32>> {
        match self {
            Tensor::F32(a) => Some(a),
            _ => None,
        }
    }

    /// The array, if it holds 64-bit integers.
    pub fn as_i64(&self) -> Option<&ArrayD<i64>> {
        match self {
            Tensor::I64(a) => Some(a),
            _ => None,
        }
    }
}

fn rows<T: Clone>(array: &ArrayD<T>, range: std::ops::Range<usize>) -> ArrayD<T> {
    array.slice_axis(Axis(0), Slice::from(range)).to_owned()
}

impl From<ArrayD<f32>> for Tensor {
    fn from(a: ArrayD<f32>) -> Self {
        Tensor::F32(a)
    }
}

impl From<ArrayD<i64>> for Tensor {
    fn from(a: ArrayD<i64>) -> Self {
        Tensor::I64(a)
    }
}
