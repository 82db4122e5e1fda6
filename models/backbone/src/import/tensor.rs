//! `TensorProto` to [`Weight`], with every declared size checked against the data before anything is allocated.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use fedtt_runtime::proto::{StringStringEntryProto, TensorProto};

use super::ImportError;
use crate::ir::{DType, Data, Weight};

/// Tensors below this many bytes are read into memory even when the model keeps them in another file.
const SMALL: usize = 1024;

/// No tensor of a real model has more elements.
const MAX_ELEMENTS: usize = 1 << 42;

/// Where a model's external data lies.
pub(super) struct Source {
    folder: PathBuf,
    files: HashMap<String, (Arc<PathBuf>, u64)>,
}

impl Source {
    /// External data is looked for beside `model`.
    pub(super) fn beside(model: &Path) -> Self {
        let folder = model.parent().map(Path::to_path_buf).unwrap_or_default();
        Source { folder, files: HashMap::new() }
    }

    /// The constant that `tensor` declares.
    pub(super) fn weight(&mut self, mut tensor: TensorProto) -> Result<Weight, ImportError> {
        let name = std::mem::take(&mut tensor.name);
        let dtype = dtype(&name, tensor.data_type)?;
        let shape = dims(&name, &tensor.dims)?;
        if tensor.segment.is_some() {
            return Err(ImportError::tensor(&name, "is stored in segments, which is not supported"));
        }
        let mut weight = Weight { dtype, shape, data: Data::Bytes(Arc::new([])) };
        if tensor.data_location == Some(1) {
            weight.data = self.external(&name, &tensor.external_data, weight.byte_len())?;
            if weight.byte_len() < SMALL {
                let bytes = weight.bytes().map_err(|source| self.unreadable(&weight, source))?;
                weight.data = Data::Bytes(bytes);
            }
            return Ok(weight);
        }
        let bytes = if tensor.raw_data.is_empty() { typed_bytes(dtype, &tensor) } else { tensor.raw_data };
        if bytes.len() != weight.byte_len() {
            let needed = weight.byte_len();
            let message = format!("holds {} bytes where its type and shape need {needed}", bytes.len());
            return Err(ImportError::tensor(&name, message));
        }
        weight.data = Data::Bytes(bytes.into());
        Ok(weight)
    }

    fn unreadable(&self, weight: &Weight, source: std::io::Error) -> ImportError {
        let path = match &weight.data {
            Data::File { path, .. } => path.as_ref().clone(),
            Data::Bytes(_) => self.folder.clone(),
        };
        ImportError::Io { path, source }
    }

    fn external(&mut self, name: &str, entries: &[StringStringEntryProto], needed: usize) -> Result<Data, ImportError> {
        let entry = |key: &str| entries.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let number = |key: &str| match entry(key) {
            Some(text) => text.trim().parse::<u64>().map(Some).map_err(|_| {
                ImportError::tensor(name, format!("its external data's {key} `{text}` is not a number of bytes"))
            }),
            None => Ok(None),
        };
        let location = entry("location").filter(|l| !l.is_empty());
        let location = location.ok_or_else(|| ImportError::tensor(name, "its external data has no location"))?;
        let (path, size) = self.file(name, location)?;
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or(needed as u64);
        if length != needed as u64 {
            let message = format!("its external data has {length} bytes where its type and shape need {needed}");
            return Err(ImportError::tensor(name, message));
        }
        if offset.checked_add(length).is_none_or(|end| end > size) {
            let message =
                format!("ends beyond `{location}`, which has {size} bytes: the file is cut short or another's");
            return Err(ImportError::tensor(name, message));
        }
        Ok(Data::File { path, offset })
    }

    fn file(&mut self, name: &str, location: &str) -> Result<(Arc<PathBuf>, u64), ImportError> {
        if let Some(known) = self.files.get(location) {
            return Ok(known.clone());
        }
        let inside = Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !inside || location.contains(['\0', '\\']) {
            let message = format!("its external data `{location}` lies outside the model's folder");
            return Err(ImportError::tensor(name, message));
        }
        let path = self.folder.join(location);
        let metadata = fs::metadata(&path).map_err(|source| ImportError::Io { path: path.clone(), source })?;
        if !metadata.is_file() {
            return Err(ImportError::tensor(name, format!("its external data `{location}` is not a file")));
        }
        let file = (Arc::new(path), metadata.len());
        self.files.insert(location.to_string(), file.clone());
        Ok(file)
    }
}

/// The element type with ONNX's number `number`, for the tensor `name`.
pub(super) fn dtype(name: &str, number: i32) -> Result<DType, ImportError> {
    use DType::*;
    let all = [F32, F64, F16, BF16, I64, I32, I16, I8, I4, U64, U32, U16, U8, U4, Bool];
    all.into_iter().find(|d| d.onnx() == i64::from(number)).ok_or_else(|| {
        let kind = match number {
            0 => "has no element type".to_string(),
            8 => "holds strings, which are not supported".to_string(),
            14 | 15 => "holds complex numbers, which are not supported".to_string(),
            17..=20 => "holds 8-bit floats, which are not supported".to_string(),
            other => format!("has element type {other}, which is not supported"),
        };
        ImportError::tensor(name, kind)
    })
}

fn dims(name: &str, dims: &[i64]) -> Result<Vec<usize>, ImportError> {
    let mut elements = 1usize;
    let mut shape = Vec::with_capacity(dims.len());
    for &dim in dims {
        let size = usize::try_from(dim).map_err(|_| ImportError::tensor(name, format!("has dimension {dim}")))?;
        elements = elements
            .checked_mul(size.max(1))
            .filter(|&n| n <= MAX_ELEMENTS)
            .ok_or_else(|| ImportError::tensor(name, format!("is absurdly large: {dims:?}")))?;
        shape.push(size);
    }
    Ok(shape)
}

/// The typed fields in `raw_data` layout. In `int32_data` each element of a narrower type takes a whole entry, and each
/// pair of 4-bit elements one.
fn typed_bytes(dtype: DType, tensor: &TensorProto) -> Vec<u8> {
    let ints = &tensor.int32_data;
    match dtype {
        DType::F32 => tensor.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F64 => tensor.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I64 => tensor.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U64 => tensor.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U32 => tensor.uint64_data.iter().flat_map(|&v| (v as u32).to_le_bytes()).collect(),
        DType::I32 => ints.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I16 | DType::U16 | DType::F16 | DType::BF16 => {
            ints.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect()
        }
        DType::I8 | DType::U8 | DType::Bool | DType::I4 | DType::U4 => ints.iter().map(|&v| v as u8).collect(),
    }
}
