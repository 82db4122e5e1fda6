//! What the engines' tests share: the engines themselves, graphs built by hand, comparisons.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;

use fedtt_runtime::ort_engine::OrtOptions;
use fedtt_runtime::prost::Message;
use fedtt_runtime::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto::Dimension,
    tensor_shape_proto::dimension, type_proto,
};
use fedtt_runtime::{Engine, Model, OrtEngine, Provider, Tensor, TractEngine};
use ndarray::{ArrayD, IxDyn};

/// An engine under test, with how far it may be from the exact result, relative to the result's largest entry.
pub struct UnderTest {
    pub engine: Box<dyn Engine>,
    pub tolerance: f32,
}

/// Every engine of this machine. Those that are not to be had are named on stderr, as not run.
pub fn engines() -> Vec<UnderTest> {
    let mut engines = vec![UnderTest { engine: Box::new(TractEngine::new(1)), tolerance: 2e-6 }];
    match OrtEngine::new(OrtOptions { threads: 1, ..OrtOptions::default() }) {
        Ok(engine) => engines.push(UnderTest { engine: Box::new(engine), tolerance: 1e-6 }),
        Err(error) => eprintln!("NOT RUN on ONNX Runtime: {error}"),
    }
    for (provider, tolerance) in [(Provider::Cuda, 2e-3), (Provider::TensorRt, 2e-3)] {
        match gpu(provider) {
            Ok(engine) => engines.push(UnderTest { engine: Box::new(engine), tolerance }),
            Err(reason) => eprintln!("NOT RUN on {provider}: {reason}"),
        }
    }
    engines
}

/// ONNX Runtime on a GPU, if a graph really runs there.
pub fn gpu(provider: Provider) -> Result<OrtEngine, String> {
    let engine = OrtEngine::new(OrtOptions { provider, ..OrtOptions::default() }).map_err(|e| e.to_string())?;
    if !engine.has_provider() {
        return Err("the ONNX Runtime library was built without it".into());
    }
    let probe = Graph::new(17).input("x", DataType::Float, &["n", "4"]).node("Exp", &["x"], &["y"], &[]).output("y");
    engine.load(&probe.model(), &Default::default()).map(|_| engine).map_err(|e| e.to_string())
}

/// The folder with the fixtures, for tests that are ignored where it is absent.
pub fn shared() -> PathBuf {
    PathBuf::from(option_env!("FEDTT_SHARED_FOUND").unwrap_or_default())
}

/// A node's attribute.
pub enum Attr<'a> {
    Int(i64),
    Float(f32),
    Ints(&'a [i64]),
    Text(&'a str),
    Graph(Box<Graph>),
}

/// An ONNX graph, built part by part.
#[derive(Clone)]
pub struct Graph {
    opset: i64,
    proto: GraphProto,
}

impl Graph {
    pub fn new(opset: i64) -> Self {
        Graph { opset, proto: GraphProto { name: "g".into(), ..Default::default() } }
    }

    /// An input; dimensions that are not numbers are symbols.
    pub fn input(mut self, name: &str, kind: DataType, dims: &[&str]) -> Self {
        let dim = |text: &&str| {
            let value = match text.parse() {
                Ok(number) => dimension::Value::DimValue(number),
                Err(_) => dimension::Value::DimParam(text.to_string()),
            };
            Dimension { value: Some(value), ..Default::default() }
        };
        let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
        self.proto.input.push(value_info(name, Some(type_proto::Tensor { elem_type: kind as i32, shape })));
        self
    }

    pub fn f32(self, name: &str, dims: &[i64], data: &[f32]) -> Self {
        self.raw(name, DataType::Float, dims, data.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    pub fn i64(self, name: &str, dims: &[i64], data: &[i64]) -> Self {
        self.raw(name, DataType::Int64, dims, data.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    pub fn raw(mut self, name: &str, kind: DataType, dims: &[i64], data: Vec<u8>) -> Self {
        let tensor = TensorProto {
            name: name.into(),
            data_type: kind as i32,
            dims: dims.to_vec(),
            raw_data: data,
            ..Default::default()
        };
        self.proto.initializer.push(tensor);
        self
    }

    /// The initialiser added last, for what the builder has no word for.
    pub fn last_constant(&mut self) -> &mut TensorProto {
        self.proto.initializer.last_mut().unwrap()
    }

    pub fn node(mut self, op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Attr)]) -> Self {
        let (domain, op) = op.split_once("::").unwrap_or(("", op));
        let names = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        self.proto.node.push(NodeProto {
            name: format!("node_{}", self.proto.node.len()),
            domain: domain.into(),
            op_type: op.into(),
            input: names(inputs),
            output: names(outputs),
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
            ..Default::default()
        });
        self
    }

    /// An output, whose type is left to inference.
    pub fn output(mut self, name: &str) -> Self {
        self.proto.output.push(value_info(name, None));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
        let model = ModelProto {
            ir_version: 8,
            opset_import: vec![opset("", self.opset), opset("com.microsoft", 1)],
            graph: Some(self.proto.clone()),
            ..Default::default()
        };
        model.encode_to_vec()
    }

    pub fn model(&self) -> Model {
        Model { bytes: self.bytes(), weights_dir: None }
    }
}

fn value_info(name: &str, tensor: Option<type_proto::Tensor>) -> ValueInfoProto {
    let kind = tensor.map(|t| TypeProto { value: Some(type_proto::Value::TensorType(t)), ..Default::default() });
    ValueInfoProto { name: name.into(), r#type: kind, ..Default::default() }
}

fn attribute(name: &str, value: &Attr) -> AttributeProto {
    let mut proto = AttributeProto { name: name.into(), ..Default::default() };
    let kind = match value {
        Attr::Int(i) => {
            proto.i = *i;
            AttributeType::Int
        }
        Attr::Float(f) => {
            proto.f = *f;
            AttributeType::Float
        }
        Attr::Ints(ints) => {
            proto.ints = ints.to_vec();
            AttributeType::Ints
        }
        Attr::Text(text) => {
            proto.s = text.as_bytes().to_vec();
            AttributeType::String
        }
        Attr::Graph(graph) => {
            proto.g = Some(graph.proto.clone());
            AttributeType::Graph
        }
    };
    proto.r#type = kind as i32;
    proto
}

pub fn f32s(shape: &[usize], data: &[f32]) -> Tensor {
    Tensor::F32(ArrayD::from_shape_vec(IxDyn(shape), data.to_vec()).unwrap())
}

pub fn i64s(shape: &[usize], data: &[i64]) -> Tensor {
    Tensor::I64(ArrayD::from_shape_vec(IxDyn(shape), data.to_vec()).unwrap())
}

pub fn bools(shape: &[usize], data: &[bool]) -> Tensor {
    Tensor::Bool(ArrayD::from_shape_vec(IxDyn(shape), data.to_vec()).unwrap())
}

/// Numbers between -1 and 1 that follow no simple pattern, the same for every run.
pub fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
