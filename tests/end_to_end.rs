//! What a user does, over the built programs.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod federation;

use std::fs;
use std::path::Path;

use fedtt_tests::{Word, code, data, json, program, shared};

#[test]
fn train_evaluate_and_predict_on_what_is_embedded() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("adapter.safetensors");
    let trained = data("fedtt-edge", &[&"train", &"--epochs", &"2", &"--engine", &"tract", &"-o", &adapter]);
    assert_eq!(trained["finished"], true);
    let accuracy = trained["test"]["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.4, "six classes after two epochs: {accuracy}");

    let lines = folder.path().join("reports.txt");
    fs::write(&lines, "Pump bearing screams since the morning.\nNo link to the gateway after the storm.\n").unwrap();
    let predicted = data("fedtt-edge", &[&"predict", &"--adapter", &adapter, &"--file", &lines, &"--engine", &"tract"]);
    let predictions = predicted["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 2);
}

#[test]
fn wrong_usage_and_failure_have_their_own_exit_codes() {
    let usage = program("fedtt").args(["backbone", "prepare"]).output().unwrap();
    assert_eq!(code(&usage), 2);
    let (envelope, failed) = json("fedtt", &[&"backbone", &"inspect", &"no-such-bundle"]);
    assert_eq!((failed, envelope["ok"].as_bool()), (1, Some(false)));
    assert!(envelope["error"].as_str().unwrap().contains("no-such-bundle"), "{envelope}");
    let (envelope, failed) = json("fedtt-edge", &[&"eval", &"--adapter", &"no-such-file", &"--data", &"no-such-data"]);
    assert_eq!((failed, envelope["ok"].as_bool()), (1, Some(false)));
}

#[test]
fn a_file_that_is_not_onnx_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    fs::write(&model, "this is not a model").unwrap();
    let bundle = folder.path().join("bundle");
    let (envelope, failed) = json("fedtt", &[&"backbone", &"prepare", &model, &"-o", &bundle]);
    assert_eq!(failed, 1);
    assert!(envelope["error"].as_str().unwrap().contains("model.onnx"), "{envelope}");
    assert!(!bundle.exists());
}

/// What one engine computes is a reference the others are held against; another backbone's is not.
#[test]
fn a_recorded_reference_holds_on_every_engine() {
    let folder = tempfile::tempdir().unwrap();
    let (bundle, reference) = (folder.path().join("bundle"), folder.path().join("pc.safetensors"));
    let encoder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/zoo/encoder");
    let (model, tokenizer) = (encoder.join("model.onnx"), encoder.join("tokenizer.json"));
    data("fedtt", &[&"backbone", &"prepare", &model, &"--tokenizer", &tokenizer, &"-o", &bundle]);
    let verify: [Word; 3] = [&"backbone", &"verify", &bundle];
    data("fedtt", &[&verify[..], &[&"--engine", &"tract", &"--write-reference", &reference]].concat());
    for engine in engines() {
        let report = data("fedtt", &[&verify[..], &[&"--engine", &engine, &"--reference", &reference]].concat());
        for site in report["sites"].as_array().unwrap() {
            assert!(site["gradient_nonzero"].as_f64().unwrap() < 1e-4, "{engine}: {site}");
        }
    }
    let mut bytes = fs::read(&reference).unwrap();
    // The last hidden states, beyond those of the padding.
    let last = bytes.len() - 4000;
    bytes[last..].iter_mut().for_each(|byte| *byte = 0x40);
    fs::write(&reference, bytes).unwrap();
    let (envelope, failed) = json("fedtt", &[&verify[..], &[&"--reference", &reference]].concat());
    assert_eq!((failed, envelope["data"]["passed"].as_bool()), (1, Some(false)), "{envelope:#}");
}

/// Family and file of every row of the fixtures' table.
fn fixtures() -> Vec<(String, String)> {
    let readme = fs::read_to_string(shared("fixtures/README.md")).unwrap();
    let rows = readme.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ").map(str::to_string);
        Some((cells.next()?, cells.next()?))
    });
    rows.skip_while(|(family, _)| family != "family").skip(1).collect()
}

/// What the refusal of a fixture says of the node it names.
fn refusal(family: &str, file: &str) -> Option<&'static str> {
    match (family, file.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches("-opset")) {
        ("bert", "ort-fused-dynamo") => Some("(com.microsoft::SkipLayerNormalization): it is a fused operator"),
        ("bert", "ort-fused-optimum") => Some("(com.microsoft::EmbedLayerNormalization): it is a fused operator"),
        ("llama", "ort-fused-dynamo" | "ort-fused-torchscript-eager") => {
            Some("(SimplifiedLayerNormalization): it is a fused operator")
        }
        (_, "int8-dynamic") => Some("(DynamicQuantizeLinear): it computes with quantised activations"),
        _ => None,
    }
}

/// Every fixture marked as supported verifies against torch on the engine of this run; the others are refused by the
/// operator's name.
#[test]
#[cfg_attr(not(shared), ignore = "needs the fixtures beside the repository")]
fn fixtures_verify_or_are_refused_by_operator() {
    let folder = tempfile::tempdir().unwrap();
    let (mut verified, mut refused) = (0, 0);
    for (family, file) in fixtures() {
        let name = format!("{family}-{file}");
        let family_folder = shared("fixtures").join(&family);
        let model = family_folder.join(format!("{file}.onnx"));
        let bundle = folder.path().join(&name);
        let (envelope, failed) = json("fedtt", &[&"backbone", &"prepare", &model, &"-o", &bundle]);
        if let Some(said) = refusal(&family, &file) {
            let error = envelope["error"].as_str().unwrap_or_default();
            assert_eq!(failed, 1, "{name}: {envelope}");
            assert!(error.contains("cannot differentiate node `") && error.contains(said), "{name}: {error}");
            refused += 1;
            continue;
        }
        assert_eq!(failed, 0, "{name}: {envelope}");
        let reference = match file.as_str() {
            n if n.starts_with("int4") => "reference-int4.safetensors",
            n if n.starts_with("int8-weightonly") => "reference-int8-weightonly.safetensors",
            _ => "reference.safetensors",
        };
        let reference = family_folder.join(reference);
        for engine in engines() {
            let words: [Word; 7] = [&"backbone", &"verify", &bundle, &"--reference", &reference, &"--engine", &engine];
            let (envelope, failed) = json("fedtt", &words);
            assert_eq!(failed, 0, "{name} on {engine}: {envelope:#}");
            assert_eq!(envelope["data"]["sites"].as_array().unwrap().len(), 4);
        }
        verified += 1;
    }
    assert!(verified >= 43 && refused >= 6, "{verified} verified, {refused} refused");
}

/// tract always; ONNX Runtime where the environment names its library.
fn engines() -> Vec<&'static str> {
    let ort = std::env::var_os("ORT_DYLIB_PATH").is_some();
    if ort { vec!["tract", "ort"] } else { vec!["tract"] }
}

/// Gradients reach through a language model's head, and what is recorded over its logits is compared with them.
#[test]
#[cfg_attr(not(shared), ignore = "needs the models and data beside the repository")]
fn a_decoder_is_verified_through_its_logits() {
    let folder = tempfile::tempdir().unwrap();
    let (bundle, reference) = (folder.path().join("stories"), folder.path().join("reference.safetensors"));
    let model = shared("models/stories260k/model.onnx");
    data("fedtt", &[&"backbone", &"prepare", &model, &"-o", &bundle]);
    let verified =
        data("fedtt", &[&"backbone", &"verify", &bundle, &"--engine", &"tract", &"--write-reference", &reference]);
    assert!(verified["sites"].as_array().unwrap().iter().all(|site| site["finite_difference"].is_f64()), "{verified}");
    let file = fs::read(&reference).unwrap();
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
    assert_eq!(header["R"]["shape"][2], 512, "the vocabulary's size");
    let compared = data("fedtt", &[&"backbone", &"verify", &bundle, &"--reference-only", &"--reference", &reference]);
    assert!(compared["output_nonzero"].as_f64().unwrap() < 1e-4, "{compared}");
}

/// A real decoder learns real text in a few steps: nats per token on held-out speeches fall by more than half a nat.
#[test]
#[cfg_attr(not(shared), ignore = "needs the models and data beside the repository")]
fn a_decoder_learns_to_predict_the_next_token() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("stories");
    let model = shared("models/stories260k");
    let (file, tokenizer) = (model.join("model.onnx"), model.join("tokenizer.json"));
    let prepared = data("fedtt", &[&"backbone", &"prepare", &file, &"--tokenizer", &tokenizer, &"-o", &bundle]);
    assert_eq!((prepared["blocks"].as_u64(), prepared["logits"].as_bool()), (Some(5), Some(true)));
    assert_eq!(prepared["causal"], true);

    let adapter = folder.path().join("play.safetensors");
    let speakers = fs::read_to_string(shared("data/tinyshakespeare/by_speaker.jsonl")).unwrap();
    let speakers = speakers.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let speeches: Vec<String> = speakers
        .flat_map(|speaker| speaker["speeches"].as_array().unwrap().clone())
        .map(|speech| speech.as_str().unwrap().replace('\n', " "))
        .take(300)
        .collect();
    let text = folder.path().join("speeches.txt");
    fs::write(&text, speeches.join("\n")).unwrap();
    let learn: [Word; 7] = [&"train", &"--task", &"lm", &"--epochs", &"1", &"--max-length", &"64"];
    let from: [Word; 8] = [&"--bundle", &bundle, &"--data", &text, &"--dev-fraction", &"0.1", &"-o", &adapter];
    let trained = data("fedtt-edge", &[&learn[..], &from].concat());
    let nats = |evaluation: &serde_json::Value| evaluation["nats_per_token"].as_f64().unwrap();
    let (before, after) = (nats(&trained["history"][0]), nats(&trained["dev"]));
    assert!(after < before - 0.5, "{before} nats per token before, {after} after");
}
