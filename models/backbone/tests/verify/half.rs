//! Backbones in half precision.

use fedtt_backbone::backbone::{Backbone, Role};
use fedtt_backbone::ir::{Builder, DType};
use fedtt_backbone::training::{Pooling, Task, TrainingGraph, TrainingSpec, gradient_of};
use fedtt_backbone::verify::{Against, Reference, verify};
use fedtt_runtime::{Engine, SessionOptions, Tensor};
use fedtt_tt::form::{Activation, AdapterForm, HeadForm, LinearForm};
use ndarray::{Array1, Array2, ArrayD, IxDyn};

use crate::backbones::{WIDTH, backbone, plain};
use crate::engines::engines;

const OPTIONS: SessionOptions = SessionOptions { threads: 1, low_memory: true };

/// A sum with `Where` in it, which ONNX Runtime has not for bfloat16 on the CPU.
fn guarded(b: &mut Builder, s: &str, m: &str) -> String {
    let zero = b.scalar_like(0.0, s);
    let positive = b.op("Greater", &[s, &zero], &[]);
    let kept = b.op("Where", &[&positive, m, &zero], &[]);
    plain(b, s, &kept)
}

/// The output is of half precision as well.
#[test]
fn half_precision_verifies_and_records_on_every_engine() {
    for dtype in [DType::F16, DType::BF16] {
        let backbone = backbone(dtype, guarded);
        let engines = engines();
        let recorded = Reference::record(&backbone, engines[0].as_ref(), &OPTIONS).unwrap();
        for engine in &engines {
            let report = verify(&backbone, engine.as_ref(), &OPTIONS, Against::Both(&recorded));
            let report = report.unwrap_or_else(|e| panic!("{dtype:?} on {}: {e}", engine.name()));
            assert!(report.passed, "{dtype:?}: {report}");
        }
    }
}

/// Gradients of a loss whose examples weigh `weight`, by name.
fn gradients(backbone: &Backbone, engine: &dyn Engine, weight: f32) -> Vec<(String, ArrayD<f32>)> {
    let linear = |rows, columns| LinearForm { factors: vec![(rows, columns)], bias: true };
    let adapter = |site: &str| {
        let (down, up) = (linear(WIDTH, 4), linear(4, WIDTH));
        (site.to_string(), AdapterForm::Bottleneck { down, activation: Activation::Tanh, up, scaling: 1.0 })
    };
    let spec = TrainingSpec {
        adapters: vec![adapter("0.attn"), adapter("0.mlp")],
        frozen: Vec::new(),
        head: Some(HeadForm { hidden: None, out: linear(WIDTH, 3) }),
        task: Task::Classify { classes: 3 },
        pooling: Pooling::Mean,
        from_block: None,
        norms: Vec::new(),
    };
    let graph = TrainingGraph::build(backbone, &spec).unwrap().with(engine.thrift());
    let mut session = engine.load(&graph.step(backbone).unwrap(), &OPTIONS).unwrap();
    let shapes = [[WIDTH, 4], [4, 0], [4, WIDTH], [WIDTH, 0]];
    let shapes = [&shapes[..], &shapes[..], &[[WIDTH, 3], [3, 0]]].concat();
    let value = |(at, shape): (usize, &[usize; 2])| {
        let shape: Vec<usize> = shape.iter().copied().filter(|&d| d > 0).collect();
        let count: usize = shape.iter().product();
        let values = (0..count).map(|i| 0.4 * ((7 * i + 3 * at) as f32).sin()).collect();
        Tensor::F32(ArrayD::from_shape_vec(IxDyn(&shape), values).unwrap())
    };
    let values: Vec<Tensor> = shapes.iter().enumerate().map(value).collect();
    let ids = Array2::from_shape_fn((2, 5), |(row, column)| (3 * row + column) as i64).into_dyn();
    let mut inputs: Vec<(&str, Tensor)> = vec![
        ("labels", Tensor::I64(Array1::from(vec![0, 2]).into_dyn())),
        ("weights", Tensor::F32(Array1::from(vec![weight; 2]).into_dyn())),
    ];
    for (role, name) in &graph.feeds {
        let tensor = if *role == Role::Mask { Tensor::I64(ids.mapv(|_| 1)) } else { Tensor::I64(ids.clone()) };
        inputs.push((name, tensor));
    }
    inputs.extend(graph.factors.iter().map(String::as_str).zip(values));
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let outputs: Vec<String> = graph.trained.iter().map(|name| gradient_of(name)).collect();
    let wanted: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let returned = session.run(&inputs, &wanted).unwrap();
    graph.trained.into_iter().zip(returned.iter().map(|tensor| tensor.as_f32().unwrap().clone())).collect()
}

/// A mean over thousands of tokens, and a sum over as many, train a backbone in half precision as a single example does.
#[test]
fn gradients_in_half_precision_have_the_same_digits_whatever_the_loss_weighs() {
    for (dtype, tolerance) in [(DType::F16, 1e-2), (DType::BF16, 5e-2)] {
        let half = backbone(dtype, guarded);
        for engine in engines() {
            let exact = gradients(&backbone(DType::F32, guarded), engine.as_ref(), 1.0);
            for weight in [1.0f32, 1e-4, 1e-7, 1e6] {
                for ((name, found), (_, exact)) in gradients(&half, engine.as_ref(), weight).iter().zip(&exact) {
                    let norm = |a: &ArrayD<f32>| a.iter().map(|x| x * x).sum::<f32>().sqrt();
                    let error = norm(&(found / weight - exact)) / norm(exact);
                    assert!(error < tolerance, "{dtype:?} on {}: {name} off by {error} at {weight:e}", engine.name());
                }
            }
        }
    }
}
