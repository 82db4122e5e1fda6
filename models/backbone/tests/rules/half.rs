//! Gradients of half floats: what engines lack for them, and what does not fit their range.

use fedtt_backbone::export::to_model;
use fedtt_backbone::ir::{Attr, Builder, DType, Graph, Port, PortDim, Weight};
use fedtt_backbone::shape::Facts;
use fedtt_backbone::vjp::differentiate;
use fedtt_runtime::{Engine, SessionOptions, Tensor};
use ndarray::arr2;

use crate::engines::engines;

fn port(name: &str) -> Port {
    Port { name: name.into(), dtype: DType::F32, shape: Some(vec![PortDim::Known(2), PortDim::Known(3)]) }
}

/// Columns 2, 2 and 0 of each row of x, picked in half precision; R weighs them.
fn picked(op: &str, indices: Weight, attrs: &[(&str, Attr)]) -> (Graph, String) {
    let graph = Graph { inputs: vec![port("x"), port("R")], ..Graph::default() };
    let facts = Facts::of_graph(&graph);
    let mut b = Builder::new(graph, facts);
    let half = b.cast("x", DType::F16);
    let indices = b.constant("indices", indices);
    let picked = b.op(op, &[&half, &indices], attrs);
    let y = b.cast(&picked, DType::F32);
    let mut gradients = differentiate(&mut b, &[(y, "R".to_string())], &["x".to_string()]).unwrap();
    let gradient = gradients.remove("x").unwrap();
    b.graph.outputs.push(Port { name: gradient.clone(), dtype: DType::F32, shape: None });
    b.graph.prune();
    (b.graph, gradient)
}

#[test]
fn half_floats_are_scattered_on_every_engine() {
    let axis = [("axis", Attr::Int(1))];
    let forms = [
        picked("GatherElements", Weight::i64s(&[2, 3], &[2, 2, 0, 2, 2, 0]), &axis),
        picked("Gather", Weight::i64s(&[3], &[2, 2, 0]), &axis),
        picked("GatherND", Weight::i64s(&[2, 3, 2], &[0, 2, 0, 2, 0, 0, 1, 2, 1, 2, 1, 0]), &[]),
    ];
    let x = Tensor::from(arr2(&[[0.5f32, 1.0, 2.0], [3.0, 4.0, 5.0]]).into_dyn());
    let r = Tensor::from(arr2(&[[1.0f32, 2.0, 4.0], [8.0, 16.0, 32.0]]).into_dyn());
    let expected = arr2(&[[4.0f32, 0.0, 3.0], [32.0, 0.0, 24.0]]).into_dyn();
    for engine in engines() {
        for (graph, gradient) in &forms {
            let model = to_model(graph, None).unwrap();
            let mut session = engine.load(&model, &SessionOptions { threads: 1, low_memory: true }).unwrap();
            let feeds: Vec<(&str, &Tensor)> = graph.inputs.iter().map(|p| p.name.as_str()).zip([&x, &r]).collect();
            let found = session.run(&feeds, &[gradient]).unwrap_or_else(|e| panic!("{}: {e}", engine.name()));
            assert_eq!(found[0].as_f32(), Some(&expected), "{}", engine.name());
        }
    }
}

/// dx of y = f(x), computed in `dtype`, for a cotangent R of y: the graph, and the gradient's name.
fn in_type(dtype: DType, f: impl Fn(&mut Builder, &str) -> String) -> (Graph, String) {
    let graph = Graph { inputs: vec![port("x"), port("R")], ..Graph::default() };
    let facts = Facts::of_graph(&graph);
    let mut b = Builder::new(graph, facts);
    let x = b.cast("x", dtype);
    let y = f(&mut b, &x);
    let y = b.cast(&y, DType::F32);
    let gradient = differentiate(&mut b, &[(y, "R".to_string())], &["x".to_string()]).unwrap().remove("x").unwrap();
    b.graph.outputs.push(Port { name: gradient.clone(), dtype: DType::F32, shape: None });
    b.graph.prune();
    (b.graph, gradient)
}

fn run(graph: &Graph, gradient: &str, x: [[f32; 3]; 2], engine: &dyn Engine) -> Vec<f32> {
    let model = to_model(graph, None).unwrap();
    let mut session = engine.load(&model, &SessionOptions { threads: 1, low_memory: true }).unwrap();
    let (x, r) =
        (Tensor::from(arr2(&x).into_dyn()), Tensor::from(arr2(&[[1.0f32, -2.0, 4.0], [3.0, 1.0, -1.0]]).into_dyn()));
    let found = session.run(&[("x", &x), ("R", &r)], &[gradient]).unwrap_or_else(|e| panic!("{}: {e}", engine.name()));
    found[0].as_f32().unwrap().iter().copied().collect()
}

fn close(found: &[f32], expected: &[f32], engine: &str) {
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let off = found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 0.02 * largest);
    assert!(off, "{engine}: {found:?}, expected {expected:?}");
}

/// The inverse deviation of these rows is about 300; its cube would be beyond float16. On a CPU, where engines compute a chain of
/// operators in single precision, only the values tell.
#[test]
fn the_gradient_of_a_norm_of_small_deviation_is_within_float16() {
    let norm = |b: &mut Builder, x: &str| {
        let gain = b.constant("gain", Weight::floats(b.facts.dtype(x).unwrap(), &[3], &[1.0; 3]));
        b.op("LayerNormalization", &[x, &gain], &[("epsilon", Attr::Float(1e-9))])
    };
    let x = [[0.004f32, -0.004, 0.002], [0.003, 0.005, -0.001]];
    let engine = &engines()[0];
    let (mut exact, name) = in_type(DType::F32, norm);
    let expected = run(&exact, &name, x, engine.as_ref());
    let made: Vec<String> =
        exact.nodes.iter().flat_map(|node| node.outputs.clone()).filter(|o| !o.is_empty()).collect();
    exact.outputs = made.iter().map(|name| Port { name: name.clone(), dtype: DType::F32, shape: None }).collect();
    for name in &made {
        let values = run(&exact, name, x, engine.as_ref());
        assert!(values.iter().all(|value| value.abs() < 65504.0), "{name}: {values:?}");
    }
    let (half, name) = in_type(DType::F16, norm);
    for engine in engines() {
        close(&run(&half, &name, x, engine.as_ref()), &expected, &engine.name());
    }
}

#[test]
fn gelu_in_bfloat16_needs_no_operator_that_lacks_the_type() {
    let x = [[0.5f32, -1.0, 2.0], [-0.25, 0.125, 1.5]];
    for attrs in [vec![], vec![("approximate", Attr::Str("tanh".into()))]] {
        let gelu = |b: &mut Builder, x: &str| b.op("Gelu", &[x], &attrs);
        let (exact, name) = in_type(DType::F32, gelu);
        let expected = run(&exact, &name, x, engines()[0].as_ref());
        let (narrow, name) = in_type(DType::BF16, gelu);
        // ONNX has it for bfloat16 from opset 22 on.
        assert!(!narrow.nodes.iter().any(|node| node.op == "HardSigmoid"));
        for engine in engines() {
            close(&run(&narrow, &name, x, engine.as_ref()), &expected, &engine.name());
        }
    }
}
