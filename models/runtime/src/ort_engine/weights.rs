//! External data for ONNX Runtime 1.18 to 1.20, which look for it in the current folder when a model comes as bytes.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use ort::session::builder::SessionBuilder;
use prost::Message;

use crate::proto::ModelProto;

/// Hands over the files that the model's initialisers refer to as buffers; later versions map them instead.
pub(super) fn with_weights_in_memory(
    builder: SessionBuilder,
    model: &[u8],
    folder: &Path,
) -> ort::Result<SessionBuilder> {
    let proto =
        ModelProto::decode(model).map_err(|e| ort::Error::new(format!("the bytes are not an ONNX model: {e}")))?;
    let initialisers = proto.graph.iter().flat_map(|graph| &graph.initializer);
    let locations: BTreeSet<&str> = initialisers
        .flat_map(|tensor| &tensor.external_data)
        .filter(|entry| entry.key == "location")
        .map(|entry| entry.value.as_str())
        .collect();
    let mut builder = builder;
    for location in locations {
        let inside = Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(ort::Error::new(format!("the external data `{location}` lies outside the model's folder")));
        }
        let path = folder.join(location);
        let bytes = std::fs::read(&path).map_err(|e| ort::Error::new(format!("{}: {e}", path.display())))?;
        builder = builder.with_external_initializer_file_in_memory(location, bytes.into())?;
    }
    Ok(builder)
}
