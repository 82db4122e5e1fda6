//! The engine: whether its library loads, and whether the provider computes.

use fedtt_backbone::export::to_model;
use fedtt_backbone::ir::{DType, Graph, Node, Port, PortDim, Weight};
use fedtt_runtime::{Engine, EngineChoice, Provider, SelectError, SessionOptions, Tensor, select};
use ndarray::{ArrayD, IxDyn};

use super::Check;
use crate::daemon::Settings;

/// Rows of the matrices that are multiplied: enough that a GPU takes them.
const SIZE: usize = 64;

/// The engine that would be used, if it works.
pub(super) fn check(settings: &Settings) -> (Option<Box<dyn Engine>>, Vec<Check>) {
    let config = &settings.engine;
    let engine = match select(config) {
        Ok(engine) => engine,
        Err(error) => {
            let advice = match config.provider {
                _ if matches!(error, SelectError::Threads { .. }) => "lower engine.threads",
                Provider::Cpu => "set engine.library to ONNX Runtime's library, or engine.engine = \"tract\"",
                _ => "set engine.library to an ONNX Runtime library built for this GPU, or engine.provider = \"cpu\"",
            };
            return (None, vec![Check::fail("engine", error.to_string(), advice)]);
        }
    };
    let none_found = config.choice == EngineChoice::Auto && engine.name().starts_with("tract");
    let library = match engine.library() {
        Some(library) => format!(" from {}", library.display()),
        None if none_found => ", built in (no ONNX Runtime library was found)".into(),
        None => ", built in".into(),
    };
    let found = Check::ok("engine", format!("{}{library}", engine.name()));
    match segment(engine.as_ref(), settings) {
        Ok(placement) => {
            let computed = Check::ok("provider", format!("{} computes; nodes on {placement}", config.provider));
            (Some(engine), vec![found, computed])
        }
        Err(reason) => {
            let advice = match config.provider {
                Provider::Cpu => "the library does not work on this machine: install another ONNX Runtime",
                _ => "check the driver and that the library was built for this GPU, or set engine.provider = \"cpu\"",
            };
            (None, vec![found, Check::fail("provider", reason, advice)])
        }
    }
}

/// Runs `tanh(x w)`, and compares it; where its nodes were placed.
fn segment(engine: &dyn Engine, settings: &Settings) -> Result<String, String> {
    let weights: Vec<f32> = (0..SIZE * SIZE).map(|i| ((i * 7 % 13) as f32 - 6.0) / 256.0).collect();
    let dims = || Some(vec![PortDim::Known(SIZE), PortDim::Known(SIZE)]);
    let node = |op: &str, inputs: &[&str], output: &str| Node {
        op: op.into(),
        inputs: inputs.iter().map(ToString::to_string).collect(),
        outputs: vec![output.into()],
        ..Node::default()
    };
    let graph = Graph {
        name: "segment".into(),
        nodes: vec![node("MatMul", &["x", "w"], "product"), node("Tanh", &["product"], "y")],
        weights: [("w".to_string(), Weight::f32s(&[SIZE, SIZE], &weights))].into(),
        inputs: vec![Port { name: "x".into(), dtype: DType::F32, shape: dims() }],
        outputs: vec![Port { name: "y".into(), dtype: DType::F32, shape: dims() }],
    };
    let model = to_model(&graph, None).map_err(|e| e.to_string())?;
    let options = SessionOptions { threads: settings.engine.threads, ..SessionOptions::default() };
    let mut session = engine.load(&model, &options).map_err(|e| e.to_string())?;
    let x = ArrayD::from_shape_fn(IxDyn(&[SIZE, SIZE]), |i| ((i[0] * 5 + i[1] * 3) % 11) as f32 / 11.0 - 0.5);
    let outputs = session.run(&[("x", &Tensor::F32(x.clone()))], &["y"]).map_err(|e| e.to_string())?;
    let Some(Tensor::F32(y)) = outputs.first() else { return Err("it returned no floats".into()) };
    let right = |row: usize, column: usize| {
        let product: f32 = (0..SIZE).map(|k| x[[row, k]] * weights[k * SIZE + column]).sum();
        // TF32 on a GPU keeps 10 bits.
        y.get([row, column]).is_some_and(|y| (y - product.tanh()).abs() < 5e-3)
    };
    let wrong = (0..SIZE).flat_map(|r| (0..SIZE).map(move |c| (r, c))).any(|(r, c)| !right(r, c));
    if wrong { Err("it computes wrong results".into()) } else { Ok(session.placement()) }
}
