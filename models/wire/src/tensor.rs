//! Tensors as typed arrays (RFC 8746), plain or quantised.

pub mod packed;

use half::{bf16, f16};
use ndarray::{ArrayD, ArrayViewD, IxDyn};

use crate::error::WireError;
use crate::plan::Encoding;

/// The values of one tensor, encoded. Its shape is the layout's; how several become CBOR is [`packed`]'s affair.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedTensor {
    /// The number format.
    pub encoding: Encoding,
    /// Whether bytes are grouped by significance: all lowest bytes first.
    pub shuffled: bool,
    /// What signed bytes are multiplied with; 1 for other formats.
    pub scale: f32,
    /// The bytes.
    pub data: Vec<u8>,
}

impl EncodedTensor {
    /// Encodes values, in row-major order. `shuffled` is by default on for wide formats of mostly non-zero values.
    pub fn encode(values: ArrayViewD<'_, f32>, encoding: Encoding, shuffle: Option<bool>) -> Self {
        let mut scale = 1.0;
        let mut data = Vec::with_capacity(values.len() * encoding.width());
        match encoding {
            Encoding::F32 => data = binary32(values.view()),
            Encoding::Bf16 => values.iter().for_each(|&x| data.extend(bf16::from_f32(x).to_le_bytes())),
            Encoding::F16 => values.iter().for_each(|&x| data.extend(f16::from_f32(x).to_le_bytes())),
            Encoding::Int8 => {
                let largest = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                scale = if largest.is_finite() && largest > 0.0 { largest / 127.0 } else { 1.0 };
                let inverse = 1.0 / scale;
                // A scale so small that it has no inverse belongs to values that are zero for all purposes.
                let inverse = if inverse.is_finite() { inverse } else { 0.0 };
                let quantise = |&x: &f32| (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
                data.extend(values.iter().map(|x| quantise(x).to_le_bytes()[0]));
            }
        }
        let width = encoding.width();
        let dense = || values.iter().filter(|x| **x == 0.0).count() * 2 < values.len();
        let shuffled = width > 1 && shuffle.unwrap_or_else(dense);
        if shuffled {
            data = group(&data, width);
        }
        EncodedTensor { encoding, shuffled, scale, data }
    }

    /// The narrowest encoding that keeps every bit: bfloat16 where all values fit, else binary32.
    pub fn lossless(values: ArrayViewD<'_, f32>) -> Self {
        let fits = values.iter().all(|&x| bf16::from_f32(x).to_f32().to_bits() == x.to_bits());
        Self::encode(values, if fits { Encoding::Bf16 } else { Encoding::F32 }, None)
    }

    /// The values, of shape `shape`.
    ///
    /// # Errors
    /// When the bytes are more or fewer than the shape needs, or a value is infinite or not a number.
    pub fn decode(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>, WireError> {
        let refuse = |reason: String| WireError::Tensor { name: name.to_string(), reason };
        let width = self.encoding.width();
        let expected = shape.iter().try_fold(width, |n, &d| n.checked_mul(d));
        if expected != Some(self.data.len()) {
            return Err(refuse(format!("{} bytes for shape {shape:?} of {width}-byte values", self.data.len())));
        }
        let plain;
        let data = if self.shuffled {
            plain = ungroup(&self.data, width);
            &plain
        } else {
            &self.data
        };
        let pair = |b: &[u8]| [b[0], b[1]];
        let values: Vec<f32> = match self.encoding {
            Encoding::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Encoding::Bf16 => data.chunks_exact(2).map(|b| bf16::from_le_bytes(pair(b)).to_f32()).collect(),
            Encoding::F16 => data.chunks_exact(2).map(|b| f16::from_le_bytes(pair(b)).to_f32()).collect(),
            Encoding::Int8 => data.iter().map(|&b| f32::from(i8::from_le_bytes([b])) * self.scale).collect(),
        };
        if !values.iter().all(|x| x.is_finite()) {
            return Err(refuse("holds a value that is infinite or not a number".to_string()));
        }
        ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|e| refuse(e.to_string()))
    }
}

impl Encoding {
    /// Bytes of a value.
    pub fn width(self) -> usize {
        match self {
            Encoding::F32 => 4,
            Encoding::Bf16 | Encoding::F16 => 2,
            Encoding::Int8 => 1,
        }
    }
}

/// Little-endian bytes of values in row-major order.
pub(crate) fn binary32(values: ArrayViewD<'_, f32>) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * 4];
    let places = bytes.chunks_exact_mut(4);
    match values.as_slice() {
        Some(values) => places.zip(values).for_each(|(place, x)| place.copy_from_slice(&x.to_le_bytes())),
        None => places.zip(&values).for_each(|(place, x)| place.copy_from_slice(&x.to_le_bytes())),
    }
    bytes
}

/// `a0 a1 b0 b1 ..` to `a0 b0 .. a1 b1 ..`.
fn group(data: &[u8], width: usize) -> Vec<u8> {
    let count = data.len() / width;
    let mut grouped = vec![0; data.len()];
    for (k, lane) in grouped.chunks_exact_mut(count.max(1)).enumerate() {
        lane.iter_mut().zip(data.iter().skip(k).step_by(width)).for_each(|(to, from)| *to = *from);
    }
    grouped
}

fn ungroup(data: &[u8], width: usize) -> Vec<u8> {
    let count = data.len() / width;
    let mut plain = vec![0; data.len()];
    for (k, lane) in data.chunks_exact(count.max(1)).enumerate() {
        plain.iter_mut().skip(k).step_by(width).zip(lane).for_each(|(to, from)| *to = *from);
    }
    plain
}

#[cfg(test)]
mod tests;
