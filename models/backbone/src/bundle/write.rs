//! Writing a bundle: all of it or nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::manifest::{MANIFEST, Manifest, Part, hex};
use super::weights::WeightsWriter;
use super::{
    Bundle, BundleError, GRAPH, LICENCE, SETTINGS, Settings, TOKENIZER, WEIGHTS, io_error, json_error, sha256_of,
};
use crate::export::{self, WeightsFile};
use crate::ir::Graph;

/// What goes into a bundle.
pub struct Draft<'a> {
    /// The clean graph.
    pub graph: Graph,
    /// What is said of it.
    pub settings: Settings,
    /// A Hugging Face `tokenizer.json`, as it is.
    pub tokenizer: Option<&'a [u8]>,
    /// The licence text.
    pub licence: Option<&'a str>,
}

/// Writes `draft` as the bundle `folder`, which must not exist yet or be empty. It is put together beside its place
/// and moved there at the end, so that a broken-off run leaves no half bundle.
///
/// # Errors
/// When something is there already, a weight cannot be read, or the disk is full.
pub fn write(folder: &Path, draft: Draft) -> Result<Bundle, BundleError> {
    let folder = std::path::absolute(folder).map_err(io_error(folder))?;
    if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) || folder.is_file() {
        return Err(BundleError::Exists(folder));
    }
    let name = folder.file_name().and_then(|n| n.to_str()).unwrap_or("bundle");
    let partial = folder.with_file_name(format!(".{name}.{}.partial", std::process::id()));
    let result =
        assemble(&partial, &folder, draft).and_then(|()| fs::rename(&partial, &folder).map_err(io_error(&folder)));
    if result.is_err() {
        // Whatever is left of it is hidden and carries this process's number; the first error is what matters.
        let _ = fs::remove_dir_all(&partial);
    }
    result?;
    Bundle::open(&folder)
}

fn assemble(partial: &Path, folder: &Path, mut draft: Draft) -> Result<(), BundleError> {
    fs::create_dir_all(partial).map_err(io_error(partial))?;
    let final_weights = folder.join(WEIGHTS);
    let mut parts = BTreeMap::new();

    let path = partial.join(WEIGHTS);
    let mut writer = WeightsWriter::create(&path, final_weights.clone()).map_err(io_error(&path))?;
    writer.move_weights(&mut draft.graph).map_err(|(name, source)| BundleError::Weight { name, source })?;
    parts.insert(WEIGHTS.to_string(), writer.finish().map_err(io_error(&path))?);

    let model = export::to_model(&draft.graph, WeightsFile::new(&final_weights).as_ref())?;
    let path = partial.join(SETTINGS);
    let settings = serde_json::to_vec_pretty(&draft.settings).map_err(json_error(&path))?;
    let small = [
        (GRAPH, Some(model.bytes.as_slice())),
        (SETTINGS, Some(settings.as_slice())),
        (TOKENIZER, draft.tokenizer),
        (LICENCE, draft.licence.map(str::as_bytes)),
    ];
    for (name, bytes) in small {
        if let Some(bytes) = bytes {
            parts.insert(name.to_string(), write_file(&partial.join(name), bytes)?);
        }
    }
    let path = partial.join(MANIFEST);
    let manifest = serde_json::to_vec_pretty(&Manifest::of(parts)).map_err(json_error(&path))?;
    write_file(&path, &manifest)?;
    Ok(())
}

fn write_file(path: &PathBuf, bytes: &[u8]) -> Result<Part, BundleError> {
    let mut file = File::create(path).map_err(io_error(path))?;
    file.write_all(bytes).map_err(io_error(path))?;
    file.sync_all().map_err(io_error(path))?;
    Ok(Part { bytes: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)) })
}

/// SHA-256 of a file in lower-case hexadecimal, for [`super::Origin`].
///
/// # Errors
/// When it cannot be read.
pub fn file_sha256(path: &Path) -> Result<String, BundleError> {
    sha256_of(path)
}
