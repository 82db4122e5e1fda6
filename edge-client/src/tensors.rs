//! Named float32 tensors with a header, in one safetensors file.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::files::write_atomically;

/// Tensors by name, and one JSON header kept in the file's metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorFile {
    /// The header.
    pub header: String,
    /// The tensors.
    pub tensors: BTreeMap<String, ArrayD<f32>>,
}

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The system refused.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// read or write
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The content is not what it should be.
    #[error("{}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl TensorFile {
    /// Reads a file whose header stands under `key`.
    ///
    /// # Errors
    /// When the file cannot be read, is not safetensors, has no such header, or holds other than float32.
    pub fn read(path: &Path, key: &str) -> Result<Self, TensorFileError> {
        let io = |source| TensorFileError::Io { verb: "read", path: path.to_path_buf(), source };
        let bytes = std::fs::read(path).map_err(io)?;
        Self::parse(&bytes, key).map_err(|message| TensorFileError::Content { path: path.to_path_buf(), message })
    }

    fn parse(bytes: &[u8], key: &str) -> Result<Self, String> {
        let refuse = |e: safetensors::SafeTensorError| format!("not a safetensors file: {e}");
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(refuse)?;
        let header = metadata.metadata().as_ref().and_then(|m| m.get(key)).cloned();
        let header = header.ok_or_else(|| format!("a safetensors file without `{key}` in its metadata"))?;
        let file = SafeTensors::deserialize(bytes).map_err(refuse)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(format!("tensor `{name}` is {:?}, not float32", view.dtype()));
            }
            let values: Vec<f32> =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            let array = ArrayD::from_shape_vec(IxDyn(view.shape()), values);
            tensors.insert(name.to_string(), array.map_err(|e| format!("tensor `{name}`: {e}"))?);
        }
        Ok(TensorFile { header, tensors })
    }

    /// Writes the file in one go: whoever reads it sees the old or the new content. The same content gives the same
    /// bytes.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path, key: &str) -> Result<(), TensorFileError> {
        let bytes = |array: &ArrayD<f32>| array.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let data: Vec<(&String, &[usize], Vec<u8>)> =
            self.tensors.iter().map(|(name, array)| (name, array.shape(), bytes(array))).collect();
        let content = |e: safetensors::SafeTensorError| TensorFileError::Content {
            path: path.to_path_buf(),
            message: e.to_string(),
        };
        let views = data.iter().map(|(name, shape, bytes)| {
            TensorView::new(Dtype::F32, shape.to_vec(), bytes).map(|view| (name.as_str(), view))
        });
        let views = views.collect::<Result<Vec<_>, _>>().map_err(content)?;
        let metadata = HashMap::from([(key.to_string(), self.header.clone())]);
        let serialised = safetensors::serialize(views, Some(metadata)).map_err(content)?;
        write_atomically(path, &serialised).map_err(|source| TensorFileError::Io {
            verb: "write",
            path: path.to_path_buf(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ndarray::array;

    #[test]
    fn what_is_written_is_read_and_the_bytes_repeat() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let tensors =
            [("x".to_string(), array![[1.0f32, -2.5]].into_dyn()), ("e".to_string(), ArrayD::zeros(IxDyn(&[0])))];
        let file = TensorFile { header: "{\"n\": 1}".into(), tensors: tensors.into() };
        file.write(&a, "k").unwrap();
        file.write(&b, "k").unwrap();
        assert_eq!(TensorFile::read(&a, "k").unwrap(), file);
        assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        assert!(TensorFile::read(&path, "k").unwrap_err().to_string().contains("cannot read"));
        std::fs::write(&path, b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F{}").unwrap();
        assert!(TensorFile::read(&path, "k").unwrap_err().to_string().contains("x.safetensors: not a safetensors"));
        TensorFile::default().write(&path, "other").unwrap();
        assert!(TensorFile::read(&path, "k").unwrap_err().to_string().contains("without `k`"));
    }
}
