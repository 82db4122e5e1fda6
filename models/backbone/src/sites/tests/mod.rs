#![allow(clippy::unwrap_used, clippy::panic)]

mod recorded;
pub(crate) mod tiny;

use std::path::Path;

use fedtt_runtime::{Engine, SessionOptions, TractEngine};
use ndarray::ArrayD;

use super::*;
use crate::backbone::Backbone;
use crate::import;
use crate::ir::Port;
use crate::training::{STREAM, lower_blocks};
use tiny::{EMBEDDING, HIDDEN, Tiny};

fn found(tiny: Tiny<'_>) -> Anatomy {
    Backbone::new(tiny.graph(), None).unwrap().anatomy
}

fn names(anatomy: &Anatomy) -> Vec<(String, String)> {
    anatomy.sites.iter().map(|site| (site.id.clone(), site.tensor.clone())).collect()
}

/// Sites named as `("0.attn", "attn0")`.
fn named(tiny: Tiny<'_>, sites: &[(&str, &str)]) -> Result<Anatomy, String> {
    let sites: Vec<(String, String)> = sites.iter().map(|(id, name)| (id.to_string(), name.to_string())).collect();
    Backbone::new(tiny.graph(), Some(&sites)).map(|backbone| backbone.anatomy).map_err(|error| error.to_string())
}

const LOGITS: Tiny<'_> =
    Tiny { causal: true, projected: false, parallel: false, tail: &["MatMul x2 head -> logits"], outputs: &["logits"] };

#[test]
fn naming_the_sites_that_are_found_changes_nothing() {
    for tiny in [Tiny::default(), LOGITS, Tiny { parallel: true, ..LOGITS }, Tiny { projected: true, ..LOGITS }] {
        let anatomy = found(tiny);
        assert_eq!(anatomy.hidden_state, "x2");
        assert_eq!(anatomy.streams, [None, Some("x1".to_string())]);
        assert_eq!(anatomy.branches.len(), 4);
        let again = Backbone::new(tiny.graph(), Some(&names(&anatomy))).unwrap().anatomy;
        assert_eq!(again, anatomy);
    }
}

/// The same of real exports, with the hidden state as an output and hidden behind a pooled vector.
#[test]
#[cfg_attr(not(shared), ignore = "needs the fixtures beside the repository")]
fn naming_the_sites_of_the_fixtures_changes_nothing() {
    let shared = Path::new(option_env!("FEDTT_SHARED_FOUND").unwrap_or_default());
    let files = |folder: &Path| -> Vec<_> { folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect() };
    let mut paths: Vec<_> =
        files(&shared.join("fixtures")).iter().filter(|path| path.is_dir()).flat_map(|path| files(path)).collect();
    paths.push(shared.join("models/stories260k/model.onnx"));
    let mut compared = 0;
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "onnx")) {
        let graph = import::read(path).unwrap();
        let Ok(backbone) = Backbone::new(graph, None) else { continue };
        let mut pooled = backbone.graph.clone();
        let mean = Node {
            op: "ReduceMean".into(),
            inputs: vec![backbone.last_output().value.to_string()],
            outputs: vec!["pooled".into()],
            ..Node::default()
        };
        pooled.nodes.push(mean);
        pooled.outputs = vec![Port { name: "pooled".into(), dtype: crate::ir::DType::F32, shape: None }];
        for graph in [backbone.graph, pooled] {
            let anatomy = Backbone::new(graph.clone(), None).unwrap().anatomy;
            assert_eq!(anatomy.hidden_state, backbone.anatomy.hidden_state, "{}", path.display());
            let again = Backbone::new(graph, Some(&names(&anatomy))).unwrap().anatomy;
            assert_eq!(again, anatomy, "{}", path.display());
            compared += 1;
        }
    }
    assert!(compared > 80, "{compared}");
}

#[test]
fn a_hidden_state_that_cannot_be_told_is_refused() {
    let refused = named(LOGITS, &[("0.attn", "attn0"), ("1.attn", "attn1")]).unwrap_err();
    assert!(refused.contains("no floating-point output with the hidden state"), "{refused}");
    let refused = named(LOGITS, &[("0.mlp", "act0"), ("1.mlp", "act1")]).unwrap_err();
    assert!(refused.contains("no floating-point output with the hidden state"), "{refused}");
    // Where it is an output, any tensors will do.
    assert_eq!(named(Tiny::default(), &[("0.attn", "attn0"), ("1.attn", "attn1")]).unwrap().hidden_state, "x2");
}

#[test]
fn named_sites_are_checked() {
    for (sites, reason) in [
        (&[("0.attn", "nowhere")][..], "is made by no node"),
        (&[("0.attn", "range")], "has no known width"),
        (&[("0.query", "attn0")], "ends in neither"),
        (&[("12345678901.attn", "attn0")], "beyond the 1000th"),
        (&[("0.attn", "attn0"), ("00.attn", "attn1")], "is named twice"),
        (&[("0.attn", "attn0"), ("0.mlp", "attn0")], "is named twice"),
    ] {
        let refused = named(LOGITS, sites).unwrap_err();
        assert!(refused.contains(reason), "{sites:?}: {refused}");
    }
}

/// As in phi and GPT-J, where attention and MLP are added to each other before the stream joins.
#[test]
fn the_hidden_state_of_parallel_blocks_has_the_stream_in_it() {
    let anatomy = found(Tiny { parallel: true, ..LOGITS });
    assert_eq!((anatomy.hidden_state.as_str(), anatomy.logits.as_deref()), ("x2", Some("logits")));
}

/// As in OPT-350m, whose embeddings are projected, added to positions and projected back in the end.
#[test]
fn projections_around_the_blocks_are_no_sites() {
    let tail = &["MatMul x2 back -> last"];
    let tiny = Tiny { causal: true, projected: true, tail, outputs: &["last"], ..Tiny::default() };
    let backbone = Backbone::new(tiny.graph(), None).unwrap();
    let anatomy = &backbone.anatomy;
    let sites: Vec<&str> = anatomy.sites.iter().map(|site| site.tensor.as_str()).collect();
    assert_eq!(sites, ["attn0", "mlp0", "attn1", "mlp1"]);
    assert_eq!((anatomy.hidden_state.as_str(), anatomy.hidden, &anatomy.logits), ("last", EMBEDDING, &None));

    let mut session =
        TractEngine::new(1).load(&lower_blocks(&backbone, 1).unwrap(), &SessionOptions::default()).unwrap();
    let ids = backbone.feed("input_ids", ArrayD::zeros(vec![2, 5]));
    let stream = session.run(&[("input_ids", &ids)], &[STREAM]).unwrap();
    assert_eq!(stream[0].shape(), [2, 5, HIDDEN]);

    let tail = &["MatMul x2 back -> last", "MatMul last lm -> logits"];
    let anatomy = found(Tiny { causal: true, projected: true, tail, outputs: &["logits"], ..Tiny::default() });
    assert_eq!((anatomy.hidden_state.as_str(), anatomy.hidden), ("x2", HIDDEN));
    assert_eq!(anatomy.logits.as_deref(), Some("logits"));
}

#[test]
fn classes_of_tokens_are_no_logits_of_a_vocabulary() {
    let anatomy = found(Tiny { tail: &["MatMul x2 three -> classes"], outputs: &["classes"], ..LOGITS });
    assert_eq!((anatomy.hidden_state.as_str(), anatomy.logits), ("x2", None));
}
