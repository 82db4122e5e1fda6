#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};

use fedtt_backbone::bundle::{self, Draft, Origin, Precision, Settings};
use fedtt_backbone::ir::{DType, Graph, Node, Port, PortDim, Weight};
use fedtt_backbone::sites::Anatomy;
use fedtt_backbone::training::Pooling;
use fedtt_wire::Digest;

use super::*;

#[path = "tls_tests.rs"]
mod tls;

/// What a server does with a request for a path from a byte on.
enum Reply {
    /// Sends these bytes and closes the connection.
    Raw(Vec<u8>),
    /// Sends these, and goes on with zeros as long as anybody reads.
    Endless(Vec<u8>),
}

type Asked = Arc<Mutex<Vec<(String, u64)>>>;

/// A web server that does as it likes.
struct Site {
    address: SocketAddr,
    asked: Asked,
}

impl Site {
    fn new(reply: impl Fn(&str, u64) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Asked::default();
        let heard = asked.clone();
        // It ends with the process of the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = answer(&mut stream, &reply, &heard);
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
        });
        Site { address, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    fn asked(&self) -> Vec<(String, u64)> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(stream: &mut (impl Read + Write), reply: &impl Fn(&str, u64) -> Reply, asked: &Asked) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let path = head.split(' ').nth(1).unwrap().trim_start_matches('/').to_string();
    let range = head.split("range: bytes=").nth(1).and_then(|rest| rest.split('-').next()?.parse().ok());
    let from = range.unwrap_or(0);
    asked.lock().unwrap().push((path.clone(), from));
    match reply(&path, from) {
        Reply::Raw(bytes) => stream.write_all(&bytes)?,
        Reply::Endless(bytes) => {
            stream.write_all(&bytes)?;
            while stream.write_all(&[0; 4096]).is_ok() {}
        }
    }
    stream.flush()
}

fn ok(body: &[u8]) -> Reply {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    Reply::Raw([head.as_bytes(), body].concat())
}

/// As a good server answers: in ranges.
fn part(body: &[u8], from: u64) -> Reply {
    let (from, all) = (from as usize, body.len());
    if from == 0 {
        return ok(body);
    }
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{all}\r\nConnection: close\r\n\r\n",
        all - from,
        all - 1
    );
    Reply::Raw([head.as_bytes(), &body[from..]].concat())
}

/// The first `n` bytes of a body in an answer that promises all, then nothing.
fn cut(reply: Reply, n: usize) -> Reply {
    let Reply::Raw(mut bytes) = reply else { panic!() };
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    bytes.truncate(head + n);
    Reply::Raw(bytes)
}

fn missing() -> Reply {
    Reply::Raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec())
}

type Files = BTreeMap<String, Vec<u8>>;

/// A small bundle: its hash and its files.
fn made(seed: u32) -> (String, Files) {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0..40_000u32).map(|i| ((i * 7919 + seed) % 1013) as f32).collect();
    let port = |name: &str| Port {
        name: name.into(),
        dtype: DType::F32,
        shape: Some(vec![PortDim::Symbol("batch".into()), PortDim::Known(200)]),
    };
    let graph = Graph {
        name: "g".into(),
        nodes: vec![Node {
            op: "MatMul".into(),
            inputs: vec!["x".into(), "w".into()],
            outputs: vec!["y".into()],
            ..Node::default()
        }],
        weights: [("w".to_string(), Weight::f32s(&[200, 200], &values))].into(),
        inputs: vec![port("x")],
        outputs: vec![port("y")],
    };
    let anatomy = Anatomy {
        hidden: 200,
        sites: vec![],
        branches: vec![],
        streams: vec![],
        hidden_state: "y".into(),
        logits: None,
        causal: None,
    };
    let settings = Settings {
        source: Origin { file: "m.onnx".into(), sha256: "00".into() },
        anatomy,
        vocabulary: None,
        precision: Precision::Float32,
        pooling: Pooling::Mean,
        labels: vec![],
        licence: None,
    };
    let place = folder.path().join("b");
    let draft = Draft { graph, settings, tokenizer: None, licence: None };
    let hash = bundle::write(&place, draft).unwrap().hash().to_string();
    (hash, read(&place))
}

fn read(folder: &Path) -> Files {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect()
}

fn good(files: &Files, path: &str, from: u64) -> Reply {
    match files.get(path.rsplit('/').next().unwrap()) {
        Some(body) => part(body, from),
        None => missing(),
    }
}

struct Device {
    folder: tempfile::TempDir,
    settings: FetchSettings,
}

impl Device {
    fn new(site: &Site) -> Self {
        let settings = FetchSettings { bundles: Some(site.url("bundles")), ..FetchSettings::default() };
        Device { folder: tempfile::tempdir().unwrap(), settings }
    }

    fn shelf(&self) -> Shelf {
        Shelf::of(self.folder.path())
    }

    fn fetch(&self, hash: &str) -> Result<std::path::PathBuf, FetchError> {
        self.fetch_until(hash, &|| false)
    }

    fn fetch_until(&self, hash: &str, stop: &dyn Fn() -> bool) -> Result<std::path::PathBuf, FetchError> {
        super::bundle(&Http::new(None, None).hasty(), &self.shelf(), &self.settings, hash, stop, &mut |_| {})
    }

    /// Files that are anywhere on the device.
    fn files(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut folders = vec![self.folder.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { all.push(path) }
            }
        }
        let name = |path: &std::path::PathBuf| path.strip_prefix(self.folder.path()).unwrap().display().to_string();
        all.iter().map(name).collect()
    }
}

#[test]
fn a_bundle_comes_whole_or_not_at_all() {
    let (hash, files) = made(1);
    let own = files.clone();
    let site = Site::new(move |path, from| good(&own, path, from));
    let device = Device::new(&site);
    let place = device.fetch(&hash).unwrap();
    assert_eq!(place, device.folder.path().join("bundles").join(&hash));
    assert_eq!(read(&place), files);
    assert_eq!(device.shelf().whole(), std::slice::from_ref(&hash));
    assert!(!device.shelf().part(&hash).exists());
    let asked = site.asked().len();
    device.fetch(&hash).unwrap();
    assert_eq!(site.asked().len(), asked, "what is there is not asked for");

    let elsewhere = FetchSettings { bundles: Some(site.url("x/{hash}/y/")), ..FetchSettings::default() };
    let device = Device { folder: tempfile::tempdir().unwrap(), settings: elsewhere };
    device.fetch(&hash).unwrap();
    assert_eq!(site.asked().last().unwrap().0, format!("x/{hash}/y/weights.bin"));
}

#[test]
fn what_breaks_off_goes_on_where_it_was_also_in_another_process() {
    let (hash, files) = made(2);
    let own = files.clone();
    let site = Site::new(move |path, from| match path.ends_with("weights.bin") {
        // So many bytes at a time, whatever is promised.
        true => cut(good(&own, path, from), 50_000.min(own["weights.bin"].len() - from as usize)),
        false => good(&own, path, from),
    });
    let device = Device::new(&site);
    let part = device.shelf().part(&hash).join("weights.bin");
    let stop = || std::fs::metadata(&part).is_ok_and(|file| file.len() >= 100_000);
    assert!(matches!(device.fetch_until(&hash, &stop), Err(FetchError::Stopped)));
    assert!(!device.shelf().place(&hash).exists());
    let place = device.fetch(&hash).unwrap();
    assert_eq!(read(&place), files);
    let starts: Vec<u64> =
        site.asked().into_iter().filter(|(path, _)| path.ends_with("weights.bin")).map(|(_, from)| from).collect();
    assert_eq!(starts, [0, 50_000, 100_000, 150_000], "no byte twice");
}

#[test]
fn servers_without_ranges_will_do() {
    let (hash, files) = made(3);
    let own = files.clone();
    let broken = std::sync::atomic::AtomicBool::new(false);
    let site = Site::new(move |path, _| {
        let reply = own.get(path.rsplit('/').next().unwrap()).map_or_else(missing, |body| ok(body));
        let first = path.ends_with("weights.bin") && !broken.swap(true, std::sync::atomic::Ordering::Relaxed);
        if first { cut(reply, 70_000) } else { reply }
    });
    let device = Device::new(&site);
    assert_eq!(read(&device.fetch(&hash).unwrap()), files);
}

#[test]
fn what_lay_there_damaged_is_fetched_anew() {
    let (hash, files) = made(4);
    let own = files.clone();
    let site = Site::new(move |path, from| good(&own, path, from));
    let device = Device::new(&site);
    let part = device.shelf().part(&hash);
    std::fs::create_dir_all(&part).unwrap();
    std::fs::write(part.join("weights.bin"), vec![0xAA; 10_000]).unwrap();
    std::fs::write(part.join("graph.onnx"), vec![1; files["graph.onnx"].len()]).unwrap();
    std::fs::write(part.join("backbone.json"), vec![1; files["backbone.json"].len() + 5]).unwrap();
    assert_eq!(read(&device.fetch(&hash).unwrap()), files);
}

/// A device that asks a server that answers with `change` where a good one would not; what it says.
fn deceived(change: impl Fn(&Files, &str, u64) -> Option<Reply> + Send + 'static) -> (String, Vec<String>) {
    let (hash, files) = made(5);
    let site = Site::new(move |path, from| change(&files, path, from).unwrap_or_else(|| good(&files, path, from)));
    let device = Device::new(&site);
    let error = device.fetch(&hash).unwrap_err().to_string();
    assert!(!device.shelf().place(&hash).exists() && device.shelf().whole().is_empty());
    let within = |file: &String| file.starts_with(&format!("bundles/{hash}.part/"));
    assert!(device.files().iter().all(within), "{:?}", device.files());
    let files = device.files();
    let limit = |name: &String| std::fs::metadata(device.folder.path().join(name)).unwrap().len() <= 160_000;
    assert!(files.iter().all(limit), "no more than was promised");
    (error, files)
}

#[test]
fn a_hostile_server_does_no_harm() {
    let weights = |path: &str| path.ends_with("weights.bin");
    let (error, _) = deceived(move |files, path, _| weights(path).then(|| ok(&vec![7; files["weights.bin"].len()])));
    assert!(error.contains("weights.bin: what came has SHA-256"), "{error}");

    let (error, _) = deceived(move |_, path, _| {
        weights(path).then(|| Reply::Endless(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec()))
    });
    assert!(error.contains("what came has SHA-256"), "{error}");

    let (error, _) = deceived(move |_, path, _| {
        weights(path).then(|| Reply::Endless(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec()))
    });
    assert!(error.contains("99999999999 bytes where 160000 belong"), "{error}");

    let (error, files) = deceived(|_, path, _| {
        let head = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        path.ends_with("graph.onnx").then(|| Reply::Raw(head.to_vec()))
    });
    assert!(error.contains("302") && error.contains("not followed"), "{error}");
    assert!(!files.iter().any(|file| file.ends_with("graph.onnx")));

    let (error, _) = deceived(|_, path, _| path.ends_with("graph.onnx").then(missing));
    assert!(error.contains("graph.onnx") && error.contains("404"), "{error}");

    let (error, _) = deceived(|_, path, _| path.ends_with("graph.onnx").then(|| Reply::Raw(b"SSH-2.0-x\r\n".to_vec())));
    assert!(error.contains("graph.onnx"), "{error}");

    let (error, _) = deceived(|_, path, _| path.ends_with("graph.onnx").then(|| Reply::Raw(Vec::new())));
    assert!(error.contains("graph.onnx"), "{error}");

    // It breaks off, and then answers with bytes from somewhere else.
    let (error, _) = deceived(move |files, path, from| {
        let lie = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 3-9/10\r\nContent-Length: 7\r\n\r\nabcdefg";
        weights(path).then(|| if from == 0 { cut(ok(&files["weights.bin"]), 99) } else { Reply::Raw(lie.to_vec()) })
    });
    assert!(error.contains("not with the bytes from 99 on"), "{error}");
}

#[test]
fn hostile_manifests_are_refused_before_anything_is_written() {
    let manifest = |files: &Files| -> serde_json::Value { serde_json::from_slice(&files["manifest.json"]).unwrap() };
    // With a hash that is right, as far as a hash can be.
    let rehashed = |mut manifest: serde_json::Value, wanted: &str| {
        let parts = manifest["parts"].as_object().unwrap().clone();
        let mut lines: Vec<_> =
            parts.iter().map(|(name, p)| (name.clone(), p["sha256"].as_str().unwrap().to_string())).collect();
        lines.sort();
        let listing: String = lines.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
        let hash = Digest::of(listing.as_bytes()).to_string();
        manifest["hash"] = hash.clone().into();
        (manifest.to_string(), if wanted.is_empty() { hash } else { wanted.to_string() })
    };
    let (hash, files) = made(6);
    let mut cases: Vec<(String, String, &str)> = Vec::new();
    for name in ["../../outside", "/etc/passwd", "sub/graph.onnx", "..", ""] {
        let mut evil = manifest(&files);
        evil["parts"][name] = serde_json::json!({ "bytes": 3, "sha256": "ab".repeat(32) });
        let (text, hash) = rehashed(evil, "");
        cases.push((text, hash, "that no bundle has"));
    }
    let mut huge = manifest(&files);
    huge["parts"]["weights.bin"]["bytes"] = u64::MAX.into();
    huge["parts"]["graph.onnx"]["bytes"] = u64::MAX.into();
    let (text, own) = rehashed(huge, "");
    cases.push((text, own, "`fetch.max_bytes` allows"));
    let mut large = manifest(&files);
    large["parts"]["weights.bin"]["bytes"] = (3u64 << 30).into();
    let (text, own) = rehashed(large, "");
    cases.push((text, own, "`fetch.max_bytes` allows 1000000"));
    let mut altered = manifest(&files);
    altered["parts"]["weights.bin"]["sha256"] = "cd".repeat(32).into();
    cases.push((altered.to_string(), hash.clone(), "its hash is not that of the parts"));
    let mut odd = manifest(&files);
    odd["parts"]["weights.bin"]["sha256"] = "../../../etc".into();
    let (text, own) = rehashed(odd, "");
    cases.push((text, own, "is not a SHA-256"));
    let (text, _) = rehashed(manifest(&files), "");
    cases.push((text, "ab".repeat(32), "is the manifest of"));
    cases.push(("not json".into(), hash.clone(), "is no manifest"));
    for (text, hash, part) in cases {
        let site =
            Site::new(move |path, _| if path.ends_with("manifest.json") { ok(text.as_bytes()) } else { missing() });
        let mut device = Device::new(&site);
        device.settings.max_bytes = 1_000_000;
        let error = device.fetch(&hash).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
        assert!(device.files().is_empty(), "{:?}", device.files());
    }
    let site = Site::new(|_, _| Reply::Endless(b"HTTP/1.1 200 OK\r\n\r\n{".to_vec()));
    let error = Device::new(&site).fetch(&hash).unwrap_err().to_string();
    assert!(error.contains("more than the 16777216 bytes"), "{error}");
    let device = Device::new(&site);
    for name in ["../../x", "ABCD", &"g".repeat(64), ""] {
        assert!(matches!(device.fetch(name), Err(FetchError::Request(_))), "{name}");
    }
}

#[test]
fn addresses_that_are_none_and_authorities_that_are_missing_are_named() {
    let http = Http::new(Some(Path::new("no-such.pem")), None).hasty();
    for (url, part) in [
        ("ftp://host/x", "http:// or https://"),
        ("http://", "http://"),
        ("https://127.0.0.1:1/x", "no-such.pem"),
        ("http://127.0.0.1:1/x", "127.0.0.1:1"),
    ] {
        let error = http.small(url, 10).unwrap_err().to_string();
        assert!(error.contains(part), "{url}: {error}");
    }
    assert!(is_address("http://host/bundles") && !is_address("host/bundles") && !is_address("http:///x"));
}

#[test]
fn old_bundles_make_room_but_not_those_in_use() {
    let device = Device { folder: tempfile::tempdir().unwrap(), settings: FetchSettings::default() };
    let shelf = device.shelf();
    let hash = |n: usize| format!("{n}").repeat(64);
    for n in 1..6 {
        let place = shelf.place(&hash(n));
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("weights.bin"), vec![0; 1000]).unwrap();
        let manifest = std::fs::File::create(place.join("manifest.json")).unwrap();
        manifest.set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n as u64)).unwrap();
    }
    std::fs::create_dir_all(device.folder.path().join("bundles/.gone-x")).unwrap();
    std::fs::create_dir_all(device.folder.path().join("bundles/of-the-owner")).unwrap();
    let held = shelf.hold(&hash(2)).unwrap();
    let in_use = [hash(1)].into();
    let mut removed = shelf.make_room(2500, &in_use).unwrap();
    removed.sort();
    assert_eq!(removed, [".gone-x".to_string(), hash(3), hash(4), hash(5)], "{removed:?}");
    drop(held);
    assert_eq!(shelf.make_room(1500, &in_use).unwrap(), [hash(2)]);
    assert!(shelf.make_room(0, &in_use).unwrap().is_empty() && shelf.place(&hash(1)).exists());
    assert!(device.folder.path().join("bundles/of-the-owner").exists());
}

#[test]
fn a_full_disk_costs_bundles_that_nobody_uses() {
    let device = Device { folder: tempfile::tempdir().unwrap(), settings: FetchSettings::default() };
    let shelf = device.shelf();
    let hash = |n: usize| format!("{n}").repeat(64);
    for n in 1..4 {
        std::fs::create_dir_all(shelf.place(&hash(n))).unwrap();
        std::fs::write(shelf.place(&hash(n)).join("manifest.json"), vec![0; 1000]).unwrap();
    }
    let held = shelf.hold(&hash(1)).unwrap();
    let disk = 16 * 1024 * 1024 + 3500;
    let free = |_: &std::path::Path| Ok(disk - shelf.bytes());
    let room = |bytes: u64| {
        let sha256 = String::new();
        let parts = [("weights.bin".to_string(), fedtt_backbone::bundle::Part { bytes, sha256 })].into();
        let manifest = fedtt_backbone::bundle::Manifest { format: 1, hash: hash(9), parts };
        super::bundle::fit(&manifest, bytes, &shelf, &device.settings, &free)
    };
    assert_eq!(room(400).unwrap(), 0);
    assert_eq!(shelf.bytes(), 3000, "there was room");
    assert_eq!(room(1200).unwrap(), 0);
    assert_eq!(shelf.bytes(), 2000, "no more than needed");
    assert!(room(2600).unwrap_err().to_string().contains("left"));
    assert!(shelf.place(&hash(1)).exists() && shelf.bytes() == 1000, "what is in use stays");
    drop(held);
    room(3000).unwrap();
    assert_eq!(shelf.bytes(), 0);
}

#[test]
fn a_rate_is_kept_to() {
    let body = vec![5u8; 60_000];
    let own = body.clone();
    let site = Site::new(move |_, from| part(&own, from));
    let folder = tempfile::tempdir().unwrap();
    let sha256 = Digest::of(&body).to_string();
    let url = site.url("file");
    let wanted = Wanted { url: &url, bytes: 60_000, sha256: &sha256 };
    let began = std::time::Instant::now();
    Http::new(None, Some(200_000)).download(&wanted, &folder.path().join("f"), &|| false, &mut |_| {}).unwrap();
    assert!(began.elapsed() >= std::time::Duration::from_millis(280), "{:?}", began.elapsed());
}
