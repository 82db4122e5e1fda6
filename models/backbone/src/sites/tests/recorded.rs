//! `backbone.json` files that do not fit their graph.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::LOGITS;
use crate::backbone::Backbone;
use crate::bundle::{self, Bundle, Draft, Origin, Precision, Settings};
use crate::training::Pooling;

/// A bundle of a causal language model.
fn write(folder: &Path) -> Backbone {
    let backbone = Backbone::new(LOGITS.graph(), None).unwrap();
    let settings = Settings {
        source: Origin { file: "m.onnx".into(), sha256: "00".into() },
        anatomy: backbone.anatomy.clone(),
        vocabulary: backbone.vocabulary(),
        precision: Precision::Float32,
        pooling: Pooling::Last,
        labels: vec![],
        licence: None,
    };
    bundle::write(folder, Draft { graph: backbone.kept_graph(), settings, tokenizer: None, licence: None }).unwrap();
    backbone
}

/// Puts other settings into a bundle, with hashes that fit.
fn replace(folder: &Path, settings: &Value) {
    let path = folder.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let bytes = serde_json::to_vec(settings).unwrap();
    fs::write(folder.join("backbone.json"), &bytes).unwrap();
    let sha = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
    manifest["parts"]["backbone.json"] = serde_json::json!({"bytes": bytes.len(), "sha256": sha(&bytes)});
    let parts: BTreeMap<String, Value> = serde_json::from_value(manifest["parts"].clone()).unwrap();
    let lines = parts.iter().map(|(name, part)| format!("{}  {name}\n", part["sha256"].as_str().unwrap()));
    manifest["hash"] = sha(lines.collect::<String>().as_bytes()).into();
    fs::write(path, manifest.to_string()).unwrap();
}

/// JSON pointers to every value that `wanted` accepts.
fn pointers(value: &Value, at: &str, wanted: &dyn Fn(&Value) -> bool, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(k, v)| pointers(v, &format!("{at}/{k}"), wanted, found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), wanted, found));
        }
        _ if wanted(value) => found.push(at.to_string()),
        _ => {}
    }
}

struct Hostile {
    folder: tempfile::TempDir,
    good: Value,
}

impl Hostile {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("b"));
        let good = serde_json::from_slice(&fs::read(folder.path().join("b/backbone.json")).unwrap()).unwrap();
        Hostile { folder, good }
    }

    /// What opening says once the value at `pointer` is another.
    fn open(&self, pointer: &str, value: Value) -> Result<Backbone, String> {
        let mut settings = self.good.clone();
        *settings.pointer_mut(pointer).unwrap() = value;
        let folder = self.folder.path().join("b");
        replace(&folder, &settings);
        let bundle = Bundle::open(&folder).map_err(|error| error.to_string())?;
        Backbone::open(&bundle).map_err(|error| error.to_string())
    }

    fn pointers(&self, wanted: impl Fn(&Value) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        pointers(&self.good, "", &wanted, &mut found);
        found
    }
}

#[test]
fn what_was_written_opens() {
    let hostile = Hostile::new();
    let opened = hostile.open("/licence", Value::Null).unwrap();
    assert_eq!(opened.anatomy, Backbone::new(LOGITS.graph(), None).unwrap().anatomy);
}

#[test]
fn every_wrong_number_is_refused_by_its_field() {
    let hostile = Hostile::new();
    let numbers = hostile.pointers(Value::is_u64);
    assert_eq!(numbers.len(), 8 * 3 + 2, "block and two widths of eight sites, hidden, vocabulary");
    for pointer in numbers {
        let was = hostile.good.pointer(&pointer).unwrap().as_u64().unwrap();
        let field = pointer.rsplit('/').next().unwrap();
        for value in [0, was + 1, was.saturating_sub(1), 1_000_000_000_000, u64::MAX] {
            if value != was {
                let error = hostile.open(&pointer, value.into()).unwrap_err();
                // A block number makes the id, and the number of streams, wrong as well.
                let named = error.contains(field) || (field == "block" && error.contains("`anatomy."));
                assert!(named, "{pointer} = {value}: {error}");
            }
        }
    }
}

#[test]
fn every_other_tensor_is_refused() {
    let hostile = Hostile::new();
    let fields = ["tensor", "input", "hidden_state", "logits"];
    let is_name = |pointer: &String| {
        fields.contains(&pointer.rsplit('/').next().unwrap()) || pointer.starts_with("/anatomy/streams/")
    };
    let pointers: Vec<String> = hostile.pointers(Value::is_string).into_iter().filter(is_name).collect();
    assert_eq!(pointers.len(), 8 * 2 + 3);
    let names: Vec<&Value> = pointers.iter().map(|pointer| hostile.good.pointer(pointer).unwrap()).collect();
    let strangers = ["", "nowhere", "input_ids", "range", "mask", "wq0", "x0", "act1", "p0"].map(Value::from);
    for pointer in &pointers {
        let was = hostile.good.pointer(pointer).unwrap();
        for name in names.iter().copied().chain(&strangers).filter(|name| *name != was) {
            match hostile.open(pointer, name.clone()) {
                Err(error) => assert!(error.contains("`anatomy."), "{pointer} = {name}: {error}"),
                Ok(_) => panic!("{pointer} = {name} opens"),
            }
        }
    }
}

#[test]
fn lists_of_another_length_are_refused() {
    let hostile = Hostile::new();
    let anatomy = &hostile.good["anatomy"];
    let longer = |list: &Value| [list.as_array().unwrap().clone(), list.as_array().unwrap().clone()].concat();
    for (pointer, value) in [
        ("/anatomy/sites", Value::Array(vec![])),
        ("/anatomy/sites", longer(&anatomy["sites"]).into()),
        ("/anatomy/branches", longer(&anatomy["branches"]).into()),
        ("/anatomy/branches", anatomy["sites"].clone()),
        ("/anatomy/streams", Value::Array(vec![])),
        ("/anatomy/streams", longer(&anatomy["streams"]).into()),
        ("/anatomy/streams/0", "x1".into()),
        ("/anatomy/sites/0/id", "0.mlp".into()),
        ("/anatomy/sites/0/kind", "query".into()),
    ] {
        let error = hostile.open(pointer, value).map(|_| ()).unwrap_err();
        assert!(error.contains("`anatomy."), "{pointer}: {error}");
    }
}

/// Bundles written before `causal` was recorded say nothing of it, and are read as they were.
#[test]
fn what_is_not_recorded_stays_unknown() {
    let hostile = Hostile::new();
    assert!(hostile.good["anatomy"].get("causal").is_none());
    let opened = hostile.open("/licence", Value::Null).unwrap();
    assert_eq!((opened.anatomy.causal, opened.causal_logits()), (None, Ok("logits")));
}
