//! Gradients of half floats that engines can only sum in single precision.

use fedtt_backbone::export::to_model;
use fedtt_backbone::ir::{Attr, Builder, DType, Graph, Port, PortDim, Weight};
use fedtt_backbone::shape::Facts;
use fedtt_backbone::vjp::differentiate;
use fedtt_runtime::{SessionOptions, Tensor};
use ndarray::arr2;

use crate::check::engines;

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
