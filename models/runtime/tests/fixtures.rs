//! Exported transformers on every engine against torch.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use common::{engines, shared};
use fedtt_runtime::{Engine, Model, SessionOptions, Tensor};
use ndarray::{ArrayD, IxDyn};
use safetensors::{Dtype, SafeTensors};

/// How far the hidden states may be from torch's at unmasked positions. fp16 files compute in half precision, where
/// ONNX Runtime itself is 0.005 away.
fn tolerance(file: &str) -> f32 {
    if file.starts_with("fp16") { 1e-2 } else { 1e-4 }
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the fixtures beside the repository")]
fn exported_transformers_equal_torch() {
    let mut failures = Vec::new();
    let mut compared = 0;
    for under_test in engines() {
        let files = supported(&shared().join("fixtures"));
        assert!(files.len() >= 43, "only {} files", files.len());
        for path in files {
            let name = format!("{}/{}", folder_name(&path), path.file_name().unwrap().to_string_lossy());
            match difference(&*under_test.engine, &path) {
                Ok(difference) if difference <= tolerance(&path.file_name().unwrap().to_string_lossy()) => {
                    compared += 1
                }
                Ok(difference) => failures.push(format!("{}: {name}: off by {difference}", under_test.engine.name())),
                Err(error) => failures.push(format!("{name}: {error}")),
            }
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), failures.len() + compared, failures.join("\n"));
}

/// The files the fixtures' README marks as supported.
fn supported(fixtures: &Path) -> Vec<PathBuf> {
    let refused = |name: &str| name.starts_with("ort-fused") || name.starts_with("int8-dynamic");
    let mut files: Vec<PathBuf> = std::fs::read_dir(fixtures)
        .unwrap()
        .map(|family| family.unwrap().path())
        .filter(|family| family.is_dir())
        .flat_map(|family| std::fs::read_dir(family).unwrap().map(|file| file.unwrap().path()))
        .filter(|file| file.extension().is_some_and(|e| e == "onnx"))
        .filter(|file| !refused(&file.file_name().unwrap().to_string_lossy()))
        .collect();
    files.sort();
    files
}

fn folder_name(path: &Path) -> String {
    path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned()
}

/// Largest difference of last_hidden_state to the reference, at unmasked positions.
fn difference(engine: &dyn Engine, path: &Path) -> Result<f32, String> {
    let folder = path.parent().unwrap();
    let file = path.file_name().unwrap().to_string_lossy();
    let reference = match file.split('-').next().unwrap() {
        "int8" => "reference-int8-weightonly.safetensors",
        "int4" => "reference-int4.safetensors",
        _ => "reference.safetensors",
    };
    let reference = tensors(&folder.join(reference));
    let probes: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("probes.json")).unwrap()).unwrap();
    let names: Vec<String> =
        probes[&*file]["inputs"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_string()).collect();
    let inputs: Vec<(&str, &Tensor)> = names.iter().map(|name| (name.as_str(), &reference[name])).collect();
    let model = Model { bytes: std::fs::read(path).unwrap(), weights_dir: Some(folder.to_path_buf()) };
    // Without low memory ONNX Runtime packs weights, and computes with them, in other ways.
    let low_memory = engine.name().starts_with("tract");
    let options = SessionOptions { low_memory, ..SessionOptions::default() };
    let mut session = engine.load(&model, &options).map_err(|e| e.to_string())?;
    let found = session.run(&inputs, &["last_hidden_state"]).map_err(|e| e.to_string())?.remove(0);
    let (found, expected) = (found.as_f32().unwrap(), reference["last_hidden_state"].as_f32().unwrap());
    assert_eq!(found.shape(), expected.shape());
    let mask = reference["attention_mask"].as_i64().unwrap();
    let differences = expected.indexed_iter().filter(|(at, _)| mask[[at[0], at[1]]] != 0).map(|(at, e)| {
        let difference = (found[&at] - e).abs();
        if difference.is_nan() { f32::INFINITY } else { difference }
    });
    Ok(differences.fold(0.0, f32::max))
}

fn tensors(path: &Path) -> HashMap<String, Tensor> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |view: &safetensors::tensor::TensorView| {
        let shape = IxDyn(view.shape());
        match view.dtype() {
            Dtype::F32 => {
                let data = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                Tensor::F32(ArrayD::from_shape_vec(shape, data).unwrap())
            }
            Dtype::I64 => {
                let data = view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
                Tensor::I64(ArrayD::from_shape_vec(shape, data).unwrap())
            }
            other => panic!("{}: unexpected {other:?}", path.display()),
        }
    };
    file.tensors().iter().map(|(name, view)| (name.clone(), tensor(view))).collect()
}
