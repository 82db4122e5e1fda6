//! ONNX files to [`Graph`]: opset 21 throughout, constants as weights, model-local functions inlined.

mod attention;
mod blocked;
mod budget;
mod clean;
mod counted;
mod error;
mod function;
mod gathered;
mod lower;
mod newer;
mod opset;
mod order;
mod scan;
mod sequence;
mod table;
mod tensor;
mod transpose;
mod typed;

use std::fs;
use std::path::Path;

use fedtt_runtime::prost::Message;
use fedtt_runtime::proto::ModelProto;

pub use error::ImportError;

use crate::ir::Graph;
use crate::shape::inline_known_branches;

/// Protobuf messages end here; larger models keep their weights in another file.
const MAX_FILE: u64 = 1 << 31;

/// Reads the ONNX model at `path` and brings it to opset 21.
///
/// Weights in external files stay there and are read when asked for; their files must lie in the model's folder.
///
/// # Errors
/// When the file is not a whole ONNX model, its opset is not among 11 to 26, or it uses something that has no place in
/// the [`Graph`]: sparse tensors, strings, sequences, training information, recursive functions.
pub fn read(path: &Path) -> Result<Graph, ImportError> {
    let io = |source| ImportError::Io { path: path.to_path_buf(), source };
    let metadata = fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        return Err(ImportError::model(format!("{} is not a file", path.display())));
    }
    if metadata.len() > MAX_FILE {
        let message = format!("{} is larger than 2 GiB: save the model with external data", path.display());
        return Err(ImportError::model(message));
    }
    let bytes = fs::read(path).map_err(io)?;
    from_bytes(&bytes, path)
}

/// Reads a serialised model; `path` names it in messages, and external data is looked for beside it.
///
/// # Errors
/// As for [`read`].
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Graph, ImportError> {
    let decode = |message: String| ImportError::Decode { path: path.to_path_buf(), message };
    scan::check(bytes).map_err(decode)?;
    let model = ModelProto::decode(bytes).map_err(|e| decode(e.to_string()))?;
    if model.graph.is_none() {
        return Err(decode("it has no graph".to_string()));
    }
    let mut graph = lower::model(model, bytes, path)?;
    order::check(&mut graph)?;
    // Once more for what branches held.
    for _ in 0..2 {
        sequence::take_apart(&mut graph);
        newer::take_apart(&mut graph)?;
        inline_known_branches(&mut graph);
    }
    gathered::take_apart(&mut graph)?;
    counted::from_the_front(&mut graph);
    typed::resolve(&mut graph);
    table::pick_before_unpacking(&mut graph);
    blocked::pick_before_unpacking(&mut graph);
    clean::clean(&mut graph)?;
    Ok(graph)
}
