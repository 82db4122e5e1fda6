//! The live page of `fedtt serve`, its JSON API and its metrics. Read only: everything shown comes from a [`Snapshot`] or
//! from a run's own report.
//!
//! | path | what |
//! |---|---|
//! | `/` | the page; the host renders it, `/events` brings it up to date |
//! | `/events` | the page's content as server-sent events, at most two a second |
//! | `/api/snapshot`, `/api/runs`, `/api/runs/{run}`, `/api/devices` | JSON in `{"version": 1, "data": ..}` |
//! | `/metrics` | Prometheus' text format |
//! | `/runs/{run}/report.html`, `summary.json`, `rounds.jsonl` | what the run has left so far |
//! | `/runs/{run}/adapter.safetensors`, `adapter.safetensors.sha256` | its adapter, and its hash as `sha256sum` prints it |
//! | `/bundles/{hash}/{file}` | the parts of the bundles its runs use, for devices that lack them; in ranges if asked |
//!
//! The last one alone is also served by itself, where devices may reach it and people need not: [`serve_bundles`].

mod files;
mod guard;
mod metrics;
mod page;
pub mod snapshot;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use fedtt_wire::RunId;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

pub use snapshot::Snapshot;

/// Least time between two events.
const PAUSE: Duration = Duration::from_millis(500);

/// What open connections get to finish after a shutdown.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where the bundle of a hash is, if it may be handed out.
pub type Bundles = Arc<dyn Fn(&str) -> Option<PathBuf> + Send + Sync>;

#[derive(Clone)]
struct Shared {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    runs_dir: Arc<PathBuf>,
    /// true once the server is to stop
    stop: watch::Receiver<bool>,
}

/// Serves until `shutdown` completes. On a loopback address only requests to that address or `localhost` are answered, so
/// that no web page can read the fleet through a browser on this machine.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    runs_dir: PathBuf,
    bundles: Bundles,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let stop = flag(shutdown);
    let shared = Shared { snapshot, runs_dir: Arc::new(runs_dir), stop: stop.clone() };
    let router = Router::new()
        .route("/", get(page))
        .route("/events", get(events))
        .route("/metrics", get(metrics))
        .route("/api/snapshot", get(api_snapshot))
        .route("/api/runs", get(api_runs))
        .route("/api/runs/{run}", get(api_run))
        .route("/api/devices", get(api_devices))
        .route("/runs/{run}/{file}", get(artefact))
        .with_state(shared)
        .merge(bundle_routes(bundles))
        .fallback(|| async { not_found("nothing is here; see / and /api/snapshot") });
    answer(listener, router, stop).await
}

/// Serves bundles and nothing else until `shutdown` completes, guarded as [`serve`] is.
///
/// # Errors
/// When the listener fails.
pub async fn serve_bundles(
    listener: TcpListener,
    bundles: Bundles,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = bundle_routes(bundles).fallback(|| async { not_found("bundles alone are here") });
    answer(listener, router, flag(shutdown)).await
}

fn bundle_routes(bundles: Bundles) -> Router {
    Router::new().route("/bundles/{hash}/{file}", get(files::part)).with_state(bundles)
}

async fn answer(listener: TcpListener, router: Router, stop: watch::Receiver<bool>) -> io::Result<()> {
    let loopback = listener.local_addr()?.ip().is_loopback();
    let router = router.layer(middleware::from_fn(move |request, next| guard::guard(loopback, request, next)));
    let server = axum::serve(listener, router).with_graceful_shutdown(stopped(stop.clone()));
    tokio::select! {
        served = server => served,
        () = async { stopped(stop).await; tokio::time::sleep(FAREWELL).await } => Ok(()),
    }
}

/// Set once `shutdown` completes.
fn flag(shutdown: impl Future<Output = ()> + Send + 'static) -> watch::Receiver<bool> {
    let (stopping, stop) = watch::channel(false);
    tokio::spawn(async move {
        shutdown.await;
        // An error: the server has ended by itself.
        let _ = stopping.send(true);
    });
    stop
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn not_found(what: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("{what}\n")).into_response()
}

fn latest(shared: &Shared) -> Arc<Snapshot> {
    shared.snapshot.borrow().clone()
}

async fn page(State(shared): State<Shared>) -> Html<String> {
    Html(page::whole(&latest(&shared)))
}

async fn events(State(shared): State<Shared>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(send_events(shared, sender));
    Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default())
}

/// Sends every new snapshot, rendered, until the page is closed or the server stops. A page that reads slowly skips some.
async fn send_events(mut shared: Shared, sender: mpsc::Sender<Result<Event, Infallible>>) {
    loop {
        let snapshot = shared.snapshot.borrow_and_update().clone();
        let event = Event::default().data(page::content(&snapshot));
        let next = async {
            sender.send(Ok(event)).await.ok()?;
            tokio::time::sleep(PAUSE).await;
            shared.snapshot.changed().await.ok()
        };
        tokio::select! {
            next = next => if next.is_none() { return },
            () = sender.closed() => return,
            () = stopped(shared.stop.clone()) => return,
        }
    }
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::text(&latest(&shared)))
}

fn envelope(data: impl serde::Serialize) -> Json<serde_json::Value> {
    Json(json!({ "version": 1, "data": data }))
}

async fn api_snapshot(State(shared): State<Shared>) -> impl IntoResponse {
    envelope(latest(&shared).as_ref())
}

async fn api_runs(State(shared): State<Shared>) -> impl IntoResponse {
    envelope(&latest(&shared).runs)
}

async fn api_devices(State(shared): State<Shared>) -> impl IntoResponse {
    envelope(&latest(&shared).devices)
}

async fn api_run(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    match latest(&shared).runs.iter().find(|run| run.summary.run.as_str() == id) {
        Some(run) => envelope(run).into_response(),
        None => not_found("there is no such run; see /api/runs"),
    }
}

async fn artefact(
    State(shared): State<Shared>,
    Path((run, file)): Path<(String, String)>,
    request: Request,
) -> Response {
    if let Some(hash) = file.strip_prefix(files::ADAPTER).filter(|rest| matches!(*rest, "" | files::HASH)) {
        let Ok(run) = RunId::new(run) else { return not_found("there is no such run; see /api/runs") };
        let path = shared.runs_dir.join(run.as_str()).join(files::ADAPTER);
        return if hash.is_empty() { files::file(&path, request).await } else { files::hash(path).await };
    }
    let kind = match file.as_str() {
        "report.html" => "text/html; charset=utf-8",
        "summary.json" => "application/json",
        "rounds.jsonl" => "application/x-ndjson",
        _ => {
            return not_found(
                "of a run's files report.html, summary.json, rounds.jsonl and adapter.safetensors are served",
            );
        }
    };
    let Ok(run) = RunId::new(run) else { return not_found("there is no such run; see /api/runs") };
    let path = shared.runs_dir.join(run.as_str()).join(file);
    let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
    match read {
        Ok(Ok(bytes)) => ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
        _ => not_found("the run has left no such file yet"),
    }
}
