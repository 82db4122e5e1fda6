//! Files for devices: a run's adapter, and the parts of bundles.

use std::path::{Path as FilePath, PathBuf};

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use fedtt_backbone::bundle::{MANIFEST, file_sha256, is_part};
use fedtt_edge::fetch::is_hash;
use tower_http::services::ServeFile;

use super::{Bundles, not_found};

/// A run's adapter.
pub(super) const ADAPTER: &str = "adapter.safetensors";
/// Ends the name of its hash.
pub(super) const HASH: &str = ".sha256";

/// A part of a bundle: nothing but what bundles have, of a bundle that a run uses.
pub(super) async fn part(
    State(bundles): State<Bundles>,
    Path((hash, file)): Path<(String, String)>,
    request: Request,
) -> Response {
    if !is_part(&file) && file != MANIFEST {
        return not_found("bundles have no such part");
    }
    match is_hash(&hash).then(|| bundles(&hash)).flatten() {
        Some(folder) => self::file(&folder.join(file), request).await,
        None => not_found("no run here uses such a bundle, or it is embedded in every device's program"),
    }
}

/// A file, or the range of it that is asked for.
pub(super) async fn file(path: &FilePath, request: Request) -> Response {
    match ServeFile::new(path).try_call(request).await {
        Ok(response) => response.map(Body::new),
        Err(_) => not_found("there is no such file yet"),
    }
}

/// The hash of the adapter at `path`, as `sha256sum` prints it.
pub(super) async fn hash(path: PathBuf) -> Response {
    match tokio::task::spawn_blocking(move || file_sha256(&path)).await {
        Ok(Ok(hash)) => format!("{hash}  {ADAPTER}\n").into_response(),
        _ => not_found("there is no such file yet"),
    }
}
