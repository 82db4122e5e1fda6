//! Encoders that cannot be told what is padding.

use std::fs;
use std::path::Path;

use fedtt_backbone::export::to_model;
use fedtt_backbone::import;
use fedtt_backbone::ir::{Attr, Node, Weight};
use fedtt_backbone::prepare::prepare;

#[test]
fn an_encoder_without_a_mask_is_refused() {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("../zoo/encoder/model.onnx");
    assert_eq!(prepare(&whole, None).unwrap().anatomy.causal, Some(false));
    // All tokens count, whatever they are.
    let mut graph = import::read(&whole).unwrap();
    graph.inputs.retain(|input| input.name != "attention_mask");
    let node = |op: &str, input: &str, output: &str| Node {
        op: op.into(),
        inputs: vec![input.into()],
        outputs: vec![output.into()],
        ..Node::default()
    };
    let mut ones = node("ConstantOfShape", "shape of ids", "attention_mask");
    ones.attrs.insert("value".into(), Attr::Tensor(Weight::i64s(&[1], &[1])));
    graph.nodes.splice(0..0, [node("Shape", "input_ids", "shape of ids"), ones]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, to_model(&graph, None).unwrap().bytes).unwrap();
    let error = prepare(&path, None).unwrap_err().to_string();
    assert!(error.contains("re-export with attention_mask"), "{error}");
}
