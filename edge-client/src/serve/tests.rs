#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use fedtt_runtime::{SessionOptions, TractEngine};
use fedtt_wire::{Plan, RunId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::*;
use crate::adapter_file::{AdapterFile, RunState};
use crate::local::adapter_header;
use crate::model::{AdaptedModel, Use};
use crate::source::Source;

static SOURCE: LazyLock<Source> = LazyLock::new(|| Source::open(None).unwrap());

/// An adapter whose head says `label` of everything.
fn adapter(label: usize, round: u32) -> AdapterFile {
    let text = "[model]\nlabels = ['a', 'b', 'c']\nmax_length = 16\n[adapter]\nbottleneck = 8\nrank = 2\n";
    let mut plan: Plan = toml::from_str(text).unwrap();
    plan.model.bundle.clone_from(&SOURCE.hash);
    let mut header = adapter_header(&plan, &SOURCE).unwrap();
    header.origin = Some(RunState { run: RunId::new("r-1").unwrap(), round, digest: "d".into() });
    let mut set = header.fresh(&SOURCE, &header.objective(&SOURCE).unwrap()).unwrap();
    let bias = set.parameters().iter().position(|p| p.name == "head.out.bias").unwrap();
    set.values_mut()[bias].iter_mut().enumerate().for_each(|(i, v)| *v = if i == label { 50.0 } else { 0.0 });
    AdapterFile { header, set }
}

fn open(path: &Path) -> Result<Opened, String> {
    let adapter = AdapterFile::read(path, &SOURCE).map_err(|e| e.to_string())?;
    let objective = adapter.header.objective(&SOURCE).unwrap();
    let (engine, options) = (TractEngine::new(1), SessionOptions::default());
    let model = AdaptedModel::load(&SOURCE.backbone, &adapter.set, &objective, &engine, &options, Use::Forward);
    let encoder = SOURCE.encoder(16).unwrap();
    Ok(Opened { adapter, model: model.unwrap(), encoder, vocabulary: SOURCE.backbone.vocabulary(), held: None })
}

struct Server {
    address: SocketAddr,
    file: PathBuf,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
    reloads: mpsc::UnboundedReceiver<Result<(), String>>,
    _folder: tempfile::TempDir,
}

async fn server(limits: Limits) -> Server {
    server_with(limits, true).await
}

/// A server that has its adapter from the beginning, or not yet.
async fn server_with(limits: Limits, adapter_there: bool) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("current.safetensors");
    if adapter_there {
        adapter(0, 1).write(&file).unwrap();
    }
    let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (place, again) = (file.clone(), file.clone());
    let watched = Watched::new(move || Some(place.clone()));
    let model = Model::start(adapter_there.then(|| open(&file).unwrap()), 64).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let (told, reloads) = mpsc::unbounded_channel();
    let tell = move |outcome| told.send(outcome).unwrap_or_default();
    let shutdown = async { drop(stopped.await) };
    let served = tokio::spawn(serve(listener, model, watched, move || open(&again), tell, limits, shutdown));
    Server { address, file, stop, served, reloads, _folder: folder }
}

fn brisk() -> Limits {
    Limits { reload: Duration::from_millis(5), ..Limits::default() }
}

async fn say(address: SocketAddr, request: String) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn get(address: SocketAddr, path: &str, host: &str) -> (u16, Value) {
    say(address, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
}

async fn post(address: SocketAddr, body: &str, kind: &str) -> (u16, Value) {
    let length = body.len();
    let head = format!("Host: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n");
    say(address, format!("POST /predict HTTP/1.1\r\n{head}\r\n{body}")).await
}

async fn predict(address: SocketAddr, body: Value) -> (u16, Value) {
    post(address, &body.to_string(), "application/json").await
}

#[tokio::test]
async fn texts_are_answered_and_the_adapter_is_named() {
    let server = server(Limits::default()).await;
    let (status, answer) = predict(server.address, json!({ "text": "the pump leaks" })).await;
    assert_eq!((status, &answer["version"]), (200, &json!(1)), "{answer}");
    let first = &answer["data"]["predictions"][0];
    assert_eq!((&first["text"], &first["label"]), (&json!("the pump leaks"), &json!("a")));
    assert!(first["probability"].as_f64().unwrap() > 0.99 && first["probabilities"]["b"].as_f64().unwrap() < 0.01);
    assert_eq!((&answer["data"]["adapter"]["run"], &answer["data"]["adapter"]["round"]), (&json!("r-1"), &json!(1)));

    let texts: Vec<Value> = (0..70)
        .map(|i| if i % 2 == 0 { json!(format!("text {i}")) } else { json!({ "text": "x", "text_pair": "y" }) })
        .collect();
    let (status, answer) = predict(server.address, json!({ "texts": texts })).await;
    let predictions = answer["data"]["predictions"].as_array().unwrap();
    assert_eq!((status, predictions.len()), (200, 70));
    assert_eq!((&predictions[68]["text"], &predictions[69]["text_pair"]), (&json!("text 68"), &json!("y")));

    let (status, answer) = get(server.address, "/adapter", "127.0.0.1:8181").await;
    assert_eq!(
        (status, &answer["data"]["labels"], &answer["data"]["digest"]),
        (200, &json!(["a", "b", "c"]), &json!("d"))
    );
    assert_eq!(get(server.address, "/health", "[::1]").await.0, 200);
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let limits = Limits { body: 4000, texts: 8, patience: Duration::from_millis(300), ..Limits::default() };
    let server = server(limits).await;
    let address = server.address;
    let many = json!({ "texts": vec!["x"; 9] }).to_string();
    for asked in [
        json!({ "text": "x", "texts": ["y"] }),
        json!({ "texts": ["y"], "top": 3 }),
        json!({ "text": "x", "top": 3 }),
        json!(["x"]),
    ] {
        let (status, answer) = predict(address, asked.clone()).await;
        let said = answer["error"].as_str().unwrap_or_default();
        assert!(status == 422 && said.starts_with("what is asked is {\"text\""), "{asked}: {answer}");
    }
    let put = "PUT /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let (status, answer) = say(address, put.into()).await;
    assert!(status == 405 && answer["error"].as_str().is_some(), "{answer}");
    for (body, kind, wanted) in [
        ("{\"text\": \"x\"}", "text/plain", 415),
        ("{\"text\": ", "application/json", 400),
        ("{\"txt\": \"x\"}", "application/json", 422),
        ("{\"texts\": []}", "application/json", 422),
        ("[]", "application/json", 422),
        (many.as_str(), "application/json", 422),
    ] {
        let (status, answer) = post(address, body, kind).await;
        assert_eq!((status, &answer["ok"]), (wanted, &json!(false)), "{body:.40}: {answer}");
    }
    // Refused for what it announces, before it is sent.
    let head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
    assert_eq!(say(address, format!("{head}Content-Length: 5000\r\n\r\n")).await.0, 413);
    assert_eq!(say(address, format!("{head}Content-Length: 5000\r\n\r\n")).await.0, 413);
    let chunks = format!("{head}Transfer-Encoding: chunked\r\n\r\n1388\r\n{}", " ".repeat(4500));
    assert_eq!(say(address, chunks).await.0, 413);
    assert_eq!(say(address, format!("{head}Content-Length: 50\r\n\r\n{{")).await.0, 408);
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8181", ""] {
        assert_eq!(get(address, "/adapter", host).await.0, 421, "{host}");
    }
    assert_eq!(get(address, "/nowhere", "localhost").await.0, 404);
    assert_eq!(get(address, "/predict", "localhost").await.0, 405);
    let (status, _) = predict(address, json!({ "text": "still there" })).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn another_adapter_takes_over_without_a_request_being_lost_and_a_bad_one_does_not() {
    let mut server = server(brisk()).await;
    let address = server.address;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let asking = tokio::spawn(async move {
        let mut said = Vec::new();
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let (status, answer) = predict(address, json!({ "text": "x" })).await;
            assert_eq!(status, 200, "{answer}");
            let label = answer["data"]["predictions"][0]["label"].as_str().unwrap().to_string();
            said.push((answer["data"]["adapter"]["round"].as_u64().unwrap(), label));
        }
        said
    });
    adapter(1, 2).write(&server.file).unwrap();
    server.reloads.recv().await.unwrap().unwrap();
    while get(address, "/adapter", "localhost").await.1["data"]["round"] != 2 {}
    let (_, answer) = predict(address, json!({ "text": "x" })).await;
    assert_eq!(answer["data"]["predictions"][0]["label"], "b");

    let bad = server.file.with_extension("new");
    std::fs::write(&bad, b"no adapter").unwrap();
    std::fs::rename(&bad, &server.file).unwrap();
    assert!(server.reloads.recv().await.unwrap().unwrap_err().contains("current.safetensors"));
    let (_, answer) = predict(address, json!({ "text": "x" })).await;
    assert_eq!(
        (&answer["data"]["adapter"]["round"], &answer["data"]["predictions"][0]["label"]),
        (&json!(2), &json!("b"))
    );

    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let said = asking.await.unwrap();
    assert!(
        said.iter().all(|(round, label)| (*round == 1) == (label == "a") && (*round == 2) == (label == "b")),
        "{said:?}"
    );
}

#[tokio::test]
async fn before_there_is_an_adapter_requests_are_told_so() {
    let mut server = server_with(brisk(), false).await;
    let (status, answer) = predict(server.address, json!({ "text": "x" })).await;
    assert_eq!(status, 503);
    assert!(answer["error"].as_str().unwrap().contains("no adapter yet"), "{answer}");
    for path in ["/health", "/adapter"] {
        assert_eq!(get(server.address, path, "localhost").await.0, 503, "{path}");
    }
    adapter(1, 1).write(&server.file).unwrap();
    server.reloads.recv().await.unwrap().unwrap();
    assert_eq!(predict(server.address, json!({ "text": "x" })).await.1["data"]["predictions"][0]["label"], "b");
    assert_eq!(get(server.address, "/health", "localhost").await.0, 200);
}

#[tokio::test]
async fn too_many_are_told_to_come_again_and_the_end_is_orderly() {
    let full = server(Limits { requests: 0, ..Limits::default() }).await;
    assert_eq!(predict(full.address, json!({ "text": "x" })).await.0, 503);
    assert_eq!(get(full.address, "/health", "localhost").await.0, 200);

    let server = server(Limits::default()).await;
    let asked = tokio::spawn(predict(server.address, json!({ "texts": vec!["some text"; 200] })));
    // Once it is connected, it is answered, whatever comes.
    while !asked.is_finished() && get(server.address, "/health", "localhost").await.0 != 200 {}
    tokio::task::yield_now().await;
    let (status, _) = asked.await.unwrap();
    server.stop.send(()).unwrap();
    server.served.await.unwrap().unwrap();
    assert_eq!(status, 200);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn only_loopback_addresses_are_listened_at() {
    for address in ["0.0.0.0:0", "192.0.2.1:80", "[::]:0"] {
        let error = listen(address.parse().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("no loopback address"), "{error}");
    }
}
