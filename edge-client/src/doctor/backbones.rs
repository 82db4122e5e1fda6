//! Backbones: whether they open, and are what their hashes say.

use std::path::PathBuf;
use std::sync::Arc;

use fedtt_backbone::bundle::Bundle;

use super::Check;
use crate::daemon::Settings;
use crate::fetch::Shelf;
use crate::source::{Available, Source};

/// The backbones that open.
pub(super) fn check(settings: &Settings) -> (Vec<Arc<Source>>, Vec<Check>) {
    let mut folders: Vec<Option<PathBuf>> = settings.bundles.iter().cloned().map(Some).collect();
    if folders.is_empty() {
        folders.push(None);
    }
    let shelf = Shelf::of(&settings.state);
    let fetched = shelf.whole().into_iter().filter_map(|hash| shelf.find(&hash).ok().flatten());
    folders.extend(fetched.filter_map(|found| found.folder().map(|folder| Some(folder.to_path_buf()))));
    let mut sources = Vec::new();
    let mut checks = Vec::new();
    for folder in folders {
        match open(folder.as_ref()) {
            Ok(source) => {
                let (name, short) = (&source.name, source.hash.get(..12).unwrap_or(&source.hash));
                let (sites, blocks) = (source.backbone.anatomy.sites.len(), source.backbone.anatomy.streams.len());
                checks
                    .push(Check::ok("bundle", format!("{name}, hash {short}… right, {blocks} blocks, {sites} sites")));
                sources.push(source);
            }
            Err(reason) => {
                let advice = "copy or fetch it again, or prepare it with `fedtt backbone prepare`";
                checks.push(Check::fail("bundle", reason, advice));
            }
        }
    }
    (sources, checks)
}

/// Opens a backbone and computes its hash from all of its contents.
fn open(folder: Option<&PathBuf>) -> Result<Arc<Source>, String> {
    if let Some(folder) = folder {
        let bundle = Bundle::open(folder).map_err(|e| e.to_string())?;
        bundle.verify_hash().map_err(|e| e.to_string())?;
    }
    let found = Available::find(folder.map(PathBuf::as_path)).map_err(|e| e.to_string())?;
    found.open().map_err(|e| e.to_string())
}
