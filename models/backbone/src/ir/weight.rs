//! Constant tensors: small ones in memory, large ones still in the file they came from.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

/// Element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DType {
    F32,
    F64,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    I4,
    U64,
    U32,
    U16,
    U8,
    U4,
    Bool,
}

impl DType {
    /// Bits per element.
    pub fn bits(self) -> usize {
        match self {
            DType::F64 | DType::I64 | DType::U64 => 64,
            DType::F32 | DType::I32 | DType::U32 => 32,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 16,
            DType::I8 | DType::U8 | DType::Bool => 8,
            DType::I4 | DType::U4 => 4,
        }
    }

    /// ONNX's number for this type (`TensorProto.DataType`).
    pub fn onnx(self) -> i64 {
        match self {
            DType::F32 => 1,
            DType::U8 => 2,
            DType::I8 => 3,
            DType::U16 => 4,
            DType::I16 => 5,
            DType::I32 => 6,
            DType::I64 => 7,
            DType::Bool => 9,
            DType::F16 => 10,
            DType::F64 => 11,
            DType::U32 => 12,
            DType::U64 => 13,
            DType::BF16 => 16,
            DType::U4 => 21,
            DType::I4 => 22,
        }
    }

    /// Whether values of this type carry gradients.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
    }
}

/// Where a weight's little-endian bytes are.
#[derive(Clone, Debug)]
pub enum Data {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In a file, read when asked for.
    File {
        /// The file.
        path: Arc<PathBuf>,
        /// First byte.
        offset: u64,
    },
}

/// A constant tensor.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Its bytes, in ONNX's `raw_data` layout (two 4-bit elements a byte, low nibble first).
    pub data: Data,
}

impl Weight {
    fn in_memory(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Self {
        Weight { dtype, shape: shape.to_vec(), data: Data::Bytes(bytes.into()) }
    }

    /// A tensor of 32-bit floats.
    pub fn f32s(shape: &[usize], values: &[f32]) -> Self {
        Self::in_memory(DType::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A tensor of 64-bit integers.
    pub fn i64s(shape: &[usize], values: &[i64]) -> Self {
        Self::in_memory(DType::I64, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A tensor of 16-, 32- or 64-bit floats, rounded to the nearest; 32 bits for any other type.
    pub fn floats(dtype: DType, shape: &[usize], values: &[f32]) -> Self {
        let bytes = match dtype {
            DType::F64 => values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
            DType::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            DType::BF16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            _ => return Self::f32s(shape, values),
        };
        Self::in_memory(dtype, shape, bytes)
    }

    /// A tensor of any type from its raw bytes.
    pub fn raw(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Self {
        Self::in_memory(dtype, shape, bytes)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in bytes.
    pub fn byte_len(&self) -> usize {
        (self.len() * self.dtype.bits()).div_ceil(8)
    }

    /// The bytes themselves.
    ///
    /// # Errors
    /// When the file that holds them cannot be read.
    pub fn bytes(&self) -> io::Result<Arc<[u8]>> {
        match &self.data {
            Data::Bytes(bytes) => Ok(bytes.clone()),
            Data::File { path, offset } => {
                let mut file = File::open(path.as_ref())?;
                file.seek(SeekFrom::Start(*offset))?;
                let mut bytes = vec![0; self.byte_len()];
                file.read_exact(&mut bytes)?;
                Ok(bytes.into())
            }
        }
    }

    /// The elements as 64-bit integers, for integer and boolean tensors of at least 8 bits.
    pub fn to_i64s(&self) -> Option<Vec<i64>> {
        let bytes = self.bytes().ok()?;
        let width = self.dtype.bits() / 8;
        let chunk = |c: &[u8]| -> Option<i64> {
            Some(match self.dtype {
                DType::I64 | DType::U64 => i64::from_le_bytes(c.try_into().ok()?),
                DType::I32 => i32::from_le_bytes(c.try_into().ok()?).into(),
                DType::U32 => u32::from_le_bytes(c.try_into().ok()?).into(),
                DType::I16 => i16::from_le_bytes(c.try_into().ok()?).into(),
                DType::U16 => u16::from_le_bytes(c.try_into().ok()?).into(),
                DType::I8 => i8::from_le_bytes(c.try_into().ok()?).into(),
                DType::U8 | DType::Bool => c[0].into(),
                _ => return None,
            })
        };
        if width == 0 { None } else { bytes.chunks_exact(width).map(chunk).collect() }
    }

    /// The elements as 32-bit floats, for floating-point tensors.
    pub fn to_f32s(&self) -> Option<Vec<f32>> {
        let bytes = self.bytes().ok()?;
        match self.dtype {
            DType::F32 => Some(bytes.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect()),
            DType::F64 => Some(bytes.as_chunks::<8>().0.iter().map(|c| f64::from_le_bytes(*c) as f32).collect()),
            DType::F16 => {
                Some(bytes.as_chunks::<2>().0.iter().map(|c| half::f16::from_le_bytes(*c).to_f32()).collect())
            }
            DType::BF16 => {
                Some(bytes.as_chunks::<2>().0.iter().map(|c| half::bf16::from_le_bytes(*c).to_f32()).collect())
            }
            _ => None,
        }
    }
}
