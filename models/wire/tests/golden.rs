//! The bytes of every message, as files: whoever changes what is said on the wire has to change them as well.
//!
//! `FEDTT_BLESS=1 cargo test -p fedtt-wire --test golden` writes them anew.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use fedtt_tt::{CoreSchedule, TrainMask};
use fedtt_wire::layout::Entry;
use fedtt_wire::message::{
    Chunk, End, Goal, Greeting, Hello, Host, Manifest, Measurement, Need, Outcome, Parcel, Presence, Progress, Refusal,
    RunPlan, SMALL, Tensors, Update, Verdict,
};
use fedtt_wire::plan::{Encoding, Plan};
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::{DeviceName, Digest, Layout, Message, RunId, SigningKey, WireError, frame};
use ndarray::{ArrayD, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const BEGAN: u64 = 1_790_000_000_123;
const TOPIC: &str = "fedtt/north/up/jetson-07";

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32]).unwrap()
}

fn run() -> RunId {
    RunId::new("trec-1").unwrap()
}

fn device() -> DeviceName {
    DeviceName::new("jetson-07").unwrap()
}

fn tensors() -> Vec<EncodedTensor> {
    let values = ArrayD::from_shape_vec(IxDyn(&[2, 2]), vec![1.0, -0.5, 0.25, 0.0]).unwrap();
    let encode = |encoding, shuffle| EncodedTensor::encode(values.view(), encoding, Some(shuffle));
    vec![
        encode(Encoding::F32, false),
        encode(Encoding::Bf16, false),
        encode(Encoding::F16, false),
        encode(Encoding::Int8, false),
        encode(Encoding::F32, true),
    ]
}

fn parcel() -> Parcel {
    Parcel { digest: Digest::of(b"payload"), size: 7, chunks: 2 }
}

/// One of each, every field set.
fn messages() -> BTreeMap<&'static str, Message> {
    let measured = Measurement { examples: 20, loss: 0.75, metric: "accuracy".into(), value: 0.8 };
    let mut plan = Plan { name: "trec".into(), ..Plan::default() };
    plan.model.labels = vec!["ABBR".into(), "DESC".into()];
    let layout = Layout(vec![Entry { name: "b0.down.core.0".into(), shape: vec![1, 8, 5] }]);
    let outcome = |outcome| Verdict { run: run(), round: 3, update: Digest::of(b"payload"), outcome };
    let presence = Presence {
        online: true,
        version: "0.1.0".into(),
        labels: vec!["north".into()],
        engine: "tract".into(),
        bundles: vec!["00ff".into()],
        fetches: false,
        fetching: Vec::new(),
        examples: 120,
        problem: None,
        key: Some(key().public()),
        session: 1_790_000_000_000,
        beat: 2,
    };
    let fetching = Presence { fetches: true, fetching: vec!["0abc".into()], ..presence.clone() };
    let problem = Some("cannot read reports.tsv".into());
    let unready = Presence { examples: 0, problem, ..presence.clone() };
    let manifest = Manifest {
        run: run(),
        began: BEGAN,
        issued: BEGAN + 5,
        round: 3,
        attempt: 1,
        goal: Goal::Train,
        cohort: vec![device()],
        mask: TrainMask { cores: CoreSchedule::EndsAndOne { round: 3 }, biases: true, head: false },
        rate: 0.5,
        state: Digest::of(b"state"),
        change: Some((Digest::of(b"before"), parcel())),
        seconds: 600,
        counted: vec![device()],
    };
    let update = Update {
        run: run(),
        began: BEGAN,
        round: 3,
        state: Digest::of(b"state"),
        device: device(),
        examples: 100,
        steps: 10,
        tokens: 0,
        loss: 0.5,
        seconds: 2.0,
        joules: Some(9.5),
        measured: Some(measured),
        sent: 1000,
        received: 2000,
        tensors: tensors(),
    };
    let state = Tensors { run: run(), state: Digest::of(b"state"), places: vec![0, 1, 2, 5, 6], tensors: tensors() };
    BTreeMap::from([
        ("presence", presence.into()),
        ("presence-fetching", fetching.into()),
        ("presence-problem", unready.into()),
        ("plan", RunPlan { run: run(), began: BEGAN, plan, layout }.into()),
        ("manifest", manifest.into()),
        ("chunk", Chunk { run: run(), round: 3, parcel: parcel(), index: 1, data: b"oad".to_vec().into() }.into()),
        ("update", update.into()),
        ("tensors", state.into()),
        ("verdict-accepted", outcome(Outcome::Accepted).into()),
        ("verdict-rejected", outcome(Outcome::Rejected("not a number".into())).into()),
        ("verdict-missing", outcome(Outcome::Missing(vec![0, 2])).into()),
        ("progress", Progress { run: run(), round: 3, step: 4, steps: 10, loss: 0.5 }.into()),
        ("refusal", Refusal { run: run(), round: 3, reason: "quiet hours".into(), until: None }.into()),
        ("need", Need { run: run(), state: Digest::of(b"state") }.into()),
        ("hello", Hello { nonce: 7, key: key().public() }.into()),
        ("greeting", Greeting { nonce: 7, time: BEGAN, version: "0.1.0".into() }.into()),
        ("host", Host { key: key().public(), version: "0.1.0".into() }.into()),
        ("end", End { run: run(), began: BEGAN }.into()),
    ])
}

fn hex(bytes: &[u8]) -> String {
    let lines: Vec<String> =
        bytes.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    lines.join("\n") + "\n"
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

#[test]
fn messages_have_the_bytes_they_had() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, message) in messages() {
        let path = folder.join(format!("{name}.hex"));
        // Uncompressed: zstd's bytes are its own affair.
        let bytes = message.encode(0).unwrap();
        if std::env::var_os("FEDTT_BLESS").is_some() {
            std::fs::write(&path, hex(&bytes)).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(hex(&bytes), golden, "{name} changed; a change of the wire needs a new frame::VERSION");
        assert_eq!(Message::decode(&unhex(&golden), SMALL).unwrap(), message, "{name}");
        assert_eq!(Message::decode(&message.encode(3).unwrap(), SMALL).unwrap(), message, "{name}, compressed");
    }
}

/// A need, sealed by the key of 32 times 7 for `fedtt/north/up/jetson-07`.
#[test]
fn seals_have_the_bytes_they_had_and_hold_for_one_topic_and_no_other_bytes() {
    let frame = messages()["need"].encode(0).unwrap();
    let sealed = key().seal(TOPIC, frame.clone());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sealed-need.hex");
    if std::env::var_os("FEDTT_BLESS").is_some() {
        std::fs::write(&path, hex(&sealed)).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(hex(&sealed), golden, "the seal changed");
    let public = key().public();
    assert_eq!(public.open(TOPIC, &sealed).unwrap(), frame);
    for topic in ["fedtt/north/up/jetson-08", "fedtt/south/up/jetson-07", "fedtt/north/presence/jetson-07", ""] {
        assert_eq!(public.open(topic, &sealed), Err(WireError::Signature), "{topic}");
    }
    // What one topic ends with another does not begin with.
    let shifted = [b"7".as_slice(), &sealed].concat();
    assert_eq!(public.open("fedtt/north/up/jetson-0", &shifted), Err(WireError::Signature));
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for _ in 0..500 {
        let mut damaged = sealed.clone();
        match rng.random_range(0..4) {
            0 => damaged.truncate(rng.random_range(0..sealed.len())),
            1 => damaged.insert(rng.random_range(0..=sealed.len()), rng.random()),
            _ => {
                let at = rng.random_range(0..sealed.len());
                damaged[at] ^= 1 << rng.random_range(0..8);
            }
        }
        assert!(public.open(TOPIC, &damaged).is_err());
    }
}

#[test]
fn damaged_and_made_up_messages_are_refused_without_harm() {
    let whole: Vec<Vec<u8>> = messages().values().flat_map(|m| [m.encode(0).unwrap(), m.encode(3).unwrap()]).collect();
    let rounds = std::env::var("FEDTT_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut understood = 0;
    for round in 0..rounds {
        let mut bytes = whole[rng.random_range(0..whole.len())].clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..4) {
                0 => bytes[at] ^= 1 << rng.random_range(0..8),
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, rng.random()),
                _ => bytes[at] = rng.random(),
            }
        }
        // Every other one with its checksum put right, so that what lies behind it is tried as well.
        if round % 2 == 0 && bytes.len() > 8 {
            bytes[..2].copy_from_slice(b"FT");
            bytes[2] = frame::VERSION;
            let mut crc = crc32fast::Hasher::new();
            crc.update(&bytes[..4]);
            crc.update(&bytes[8..]);
            let crc = crc.finalize().to_le_bytes();
            bytes[4..8].copy_from_slice(&crc);
        }
        understood += u32::from(Message::decode(&bytes, 1 << 20).is_ok());
    }
    assert!(understood > 0, "some changes are harmless");
}

#[test]
fn bombs_and_strangers_are_named() {
    let zeros = vec![0u8; 300 << 20];
    let bomb = zstd::bulk::compress(&zeros, 3).unwrap();
    let frame = |kind: u8, body: &[u8]| {
        let head = [b'F', b'T', frame::VERSION, kind];
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head);
        crc.update(body);
        [&head[..], &crc.finalize().to_le_bytes(), body].concat()
    };
    let said = |bytes: &[u8]| Message::decode(bytes, 1 << 20).unwrap_err().to_string();
    assert!(said(&frame(128 | 5, &bomb)).contains("more than the 1048576 allowed"));
    let streamed = zstd::stream::encode_all(&b"no size stated, as a stream has none"[..], 3).unwrap();
    assert!(said(&frame(128 | 5, &streamed)).contains("does not state its size"));
    let two =
        [zstd::bulk::compress(&zeros[..2 << 20], 3).unwrap(), zstd::bulk::compress(&zeros[..9], 3).unwrap()].concat();
    let twice = Message::decode(&frame(128 | 5, &two), 2 << 20).unwrap_err().to_string();
    assert!(twice.contains("another frame follows"), "{twice}");
    assert_eq!(said(&frame(99, b"")), "message of unknown kind 99");
    assert!(said(b"FT\x01\x01abcdefgh").contains("version 1; this program speaks version 3"));
    assert!(said(b"GET / HTTP/1.1").contains("does not begin with `FT`"));
    assert!(said(b"FT").contains("too short"));
    let mut flipped = frame(10, b"\xa0");
    flipped[8] ^= 1;
    assert!(said(&flipped).contains("checksum"));
    // A thousand arrays in each other.
    assert!(said(&frame(5, &[0x81; 1000])).contains("update not understood"));
    // An array that says it has 2^40 entries.
    assert!(said(&frame(6, &[0x9b, 0, 0, 1, 0, 0, 0, 0, 0])).contains("tensors not understood"));
}
