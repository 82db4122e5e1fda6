//! Bundles on disk.

use std::fs;
use std::path::Path;

use fedtt_backbone::bundle::{self, Bundle, Draft, Origin, Precision, Settings};
use fedtt_backbone::export::to_model;
use fedtt_backbone::ir::{DType, Data, Graph, Node, Port, PortDim, Weight};
use fedtt_backbone::sites::Anatomy;
use fedtt_backbone::training::Pooling;
use fedtt_runtime::{Engine, SessionOptions, TractEngine};
use ndarray::Array2;
use sha2::{Digest, Sha256};

/// y = x w + x v, with w and v alike, and a small bias.
fn graph() -> Graph {
    let values: Vec<f32> = (0..400).map(|i| (i % 7) as f32).collect();
    let node = |op: &str, inputs: &[&str], output: &str| Node {
        op: op.into(),
        inputs: inputs.iter().map(|s| s.to_string()).collect(),
        outputs: vec![output.into()],
        ..Node::default()
    };
    let port = |name: &str| Port {
        name: name.into(),
        dtype: DType::F32,
        shape: Some(vec![PortDim::Symbol("batch".into()), PortDim::Known(20)]),
    };
    Graph {
        name: "g".into(),
        nodes: vec![
            node("MatMul", &["x", "v"], "a"),
            node("MatMul", &["x", "w"], "b"),
            node("Add", &["a", "b"], "c"),
            node("Add", &["c", "bias"], "y"),
        ],
        weights: [
            ("bias".to_string(), Weight::f32s(&[20], &[0.5; 20])),
            ("other".to_string(), Weight::f32s(&[300], &[1.0; 300])),
            ("v".to_string(), Weight::f32s(&[20, 20], &values)),
            ("w".to_string(), Weight::f32s(&[20, 20], &values)),
        ]
        .into(),
        inputs: vec![port("x")],
        outputs: vec![port("y")],
    }
}

fn settings() -> Settings {
    Settings {
        source: Origin { file: "m.onnx".into(), sha256: "00".into() },
        anatomy: Anatomy {
            hidden: 20,
            sites: vec![],
            branches: vec![],
            streams: vec![],
            hidden_state: "y".into(),
            logits: None,
            causal: None,
        },
        vocabulary: Some(101),
        precision: Precision::Float32,
        pooling: Pooling::Mean,
        labels: vec!["no".into(), "yes".into()],
        licence: Some("MIT".into()),
    }
}

fn write(folder: &Path) -> Bundle {
    let draft = Draft { graph: graph(), settings: settings(), tokenizer: Some(b"{}"), licence: Some("as is") };
    bundle::write(folder, draft).unwrap()
}

#[test]
fn what_is_written_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("b");
    let bundle = write(&folder);
    assert_eq!(bundle.settings(), &settings());
    assert_eq!(fs::read(bundle.tokenizer().unwrap()).unwrap(), b"{}");
    assert_eq!(fs::read_to_string(bundle.licence().unwrap()).unwrap(), "as is");
    bundle.verify_hash().unwrap();
    let read = bundle.graph().unwrap();
    let expected: Vec<f32> = graph().weights["w"].to_f32s().unwrap();
    assert_eq!(read.weights["w"].to_f32s().unwrap(), expected);
    let offset = |name: &str| match &read.weights[name].data {
        Data::File { offset, .. } => Some(*offset),
        Data::Bytes(_) => None,
    };
    assert_eq!(offset("bias"), None);
    assert_eq!(offset("w"), offset("v"), "the same bytes are kept once");
    assert_eq!(offset("w").unwrap() % 64, 0);

    let model = to_model(&read, bundle.weights_file().as_ref()).unwrap();
    assert!(model.bytes.len() < 1024, "weights stay in their file");
    let run = |model| {
        let mut session = TractEngine::new(1).load(&model, &SessionOptions::default()).unwrap();
        let x = Array2::from_shape_fn((3, 20), |(i, j)| (i + j) as f32).into_dyn();
        session.run(&[("x", &x.into())], &["y"]).unwrap()
    };
    assert_eq!(run(model), run(to_model(&graph(), None).unwrap()));
}

#[test]
fn the_same_content_has_the_same_hash() {
    let temp = tempfile::tempdir().unwrap();
    let (first, second) = (write(&temp.path().join("a")), write(&temp.path().join("b")));
    assert_eq!(first.hash(), second.hash());
    let mut listing = String::new();
    for name in ["LICENSE.txt", "backbone.json", "graph.onnx", "tokenizer.json", "weights.bin"] {
        let bytes = fs::read(first.folder().join(name)).unwrap();
        listing += &format!("{:x}  {name}\n", Sha256::digest(&bytes));
    }
    assert_eq!(first.hash(), format!("{:x}", Sha256::digest(listing.as_bytes())));
}

#[test]
fn damage_is_found() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("b");
    let bundle = write(&folder);
    let mut weights = fs::read(folder.join("weights.bin")).unwrap();
    weights[100] ^= 1;
    fs::write(folder.join("weights.bin"), &weights).unwrap();
    Bundle::open(&folder).unwrap();
    assert!(bundle.verify_hash().unwrap_err().to_string().contains("weights.bin"));
    weights.pop();
    fs::write(folder.join("weights.bin"), &weights).unwrap();
    assert!(Bundle::open(&folder).unwrap_err().to_string().contains("weights.bin"));

    for name in ["graph.onnx", "backbone.json", "tokenizer.json", "LICENSE.txt"] {
        let folder = temp.path().join(name);
        write(&folder);
        let mut bytes = fs::read(folder.join(name)).unwrap();
        bytes[0] ^= 1;
        fs::write(folder.join(name), &bytes).unwrap();
        assert!(Bundle::open(&folder).unwrap_err().to_string().contains(name));
        fs::remove_file(folder.join(name)).unwrap();
        assert!(Bundle::open(&folder).unwrap_err().to_string().contains(name));
    }
}

#[test]
fn a_manifest_that_lies_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    assert!(Bundle::open(temp.path()).unwrap_err().to_string().contains("not a bundle"));
    let folder = temp.path().join("b");
    write(&folder);
    let path = folder.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let refused = |text: &str| {
        fs::write(&path, text).unwrap();
        Bundle::open(&folder).unwrap_err().to_string()
    };
    assert!(refused(&text.replace("\"format\": 1", "\"format\": 9")).contains("format 9"));
    assert!(refused(&text.replace("weights.bin", "../weights.bin")).contains("hash"));
    assert!(refused(&text.replace("\"bytes\": 2,", "\"bytes\": 3,")).contains("tokenizer.json"));
    assert!(refused(&text[..text.len() / 2]).contains("manifest.json"));
    assert!(refused("[]").contains("manifest.json"));
}

#[test]
fn nothing_is_overwritten_and_nothing_left_half_done() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("b");
    write(&folder);
    let draft = || Draft { graph: graph(), settings: settings(), tokenizer: None, licence: None };
    assert!(bundle::write(&folder, draft()).unwrap_err().to_string().contains("exists already"));
    let mut broken = draft();
    let gone = Data::File { path: temp.path().join("gone").into(), offset: 0 };
    broken.graph.weights.get_mut("w").unwrap().data = gone;
    let error = bundle::write(&temp.path().join("c"), broken).unwrap_err().to_string();
    assert!(error.contains("`w`"), "{error}");
    let left: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["b"]);
}
