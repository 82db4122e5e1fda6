#![allow(clippy::unwrap_used)]

use std::path::Path;

use fedtt_runtime::prost::Message;
use fedtt_runtime::proto::ModelProto;

use super::*;
use crate::export::to_model;
use crate::prepare::prepare;
use crate::sites::tests::tiny::Tiny;
use crate::training::{Pooling, Task, TrainingGraph, TrainingSpec};

fn prepared(tiny: Tiny<'_>) -> Backbone {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let model = to_model(&tiny.graph(), None).unwrap();
    assert!(ModelProto::decode(model.bytes.as_slice()).is_ok());
    std::fs::write(&path, model.bytes).unwrap();
    prepare(&path, None).unwrap()
}

/// What training the next token says, if it is refused.
fn language_model(backbone: &Backbone) -> Option<String> {
    let spec = TrainingSpec {
        adapters: vec![],
        frozen: vec![],
        head: None,
        task: Task::CausalLm,
        pooling: Pooling::Last,
        from_block: None,
        norms: vec![],
    };
    TrainingGraph::build(backbone, &spec).err().map(|error| error.to_string())
}

#[test]
fn logits_of_a_model_that_looks_ahead_are_no_language_models() {
    let tail = &["MatMul x2 head -> logits"];
    let masked = prepared(Tiny { tail, outputs: &["logits"], ..Tiny::default() });
    assert_eq!((masked.anatomy.causal, &masked.anatomy.logits), (Some(false), &None));
    assert!(language_model(&masked).unwrap().contains("no causal language model"));

    let causal = prepared(Tiny { causal: true, tail, outputs: &["logits"], ..Tiny::default() });
    assert_eq!((causal.anatomy.causal, causal.anatomy.logits.as_deref()), (Some(true), Some("logits")));
    assert_eq!(language_model(&causal), None);
    assert!(causal.causal_logits().is_ok());
}

#[test]
fn classes_of_tokens_are_no_next_token() {
    let tail = &["MatMul x2 three -> classes"];
    for causal in [false, true] {
        let backbone = prepared(Tiny { causal, tail, outputs: &["classes"], ..Tiny::default() });
        assert_eq!((backbone.anatomy.causal, &backbone.anatomy.logits), (Some(causal), &None));
        assert!(language_model(&backbone).is_some());
    }
}

#[test]
fn without_attention_nothing_is_known() {
    let graph = Tiny { causal: true, ..Tiny::default() }.graph();
    let sites = [("0.mlp".to_string(), "mlp0".to_string()), ("1.mlp".to_string(), "mlp1".to_string())];
    assert_eq!(attends_back_only(&Backbone::new(graph, Some(&sites)).unwrap()), None);
}

/// Every family's masks can be run, whichever exporter wrote them.
#[test]
#[cfg_attr(not(shared), ignore = "needs the fixtures beside the repository")]
fn decoders_look_back_and_encoders_both_ways() {
    let shared = Path::new(option_env!("FEDTT_SHARED_FOUND").unwrap_or_default());
    let decoders = ["gpt2", "llama", "mistral", "opt", "qwen2"];
    let mut seen = 0;
    for family in shared.join("fixtures").read_dir().unwrap().map(|entry| entry.unwrap().path()) {
        let causal = decoders.contains(&family.file_name().unwrap().to_str().unwrap());
        for path in family.read_dir().into_iter().flatten().map(|entry| entry.unwrap().path()) {
            let is_model = path.extension().is_some_and(|extension| extension == "onnx");
            let Some(Ok(backbone)) = is_model.then(|| prepare(&path, None)) else { continue };
            assert_eq!(backbone.anatomy.causal, Some(causal), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
    let stories = prepare(&shared.join("models/stories260k/model.onnx"), None).unwrap();
    assert_eq!((stories.anatomy.causal, stories.anatomy.logits.is_some()), (Some(true), true));
}
