//! The exports of many families kept in `tests/exports`: sites, outputs and gradients as torch has them, or the refusal.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "engines/mod.rs"]
mod engines;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use fedtt_backbone::backbone::Backbone;
use fedtt_backbone::export::to_model;
use fedtt_backbone::import;
use fedtt_backbone::prepare::prepare;
use fedtt_backbone::verify::{Against, verify};
use fedtt_runtime::{Engine, SessionOptions, Tensor};
use ndarray::{ArrayD, IxDyn};
use safetensors::SafeTensors;
use serde::Deserialize;

const OPTIONS: SessionOptions = SessionOptions { threads: 1, low_memory: true };

#[derive(Deserialize)]
struct Manifest {
    families: BTreeMap<String, BTreeMap<String, About>>,
}

/// What is known of one file.
#[derive(Deserialize)]
#[serde(untagged)]
enum About {
    /// The operator that its refusal names.
    Refused(String),
    /// The tensors equal to the projection's output, by site.
    Sites(BTreeMap<String, Vec<String>>),
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/exports")
}

/// What torch was fed and what came out of it.
struct Torch {
    ids: ArrayD<i64>,
    mask: ArrayD<i64>,
    output: ArrayD<f32>,
}

impl Torch {
    fn of(file: &SafeTensors) -> Self {
        let ints = |name| {
            let view = file.tensor(name).unwrap();
            let values = view.data().as_chunks().0.iter().map(|c| i64::from_le_bytes(*c)).collect();
            ArrayD::from_shape_vec(IxDyn(view.shape()), values).unwrap()
        };
        let view = file.tensor("last_hidden_state").unwrap();
        let values = view.data().as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
        let output = ArrayD::from_shape_vec(IxDyn(view.shape()), values).unwrap();
        Torch { ids: ints("input_ids"), mask: ints("attention_mask"), output }
    }

    /// How far the output of the file imported and written back is off where the text is.
    fn difference(&self, path: &Path, engine: &dyn Engine) -> f32 {
        let model = to_model(&import::read(path).unwrap(), None).unwrap();
        let mut session = engine.load(&model, &OPTIONS).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let [ids, mask] = [&self.ids, &self.mask].map(|ints| Tensor::I64(ints.clone()));
        let output = session.run(&[("input_ids", &ids), ("attention_mask", &mask)], &["last_hidden_state"]);
        let output = output.unwrap_or_else(|e| panic!("{} on {}: {e}", path.display(), engine.name()));
        let output = output[0].as_f32().unwrap();
        assert_eq!(output.shape(), self.output.shape(), "{}", path.display());
        let tokens = output.indexed_iter().zip(&self.output).filter(|((at, _), _)| self.mask[[at[0], at[1]]] != 0);
        tokens
            .map(|((_, a), b)| (a - b).abs())
            .fold(0.0, |worst, off| if off > worst || off.is_nan() { off } else { worst })
    }
}

/// What is wrong with the sites found, if anything is.
fn misplaced(backbone: &Backbone, sites: &BTreeMap<String, Vec<String>>) -> Option<String> {
    let found = &backbone.anatomy.sites;
    let ids: BTreeSet<&String> = found.iter().map(|site| &site.id).collect();
    if backbone.anatomy.blocks() != 2 || ids != sites.keys().collect() {
        return Some(format!("{} blocks, sites {ids:?}", backbone.anatomy.blocks()));
    }
    found.iter().find(|site| !sites[&site.id].contains(&site.tensor)).map(|site| format!("{site:?}"))
}

fn check(path: &Path, about: &About, torch: &Torch) -> Vec<String> {
    let backbone = match (prepare(path, None), about) {
        (Ok(backbone), About::Sites(_)) => backbone,
        (Err(error), About::Refused(operator)) if error.to_string().contains(operator) => return vec![],
        (Ok(_), About::Refused(operator)) => return vec![format!("is accepted, with {operator}")],
        (Err(error), _) => return vec![error.to_string()],
    };
    let About::Sites(sites) = about else { return vec![] };
    let mut wrong: Vec<String> = misplaced(&backbone, sites).into_iter().collect();
    for engine in engines::engines() {
        let off = torch.difference(path, engine.as_ref());
        if off.is_nan() || off > 1e-4 {
            wrong.push(format!("{}: output off by {off}", engine.name()));
        }
        match verify(&backbone, engine.as_ref(), &OPTIONS, Against::Differences) {
            Ok(report) if report.passed => {}
            Ok(report) => wrong.push(report.to_string()),
            Err(error) => wrong.push(format!("{}: {error}", engine.name())),
        }
    }
    wrong
}

#[test]
fn every_family_is_understood_or_refused_by_name() {
    let manifest: Manifest = serde_json::from_slice(&fs::read(folder().join("manifest.json")).unwrap()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (mut checked, mut wrong) = (0, Vec::new());
    for (family, files) in &manifest.families {
        let packed = fs::read(folder().join(format!("{family}.safetensors.zst"))).unwrap();
        let bytes = zstd::decode_all(&packed[..]).unwrap();
        let kept = SafeTensors::deserialize(&bytes).unwrap();
        let torch = Torch::of(&kept);
        for (name, about) in files {
            let path = scratch.path().join(format!("{family} {name}.onnx"));
            fs::write(&path, kept.tensor(&format!("{name}.onnx")).unwrap().data()).unwrap();
            wrong.extend(check(&path, about, &torch).into_iter().map(|what| format!("{family}, {name}: {what}")));
            checked += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked > 40, "{checked}");
    eprintln!("{checked} exports of {} families", manifest.families.len());
}
