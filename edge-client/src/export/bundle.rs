//! A backbone with an adapter in it: what a fleet starts its next run from.

use std::path::Path;

use fedtt_backbone::bundle::{self, Bundle, Draft, Origin, Precision, Settings};
use fedtt_backbone::merge::{Merged, merge};
use fedtt_tt::config::Init;

use super::ExportError;
use crate::adapter_file::{AdapterFile, AdapterHeader};
use crate::source::Source;

/// The adapter's file beside the parts of an exported bundle.
pub const BESIDE: &str = "adapter.safetensors";

/// Writes the bundle `folder`: the backbone of `source` with the adapter as a part of its frozen graph. It is a bundle like any
/// other, with a hash of its own; runs that name it begin with what this adapter has learnt.
///
/// Beside its parts lies [`BESIDE`], an adapter for this bundle which adds nothing but the trained head: with it the
/// bundle says what backbone and adapter said.
///
/// # Errors
/// When something is in the folder already, the adapter does not fit the backbone, or a file cannot be read or written.
pub fn bundle(adapter: &AdapterFile, source: &Source, folder: &Path) -> Result<Bundle, ExportError> {
    let AdapterFile { header, set } = adapter;
    let norms = header.objective(source)?.norms;
    let adapters: Vec<_> = set.forms().into_iter().map(|(site, form)| (site.id, form)).collect();
    let Merged { graph, anatomy } = merge(&source.backbone, &adapters, &norms, &set.graph_inputs())?;
    let settings = match &source.folder {
        Some(folder) => Bundle::open(folder)?.settings().clone(),
        None => Settings {
            source: Origin { file: source.name.clone(), sha256: source.hash.clone() },
            vocabulary: source.backbone.vocabulary(),
            precision: Precision::of(&source.backbone.graph),
            pooling: source.pooling,
            labels: Vec::new(),
            licence: Some("Apache-2.0".into()),
            anatomy: anatomy.clone(),
        },
    };
    let licence = source.licence()?;
    let settings = Settings {
        anatomy,
        pooling: header.pooling,
        labels: header.labels.as_ref().map(|labels| labels.names().to_vec()).unwrap_or_default(),
        ..settings
    };
    let draft = Draft { graph, settings, tokenizer: source.tokenizer_json(), licence: licence.as_deref() };
    let written = bundle::write(folder, draft)?;
    beside(adapter, folder)?;
    Ok(written)
}

/// Writes an adapter that changes nothing in the bundle `folder`, with the head of `adapter`.
fn beside(adapter: &AdapterFile, folder: &Path) -> Result<(), ExportError> {
    let source = Source::open(Some(folder))?;
    let mut header = AdapterHeader { bundle: source.hash.clone(), ..adapter.header.clone() };
    header.training.adapter.init = Init::Identity;
    header.training.train_norms = false;
    let mut set = header.fresh(&source, &header.objective(&source)?)?;
    let mut head = adapter.set.tensors();
    head.retain(|name, _| name.starts_with("head."));
    set.load_some(&head).map_err(crate::model::ModelError::from)?;
    Ok(AdapterFile { header, set }.write(&folder.join(BESIDE))?)
}
