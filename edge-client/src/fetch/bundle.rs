//! A bundle, part by part.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use fedtt_backbone::bundle::{Bundle, MANIFEST, MAX_JSON, Manifest};

use super::{FetchError, FetchSettings, Http, Shelf, Wanted, is_hash, refused};
use crate::files::{make_folder, open_or_make};

/// Room that is left on the disk, in bytes.
const MARGIN: u64 = 16 << 20;

/// How far a bundle has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes that are here.
    pub have: u64,
    /// Of so many.
    pub bytes: u64,
}

/// Gets the bundle `hash` onto the shelf, unless it is there, and returns its folder. What came before a break is kept for the
/// next time. `told` hears how far it is.
///
/// # Errors
/// When nothing says where bundles are, it is larger than `settings` or the disk allow, the server does not have it or something
/// else in its place, or `stop` says so.
pub fn bundle(
    http: &Http,
    shelf: &Shelf,
    settings: &FetchSettings,
    hash: &str,
    stop: &dyn Fn() -> bool,
    told: &mut dyn FnMut(Step),
) -> Result<PathBuf, FetchError> {
    if !is_hash(hash) {
        return Err(FetchError::Request(format!("`{hash}` is not the hash of a bundle")));
    }
    if let Ok(Some(_)) = shelf.find(hash) {
        return Ok(shelf.place(hash));
    }
    let base = settings.bundles.as_deref();
    let base = base.ok_or_else(|| FetchError::Request("no address of bundles is set at `fetch.bundles`".into()))?;
    let url = |file: &str| match base.contains("{hash}") {
        true => format!("{}/{file}", base.replace("{hash}", hash).trim_end_matches('/')),
        false => format!("{}/{hash}/{file}", base.trim_end_matches('/')),
    };
    let text = http.small(&url(MANIFEST), MAX_JSON)?;
    let manifest = understood(&text, hash).map_err(|reason| FetchError::Manifest { url: url(MANIFEST), reason })?;
    shelf.make()?;
    let folder = shelf.part(hash);
    make_folder(&folder, 0o777).map_err(refused("create", &folder))?;
    let bytes = manifest.parts.values().fold(0u64, |sum, part| sum.saturating_add(part.bytes));
    let mut have = fit(&manifest, bytes, shelf, settings, &free)?;
    for (name, part) in &manifest.parts {
        let url = url(name);
        let wanted = Wanted { url: &url, bytes: part.bytes, sha256: &part.sha256 };
        let path = folder.join(name);
        let others = have - fs::metadata(&path).map_or(0, |file| file.len().min(part.bytes));
        http.download(&wanted, &path, stop, &mut |of_part| told(Step { have: others + of_part, bytes }))?;
        have = others + part.bytes;
    }
    let path = folder.join(MANIFEST);
    let written = open_or_make(&path, File::options().write(true).truncate(true)).and_then(|mut file| {
        file.write_all(&text)?;
        file.sync_all()
    });
    written.map_err(refused("write", &path))?;
    // The weights, whose hash this leaves out, were checked as they came.
    Bundle::open(&folder)?;
    shelf.install(hash)
}

/// The manifest of the bundle asked for. Its names are those of a bundle's parts then, and safe in a path.
fn understood(text: &[u8], hash: &str) -> Result<Manifest, String> {
    let manifest: Manifest = serde_json::from_slice(text).map_err(|e| format!("is no manifest: {e}"))?;
    manifest.check()?;
    if manifest.hash != hash {
        return Err(format!("is the manifest of {}", manifest.hash));
    }
    match manifest.parts.values().find(|part| !is_hash(&part.sha256)) {
        Some(part) => Err(format!("`{}` is not a SHA-256", part.sha256)),
        None => Ok(manifest),
    }
}

/// Sees to it that there is room for it, in the place of bundles that nobody uses if need be; returns what is here of it already.
pub(super) fn fit(
    manifest: &Manifest,
    bytes: u64,
    shelf: &Shelf,
    settings: &FetchSettings,
    free: &dyn Fn(&Path) -> io::Result<u64>,
) -> Result<u64, FetchError> {
    let hash = &manifest.hash;
    let folder = shelf.part(hash);
    let refuse = |limit: String| FetchError::TooLarge { what: format!("bundle {hash}"), bytes, limit };
    if bytes > settings.max_bytes {
        return Err(refuse(format!("`fetch.max_bytes` allows {}", settings.max_bytes)));
    }
    let here = |(name, part): (&String, &fedtt_backbone::bundle::Part)| {
        fs::metadata(folder.join(name)).map_or(0, |file| file.len().min(part.bytes))
    };
    let have: u64 = manifest.parts.iter().map(here).sum();
    let lacking = || {
        let left = free(&folder).map_err(refused("measure", &folder))?;
        Ok::<_, FetchError>((left, (bytes - have + MARGIN).saturating_sub(left)))
    };
    let (_, lack) = lacking()?;
    if lack > 0 {
        shelf.make_room(shelf.bytes().saturating_sub(lack), &BTreeSet::from([hash.clone()]))?;
    }
    match lacking()? {
        (_, 0) => Ok(have),
        (left, _) => Err(refuse(format!("the disk of {} has {left} left", folder.display()))),
    }
}

/// Bytes that the disk of a folder has left.
fn free(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}
