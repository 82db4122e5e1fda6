//! The constants of a graph and of those around it, and their values.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use half::{bf16, f16};

use super::LowerError;
use crate::tract_engine::proto::TensorProto;
use crate::tract_engine::proto::tensor_proto::{DataLocation, DataType};

/// Constants by name.
pub(super) struct Constants<'a> {
    by_name: HashMap<&'a str, &'a TensorProto>,
    weights_dir: Option<&'a Path>,
}

impl<'a> Constants<'a> {
    pub(super) fn new(weights_dir: Option<&'a Path>) -> Self {
        Constants { by_name: HashMap::new(), weights_dir }
    }

    /// These and those of an inner graph, which hide the outer ones of the same name.
    pub(super) fn with<'b>(&self, initialisers: &'b [TensorProto]) -> Constants<'b>
    where
        'a: 'b,
    {
        let outer = self.by_name.iter().map(|(name, tensor)| (*name, *tensor));
        let inner = initialisers.iter().map(|tensor| (tensor.name.as_str(), tensor));
        Constants { by_name: outer.chain(inner).collect(), weights_dir: self.weights_dir }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a TensorProto> {
        self.by_name.get(name).copied()
    }

    /// The values of a float tensor, in order.
    pub(super) fn floats(&self, tensor: &TensorProto) -> Result<Vec<f32>, LowerError> {
        let count = elements(tensor)?;
        let kind = DataType::try_from(tensor.data_type);
        match kind {
            Ok(DataType::Float) if !tensor.float_data.is_empty() => checked(tensor, count, tensor.float_data.clone()),
            Ok(DataType::Float) => {
                let bytes = self.bytes(tensor, count * 4)?;
                Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
            }
            Ok(half @ (DataType::Float16 | DataType::Bfloat16)) => {
                let bits: Vec<u16> = if tensor.int32_data.is_empty() {
                    let bytes = self.bytes(tensor, count * 2)?;
                    bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
                } else {
                    checked(tensor, count, tensor.int32_data.iter().map(|x| *x as u16).collect())?
                };
                let widen = |b: u16| match half {
                    DataType::Float16 => f16::from_bits(b).to_f32(),
                    _ => bf16::from_bits(b).to_f32(),
                };
                Ok(bits.into_iter().map(widen).collect())
            }
            _ => Err(wrong(tensor, format!("holds elements of type {}, not floats", tensor.data_type))),
        }
    }

    /// The values of an 8- or 4-bit integer tensor, in order.
    pub(super) fn integers(&self, tensor: &TensorProto) -> Result<Vec<i32>, LowerError> {
        let count = elements(tensor)?;
        let kind = DataType::try_from(tensor.data_type).ok();
        let bits = kind.and_then(integer_bits).ok_or_else(|| {
            wrong(tensor, format!("holds elements of type {}, not 4- or 8-bit integers", tensor.data_type))
        })?;
        let signed = matches!(kind, Some(DataType::Int8 | DataType::Int4));
        let packed = (count * bits).div_ceil(8);
        let bytes: Cow<[u8]> = if tensor.int32_data.is_empty() {
            self.bytes(tensor, packed)?
        } else {
            checked(tensor, packed, tensor.int32_data.iter().map(|x| *x as u8).collect::<Vec<u8>>())?.into()
        };
        let value = |at: usize| {
            let raw = if bits == 8 { bytes[at] } else { (bytes[at / 2] >> (4 * (at % 2))) & 15 };
            let shift = 32 - bits;
            if signed { ((i32::from(raw)) << shift) >> shift } else { i32::from(raw) }
        };
        Ok((0..count).map(value).collect())
    }

    /// The raw data, which must have `length` bytes.
    fn bytes<'t>(&self, tensor: &'t TensorProto, length: usize) -> Result<Cow<'t, [u8]>, LowerError> {
        if tensor.data_location == Some(DataLocation::External as i32) {
            return Ok(self.external(tensor, length)?.into());
        }
        if tensor.raw_data.len() != length {
            return Err(wrong(tensor, format!("has {} bytes where its shape needs {length}", tensor.raw_data.len())));
        }
        Ok(tensor.raw_data.as_slice().into())
    }

    fn external(&self, tensor: &TensorProto, length: usize) -> Result<Vec<u8>, LowerError> {
        let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let folder = self.weights_dir.ok_or_else(|| wrong(tensor, "is outside the model, which has no folder"))?;
        let location = entry("location").ok_or_else(|| wrong(tensor, "has no location"))?;
        if !Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(wrong(tensor, format!("lies outside the model's folder, in {location}")));
        }
        let number = |key: &str| match entry(key) {
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| wrong(tensor, format!("has the {key} `{text}`"))),
            None => Ok(None),
        };
        let offset = number("offset")?.unwrap_or(0);
        if number("length")?.is_some_and(|stated| stated != length as u64) {
            return Err(wrong(tensor, format!("has a length other than the {length} bytes its shape needs")));
        }
        let path = folder.join(location);
        let read = || {
            let mut file = File::open(&path)?;
            // Before anything is allocated: a shape may claim more than there is.
            if file.metadata()?.len() < offset.saturating_add(length as u64) {
                return Err(std::io::Error::other("the file is too short"));
            }
            let mut bytes = vec![0; length];
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|e: std::io::Error| wrong(tensor, format!("cannot be read from {}: {e}", path.display())))
    }
}

/// Bits of one element, for the integer types quantised weights come in.
pub(super) fn integer_bits(kind: DataType) -> Option<usize> {
    match kind {
        DataType::Int4 | DataType::Uint4 => Some(4),
        DataType::Int8 | DataType::Uint8 => Some(8),
        _ => None,
    }
}

/// The tensor's dimensions.
pub(super) fn dimensions(tensor: &TensorProto) -> Result<Vec<usize>, LowerError> {
    let dimension = |d: &i64| usize::try_from(*d).map_err(|_| wrong(tensor, format!("has the dimension {d}")));
    tensor.dims.iter().map(dimension).collect()
}

fn elements(tensor: &TensorProto) -> Result<usize, LowerError> {
    let product = dimensions(tensor)?.iter().try_fold(1_usize, |product, d| product.checked_mul(*d));
    // 8 bytes an element still fit a usize, so that no later product overflows.
    product.filter(|p| p.checked_mul(8).is_some()).ok_or_else(|| wrong(tensor, "is too large"))
}

fn checked<T>(tensor: &TensorProto, count: usize, values: Vec<T>) -> Result<Vec<T>, LowerError> {
    if values.len() == count {
        return Ok(values);
    }
    Err(wrong(tensor, format!("has {} values where its shape needs {count}", values.len())))
}

fn wrong(tensor: &TensorProto, reason: impl Into<String>) -> LowerError {
    LowerError::Constant { name: tensor.name.clone(), reason: reason.into() }
}
