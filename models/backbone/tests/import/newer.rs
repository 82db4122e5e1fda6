//! Operators that opsets 23 and 24 brought, taken apart: what ONNX Runtime makes of the operator itself.

use fedtt_backbone::export::to_model;
use fedtt_backbone::ir::DType;
use fedtt_backbone::shape::Facts;
use fedtt_runtime::prost::Message;
use fedtt_runtime::proto::{AttributeProto, ModelProto, NodeProto, ValueInfoProto};
use fedtt_runtime::{Engine, EngineError, Model, SessionOptions, Tensor};
use ndarray::{ArrayD, IxDyn};

use crate::build::*;
use crate::engines::engines;

/// Numbers that follow no simple pattern.
fn floats_of(shape: &[usize], seed: usize) -> Tensor {
    let mut state = 12_345 + seed as u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    Tensor::F32(ArrayD::from_shape_simple_fn(IxDyn(shape), || 1.5 * next()))
}

fn output(engine: &dyn Engine, model: &Model, feeds: &[(&str, Tensor)]) -> Result<ArrayD<f32>, EngineError> {
    let mut session = engine.load(model, &SessionOptions::default())?;
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    Ok(session.run(&feeds, &["y"])?[0].as_f32().unwrap().clone())
}

/// A model of `node`, which makes `y` of inputs of the types and shapes of `feeds`.
fn of_node(opset: i64, node: NodeProto, feeds: &[(&str, Tensor)]) -> ModelProto {
    let port = |(name, tensor): &(&str, Tensor)| -> ValueInfoProto {
        let (dtype, shape) = match tensor {
            Tensor::F32(array) => (DType::F32, array.shape()),
            Tensor::I64(array) => (DType::I64, array.shape()),
            Tensor::Bool(array) => (DType::Bool, array.shape()),
            _ => panic!("{name}"),
        };
        value(name, dtype, &shape.iter().map(|&size| size as i64).collect::<Vec<_>>())
    };
    let inputs = feeds.iter().map(port).collect();
    let mut outputs = single(opset, node.clone(), vec![]).graph.unwrap().output;
    outputs.truncate(1);
    model(opset, graph(vec![node], vec![], inputs, outputs))
}

/// Every engine gives for the parts what ONNX Runtime gives for the whole.
fn same(opset: i64, op: &str, attributes: Vec<AttributeProto>, feeds: &[(&str, Tensor)]) {
    let inputs: Vec<&str> = feeds.iter().map(|(name, _)| *name).collect();
    let whole = of_node(opset, node(op, &inputs, &["y"], attributes), feeds);
    let parts = import(&whole).unwrap();
    assert!(!ops(&parts).contains(&op), "{:?}", ops(&parts));
    let parts = to_model(&parts, None).unwrap();
    let engines = engines();
    let whole = Model { bytes: whole.encode_to_vec(), weights_dir: None };
    // Older versions of ONNX Runtime do not have these operators either.
    let expected = engines.get(1).and_then(|ort| output(ort.as_ref(), &whole, feeds).ok());
    for engine in &engines {
        let found = output(engine.as_ref(), &parts, feeds).unwrap();
        let Some(expected) = &expected else {
            eprintln!("{op} not compared with ONNX Runtime's");
            continue;
        };
        assert_eq!(found.shape(), expected.shape(), "{op} on {}", engine.name());
        let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 2e-6, "{op} on {}: off by {off}\n{found}\n{expected}", engine.name());
    }
}

#[test]
fn norms_and_gates() {
    let x = || ("x", floats_of(&[2, 3, 4, 8], 1));
    for axis in [-1, 3, -2, 1] {
        let scale = if axis == -2 { vec![4, 8] } else { vec![8] };
        let attributes = vec![int("axis", axis), float("epsilon", 0.1)];
        same(23, "RMSNormalization", attributes, &[x(), ("scale", floats_of(&scale, 2))]);
    }
    // ONNX Runtime has no such operator on every machine.
    for attributes in [vec![], vec![float("alpha", 1.7)]] {
        let feeds = [x()];
        let whole = of_node(24, node("Swish", &["x"], &["y"], attributes.clone()), &feeds);
        let parts = to_model(&import(&whole).unwrap(), None).unwrap();
        let alpha = if attributes.is_empty() { 1.0 } else { 1.7 };
        let expected = feeds[0].1.as_f32().unwrap().mapv(|x| x / (1.0 + (-alpha * x).exp()));
        for engine in engines() {
            let found = output(engine.as_ref(), &parts, &feeds).unwrap();
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{}", engine.name());
        }
    }
}

/// As Gemma's gains are of half precision where the stream is not.
#[test]
fn what_a_norm_makes_is_of_its_scales_type() {
    let norm = |scale| node("RMSNormalization", &["x", scale], &["y"], vec![]);
    let mut whole = of_node(23, norm("half"), &[("x", floats_of(&[2, 3, 8], 1))]);
    let inner = whole.graph.as_mut().unwrap();
    inner.input.truncate(1);
    inner.initializer.push(floats_tensor("scale", &[8], &[1.0; 8]));
    inner.node.insert(0, node("Cast", &["scale"], &["half"], vec![int("to", DType::F16.onnx())]));
    let parts = import(&whole).unwrap();
    assert_eq!(Facts::of_graph(&parts).dtype("y"), Some(DType::F16));
    assert_eq!(ops(&parts).last_chunk(), Some(&["Cast", "Mul"]));
}

#[test]
fn rotations() {
    let positions = || ("positions", Tensor::I64(ArrayD::from_shape_fn(IxDyn(&[2, 3]), |i| (2 * i[0] + i[1]) as i64)));
    let table = |shape: &[usize], turned: usize| {
        let shape = [shape, &[turned / 2]].concat();
        [("cosines", floats_of(&shape, 2)), ("sines", floats_of(&shape, 3))]
    };
    for interleaved in [0, 1] {
        for turned in [8, 4] {
            let mut attributes = vec![int("interleaved", interleaved), int("num_heads", 4)];
            if turned != 8 {
                attributes.push(int("rotary_embedding_dim", turned as i64));
            }
            for x in [vec![2, 4, 3, 8], vec![2, 3, 32]] {
                let [cosines, sines] = table(&[9], turned);
                let feeds = [("x", floats_of(&x, 1)), cosines, sines, positions()];
                same(23, "RotaryEmbedding", attributes.clone(), &feeds);
            }
            let [cosines, sines] = table(&[2, 3], turned);
            same(23, "RotaryEmbedding", attributes, &[("x", floats_of(&[2, 4, 3, 8], 1)), cosines, sines]);
        }
    }
}

/// Queries, keys and values of two texts: 4 heads of queries, `heads` of the others.
fn by_heads(heads: usize) -> Vec<(&'static str, Tensor)> {
    let of = |heads, length, width, seed| floats_of(&[2, heads, length, width], seed);
    vec![("q", of(4, 3, 8, 1)), ("k", of(heads, 5, 8, 2)), ("v", of(heads, 5, 6, 3))]
}

#[test]
fn attentions() {
    let heads = || vec![int("q_num_heads", 4), int("kv_num_heads", 2)];
    let of = |length, width, seed| floats_of(&[2, length, width], seed);
    let flat = vec![("q", of(3, 32, 1)), ("k", of(5, 16, 2)), ("v", of(5, 12, 3))];
    same(23, "Attention", heads(), &flat);
    same(23, "Attention", [heads(), vec![int("is_causal", 1)]].concat(), &flat);
    same(23, "Attention", vec![], &by_heads(4));
    same(23, "Attention", vec![float("scale", 0.7), float("softcap", 2.0)], &by_heads(2));
    same(24, "Attention", vec![int("is_causal", 1), int("softmax_precision", 1)], &by_heads(1));
    // The last query may attend to nothing at all.
    let mask = ArrayD::from_shape_fn(IxDyn(&[2, 1, 3, 5]), |i| i[2] < 2 && (i[3] + i[0]) % 3 != 1);
    let bias = mask.mapv(|allowed| if allowed { 0.3 } else { f32::NEG_INFINITY });
    for mask in [Tensor::Bool(mask), Tensor::F32(bias)] {
        let feeds = [by_heads(2), vec![("mask", mask)]].concat();
        same(23, "Attention", vec![], &feeds);
        same(23, "Attention", vec![int("is_causal", 1)], &feeds);
    }
}

#[test]
fn what_has_no_parts_is_refused_by_name() {
    let refused = |op: &str, inputs: &[&str], outputs: &[&str], attributes| {
        let mut whole = of_node(24, node(op, inputs, &["y"], attributes), &by_heads(4));
        let inner = whole.graph.as_mut().unwrap();
        inner.node[0].output = outputs.iter().map(|s| s.to_string()).collect();
        let Some(last) = outputs.last() else { panic!() };
        inner.output[0].name = last.to_string();
        let message = refusal(&whole);
        assert!(message.contains(&format!("({op})")) && message.contains("opset 21"), "{message}");
        message
    };
    let cache = refused("Attention", &["q", "k", "v", "", "k", "v"], &["y"], vec![]);
    assert!(cache.contains("cache"), "{cache}");
    let cache = refused("Attention", &["q", "k", "v"], &["t", "present"], vec![]);
    assert!(cache.contains("cache"), "{cache}");
    refused("Attention", &["q", "k", "v"], &["y"], vec![int("left_window_size", 2)]);
    refused("RMSNormalization", &["q", "k"], &["y"], vec![int("axis", 4)]);
    refused("RotaryEmbedding", &["q", "k", "v"], &["y"], vec![int("rotary_embedding_dim", 10)]);
}
