//! Requests and answers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::FAREWELL;
use super::guard::names_loopback;
use super::model::{Model, Opened, Text, Unanswered};
use super::reload::{Reloading, Watched};

/// What a request may ask for, and how many may.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request.
    pub body: usize,
    /// Texts of a request.
    pub texts: usize,
    /// Requests that are answered or wait at a time.
    pub requests: usize,
    /// How long a request may take to come in.
    pub patience: Duration,
    /// Time between two looks at the adapter's file.
    pub reload: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body: 1 << 20,
            texts: 256,
            requests: 64,
            patience: Duration::from_secs(30),
            reload: Duration::from_secs(1),
        }
    }
}

#[derive(Clone)]
struct Shared {
    model: Arc<Model>,
    limits: Limits,
}

/// What is said of other questions.
const EXPECTED: &str = r#"what is asked is {"text": "..", "text_pair": ".."} (the second where the adapter takes pairs), or {"texts": [..]} of texts or of such objects, and nothing else"#;

/// Where there is nothing.
const PLACES: &str = "there are POST /predict, GET /health and GET /adapter";

/// A text or several; a pair has its second text beside the first.
#[derive(Deserialize)]
#[serde(untagged)]
enum Asked {
    One(One),
    Several(Several),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Several {
    texts: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    text: String,
    text_pair: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Text(String),
    Pair(One),
}

impl From<One> for Text {
    fn from(One { text, text_pair }: One) -> Self {
        Text { text, pair: text_pair }
    }
}

impl Asked {
    fn texts(self) -> Vec<Text> {
        let text = |item| match item {
            Item::Text(text) => Text { text, pair: None },
            Item::Pair(one) => one.into(),
        };
        match self {
            Asked::One(one) => vec![one.into()],
            Asked::Several(Several { texts }) => texts.into_iter().map(text).collect(),
        }
    }
}

/// Answers until `shutdown` is ready; requests that are there by then are answered. `watched` is the file of the adapter in
/// `model`: when it is replaced, `open` opens it, and `tell` hears of it.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    model: Model,
    watched: Watched,
    open: impl Fn() -> Result<Opened, String> + Send + 'static,
    tell: impl Fn(Result<(), String>) + Send + 'static,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let model = Arc::new(model);
    let _reloading = Reloading::start(watched, limits.reload, model.clone(), open, tell)?;
    let room = Arc::new(Semaphore::new(limits.requests));
    let shared = Shared { model, limits };
    let router = Router::new()
        .route("/predict", post(predict))
        .route("/health", get(health))
        .route("/adapter", get(adapter))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, PLACES) })
        .method_not_allowed_fallback(|| async { refuse(StatusCode::METHOD_NOT_ALLOWED, PLACES) })
        // The limit is the guard's.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(move |request, next| guard(room.clone(), limits, request, next)))
        .with_state(shared);
    let (stopping, mut stop) = watch::channel(false);
    tokio::spawn(async move {
        shutdown.await;
        let _ = stopping.send(true);
    });
    let mut over = stop.clone();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        // An error: nobody can stop it any more, which stops it as well.
        let _ = stop.wait_for(|stop| *stop).await;
    });
    tokio::select! {
        served = server => served,
        () = async {
            let _ = over.wait_for(|stop| *stop).await;
            tokio::time::sleep(FAREWELL).await;
        } => Ok(()),
    }
}

/// Refuses whoever names another host than this one's loopback, and who comes when too many are here.
async fn guard(room: Arc<Semaphore>, limits: Limits, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(names_loopback) {
        return refuse(StatusCode::MISDIRECTED_REQUEST, "this address answers to localhost only");
    }
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let Ok(_held) = room.try_acquire() else { return busy() };
    let too_large = || refuse(StatusCode::PAYLOAD_TOO_LARGE, &format!("a request has at most {} bytes", limits.body));
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limits.body) {
        return too_large();
    }
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(limits.patience, to_bytes(body, limits.body)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, bytes.into())).await,
        Ok(Err(_)) => too_large(),
        Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "the request does not come to its end"),
    }
}

fn envelope(data: serde_json::Value) -> Response {
    Json(json!({ "version": 1, "ok": true, "data": data })).into_response()
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({ "version": 1, "ok": false, "error": reason }))).into_response()
}

async fn health(State(shared): State<Shared>) -> Response {
    shared.model.header().map_or_else(empty, |_| envelope(json!({ "status": "ok" })))
}

async fn adapter(State(shared): State<Shared>) -> Response {
    shared.model.header().map_or_else(empty, |header| envelope(described(&header)))
}

fn described(header: &crate::adapter_file::AdapterHeader) -> serde_json::Value {
    let origin = header.origin.as_ref();
    json!({
        "run": origin.map(|origin| &origin.run),
        "round": origin.map(|origin| origin.round),
        "digest": origin.map(|origin| &origin.digest),
        "bundle": header.bundle,
        "task": header.task,
        "labels": header.labels,
    })
}

async fn predict(State(shared): State<Shared>, asked: Result<Json<Asked>, JsonRejection>) -> Response {
    let texts = match asked {
        Ok(Json(asked)) => asked.texts(),
        Err(JsonRejection::JsonDataError(_)) => return refuse(StatusCode::UNPROCESSABLE_ENTITY, EXPECTED),
        Err(rejection) => return refuse(rejection.status(), &rejection.body_text()),
    };
    if texts.is_empty() || texts.len() > shared.limits.texts {
        let reason = format!("a request has 1 to {} texts, not {}", shared.limits.texts, texts.len());
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, &reason);
    }
    match shared.model.predict(texts).await {
        Ok((header, predictions)) => envelope(json!({ "adapter": described(&header), "predictions": predictions })),
        Err(Unanswered::Busy) => busy(),
        Err(Unanswered::Empty) => empty(),
        Err(Unanswered::Refused(reason)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &reason),
        Err(Unanswered::Failed(reason)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &reason),
    }
}

fn busy() -> Response {
    later(&Unanswered::Busy, "1")
}

fn empty() -> Response {
    later(&Unanswered::Empty, "30")
}

fn later(why: &Unanswered, seconds: &'static str) -> Response {
    let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, &why.to_string());
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(seconds));
    response
}
