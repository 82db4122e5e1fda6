#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;

use fedtt_wire::DeviceName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::snapshot::{Broker, DeviceView, Fault, MemberState, MemberView, Phase, RoundView, RunView};
use super::*;
use crate::record::{Measured, Refused, RunSummary, Status, Traffic};

fn snapshot() -> Snapshot {
    let run = RunId::new("run-7").unwrap();
    let device = DeviceName::new("board-1").unwrap();
    let measured = Measured { examples: 10, loss: 0.5, metric: "accuracy".into(), value: 0.875 };
    let summary = RunSummary {
        run: run.clone(),
        name: "<b>reports</b>".into(),
        status: Status::Running,
        reason: None,
        rounds_done: 3,
        rounds: 9,
        values: 100,
        began: 1_000,
        ended: None,
        best: Some((2, measured.clone())),
        last: Some(measured),
        traffic: Traffic { up: 1_500, down: 2_500 },
        updates: 6,
        refused: Refused { late: 2, ..Refused::default() },
        devices: vec![device.clone()],
    };
    let member =
        MemberView { device: device.clone(), state: MemberState::Training, step: 4, steps: 10, loss: Some(0.25) };
    let current = RoundView {
        round: 3,
        phase: Phase::Collecting,
        began: 60_000,
        deadline: Some(90_000),
        received: 0,
        cohort: vec![member],
        needed: 1,
        again: None,
    };
    Snapshot {
        time: 62_000,
        fleet: "north".into(),
        version: "0.1.0".into(),
        broker: Broker { address: "mqtt://127.0.0.1:1883".into(), embedded: true, connected: true },
        runs: vec![RunView { summary, current: Some(current), quality: vec![(0, 0.5), (1, 0.875)] }],
        devices: vec![DeviceView {
            name: device,
            online: true,
            labels: vec!["\"quoted\"".into()],
            engine: "tract".into(),
            version: "0.1.0".into(),
            examples: 40,
            problem: None,
            last_seen: 61_500,
            last_refusal: Some((run, "quiet <hours>".into())),
        }],
        errors: vec![Fault { time: 61_000, source: "board-1".into(), message: "<script>alert(1)</script>".into() }],
        errors_total: 5,
        refused: Refused { forged: 3, ..Refused::default() },
    }
}

struct Server {
    address: SocketAddr,
    sender: watch::Sender<Arc<Snapshot>>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
    runs: tempfile::TempDir,
}

async fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = watch::channel(Arc::new(snapshot()));
    let (stop, stopped) = oneshot::channel();
    let runs = tempfile::tempdir().unwrap();
    let shutdown = async { stopped.await.unwrap_or_default() };
    let kept = runs.path().join("kept");
    let bundles = Arc::new(move |hash: &str| (hash == "ab".repeat(32)).then(|| kept.clone()));
    let served = tokio::spawn(serve(listener, receiver, runs.path().to_path_buf(), bundles, shutdown));
    Server { address, sender, stop, served, runs }
}

async fn open(address: SocketAddr, path: &str, host: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

impl Server {
    async fn open(&self, path: &str, host: &str) -> TcpStream {
        open(self.address, path, host).await
    }

    /// The whole answer to a request.
    async fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        self.open(path, "127.0.0.1").await.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// Reads until `text` has come.
async fn await_text(stream: &mut TcpStream, text: &str) {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(text) {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "closed before {text:?} came");
    }
}

#[tokio::test]
async fn the_page_shows_all_and_escapes_what_comes_from_outside() {
    let page = server().await.get("/").await;
    assert!(page.starts_with("HTTP/1.1 200 OK"));
    for shown in
        ["3 of 9 rounds", "&lt;b&gt;reports&lt;/b&gt;", "87.5 %", "step 4 of 10", "2 late", "28 s left", "board-1"]
    {
        assert!(page.contains(shown), "{shown}");
    }
    for raw in ["<b>reports", "quiet <hours>", "<script>alert", "https://"] {
        assert!(!page.contains(raw), "{raw}");
    }
    assert!(page.contains("content-security-policy: default-src 'none'"));
}

#[tokio::test]
async fn the_api_answers_in_its_envelope() {
    let server = server().await;
    let json = |answer: String| -> serde_json::Value {
        let body = answer.split_once("\r\n\r\n").unwrap().1.to_string();
        serde_json::from_str(&body).unwrap()
    };
    let whole = json(server.get("/api/snapshot").await);
    assert_eq!(whole["version"], 1);
    assert_eq!(serde_json::from_value::<Snapshot>(whole["data"].clone()).unwrap(), snapshot());
    assert_eq!(json(server.get("/api/runs").await)["data"][0]["summary"]["run"], "run-7");
    assert_eq!(json(server.get("/api/runs/run-7").await)["data"]["current"]["phase"], "collecting");
    assert_eq!(json(server.get("/api/devices").await)["data"][0]["name"], "board-1");
    assert!(server.get("/api/runs/other").await.starts_with("HTTP/1.1 404"));
    assert!(server.get("/nowhere").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let answer = server().await.get("/metrics").await;
    assert!(answer.contains("content-type: text/plain; version=0.0.4"));
    for line in [
        "# TYPE fedtt_run_traffic_bytes_total counter",
        "fedtt_run_traffic_bytes_total{run=\"run-7\",direction=\"up\"} 1500",
        "fedtt_run_refused_total{run=\"run-7\",kind=\"late\"} 2",
        "fedtt_run_quality{run=\"run-7\",metric=\"accuracy\"} 0.875",
        "fedtt_devices{state=\"online\"} 1",
        "fedtt_errors_total 5",
        "fedtt_refused_total{kind=\"forged\"} 3",
        "fedtt_round_cohort{run=\"run-7\"} 1",
    ] {
        assert!(answer.lines().any(|l| l == line), "{line}\n{answer}");
    }
    let samples = answer.split_once("\r\n\r\n").unwrap().1.lines().filter(|l| !l.starts_with('#'));
    for sample in samples {
        assert!(sample.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{sample}");
    }
}

#[tokio::test]
async fn events_bring_what_is_new_and_end_with_the_server() {
    let server = server().await;
    let mut events = server.open("/events", "localhost").await;
    await_text(&mut events, "3 of 9 rounds").await;
    let mut next = snapshot();
    next.runs[0].summary.rounds_done = 4;
    server.sender.send(Arc::new(next)).unwrap();
    await_text(&mut events, "4 of 9 rounds").await;
    server.stop.send(()).unwrap();
    let mut rest = Vec::new();
    events.read_to_end(&mut rest).await.unwrap();
    server.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn only_a_runs_own_files_are_served() {
    let server = server().await;
    let folder = server.runs.path().join("run-7");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("report.html"), "<p>the report</p>").unwrap();
    std::fs::write(folder.join("events.jsonl"), "secret").unwrap();
    std::fs::write(server.runs.path().join("report.html"), "outside").unwrap();
    assert!(server.get("/runs/run-7/report.html").await.ends_with("<p>the report</p>"));
    for path in [
        "run-7/events.jsonl",
        "run-7/adapter.safetensors",
        "run-7/adapter.safetensors.sha256",
        "run-8/report.html",
        "..%2fkept/adapter.safetensors",
        "%2e%2e/report.html",
        "..%2frun-7/report.html",
        ".%2f/report.html",
    ] {
        assert!(server.get(&format!("/runs/{path}")).await.starts_with("HTTP/1.1 404"), "{path}");
    }
}

#[tokio::test]
async fn on_loopback_other_names_are_refused() {
    let server = server().await;
    for (host, status) in [("localhost:80", "200"), ("127.0.0.1", "200"), ("[::1]:80", "200"), ("evil.example", "421")]
    {
        let mut answer = String::new();
        server.open("/api/devices", host).await.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
}

#[tokio::test]
async fn devices_get_adapters_and_bundles_in_ranges_and_nothing_else() {
    let server = server().await;
    let (run, kept) = (server.runs.path().join("run-7"), server.runs.path().join("kept"));
    for folder in [&run, &kept] {
        std::fs::create_dir(folder).unwrap();
    }
    std::fs::write(run.join("adapter.safetensors"), "factors").unwrap();
    std::fs::write(kept.join("weights.bin"), "0123456789").unwrap();
    std::fs::write(kept.join("secret.txt"), "secret").unwrap();
    assert!(server.get("/runs/run-7/adapter.safetensors").await.ends_with("factors"));
    let hash = server.get("/runs/run-7/adapter.safetensors.sha256").await;
    assert!(
        hash.ends_with("1e40954c019c3e5d5595eaf8fa339fee3062a07f1e8b206982a07600eccf7ac5  adapter.safetensors\n"),
        "{hash}"
    );

    let bundle = format!("/bundles/{}", "ab".repeat(32));
    let whole = server.get(&format!("{bundle}/weights.bin")).await;
    assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with("0123456789"), "{whole}");
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request =
        format!("GET {bundle}/weights.bin HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: bytes=4-\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut part = String::new();
    stream.read_to_string(&mut part).await.unwrap();
    assert!(part.starts_with("HTTP/1.1 206") && part.contains("content-range: bytes 4-9/10"), "{part}");
    assert!(part.ends_with("\r\n\r\n456789"), "{part}");
    for path in [
        format!("{bundle}/secret.txt"),
        format!("{bundle}/graph.onnx"),
        format!("{bundle}/..%2fkept%2fweights.bin"),
        format!("/bundles/{}/weights.bin", "cd".repeat(32)),
        "/bundles/..%2fkept/weights.bin".to_string(),
        "/bundles/weights.bin".to_string(),
    ] {
        assert!(server.get(&path).await.starts_with("HTTP/1.1 404"), "{path}");
    }
}

#[tokio::test]
async fn bundles_alone_are_served_where_devices_come() {
    let kept = tempfile::tempdir().unwrap();
    std::fs::write(kept.path().join("weights.bin"), "0123456789").unwrap();
    std::fs::write(kept.path().join("secret.txt"), "secret").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let folder = kept.path().to_path_buf();
    let bundles = Arc::new(move |hash: &str| (hash == "ab".repeat(32)).then(|| folder.clone()));
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(serve_bundles(listener, bundles, async { stopped.await.unwrap_or_default() }));
    let get = async |path: &str, host: &str| {
        let mut answer = String::new();
        open(address, path, host).await.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let bundle = format!("/bundles/{}", "ab".repeat(32));
    let whole = get(&format!("{bundle}/weights.bin"), "127.0.0.1").await;
    assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with("0123456789"), "{whole}");
    assert!(whole.contains("content-security-policy: default-src 'none'") && whole.contains("accept-ranges: bytes"));
    let foreign = get(&format!("{bundle}/weights.bin"), "evil.example").await;
    assert!(foreign.starts_with("HTTP/1.1 421"), "{foreign}");
    for path in [
        "/",
        "/events",
        "/metrics",
        "/api/snapshot",
        "/api/runs",
        "/api/devices",
        "/runs/run-7/report.html",
        "/runs/run-7/adapter.safetensors",
        "/bundles",
        &format!("{bundle}/secret.txt"),
        &format!("/bundles/{}/weights.bin", "cd".repeat(32)),
    ] {
        let answer = get(path, "127.0.0.1").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    stop.send(()).unwrap();
    served.await.unwrap().unwrap();
}
