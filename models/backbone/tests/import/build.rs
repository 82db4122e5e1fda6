//! Models made by hand.

use std::path::Path;

use fedtt_backbone::import::{self, ImportError};
use fedtt_backbone::ir::{DType, Graph};
use fedtt_runtime::prost::Message;
use fedtt_runtime::proto::tensor_shape_proto::{Dimension, dimension::Value as DimValue};
use fedtt_runtime::proto::type_proto::{Tensor, Value as TypeValue};
use fedtt_runtime::proto::*;

pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: outputs.iter().map(|s| s.to_string()).collect(),
        attribute,
        ..NodeProto::default()
    }
}

pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: 2, i, ..AttributeProto::default() }
}

pub fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: 1, f, ..AttributeProto::default() }
}

pub fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: 7, ints: ints.to_vec(), ..AttributeProto::default() }
}

pub fn floats(name: &str, floats: &[f32]) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: 6, floats: floats.to_vec(), ..AttributeProto::default() }
}

pub fn tensor_attr(name: &str, t: TensorProto) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: 4, t: Some(t), ..AttributeProto::default() }
}

pub fn graph_attr(name: &str, g: GraphProto) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: 5, g: Some(g), ..AttributeProto::default() }
}

/// `name = @refers_to`, inside a function.
pub fn reference(name: &str, refers_to: &str, r#type: i32) -> AttributeProto {
    AttributeProto { name: name.into(), ref_attr_name: refers_to.into(), r#type, ..AttributeProto::default() }
}

pub fn floats_tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: 1,
        float_data: values.to_vec(),
        ..TensorProto::default()
    }
}

pub fn ints_tensor(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: 7,
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

/// Negative sizes stand for unknown ones.
pub fn value(name: &str, dtype: DType, dims: &[i64]) -> ValueInfoProto {
    let dim = |&size: &i64| Dimension { value: Some(DimValue::DimValue(size)), ..Dimension::default() };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = TypeValue::TensorType(Tensor { elem_type: dtype.onnx() as i32, shape });
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { value: Some(tensor), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

pub fn graph(
    node: Vec<NodeProto>,
    initializer: Vec<TensorProto>,
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
) -> GraphProto {
    GraphProto { name: "g".into(), node, initializer, input, output, ..GraphProto::default() }
}

pub fn model(opset: i64, graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// One node from x [2,3,4] to y, with integer constants.
pub fn single(opset: i64, node: NodeProto, constants: Vec<TensorProto>) -> ModelProto {
    let outputs = node.output.iter().map(|o| value(o, DType::F32, &[])).map(|mut v| {
        if let Some(TypeValue::TensorType(t)) = v.r#type.as_mut().and_then(|t| t.value.as_mut()) {
            t.shape = None;
        }
        v
    });
    let outputs = outputs.collect();
    model(opset, graph(vec![node], constants, vec![value("x", DType::F32, &[2, 3, 4])], outputs))
}

pub fn function(
    name: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: &[&str],
    node: Vec<NodeProto>,
) -> FunctionProto {
    let strings = |names: &[&str]| names.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    FunctionProto {
        name: Some(name.into()),
        domain: Some("local".into()),
        input: strings(inputs),
        output: strings(outputs),
        attribute: strings(attributes),
        node,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        ..FunctionProto::default()
    }
}

pub fn call(name: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto { domain: "local".into(), ..node(name, inputs, outputs, attribute) }
}

pub fn import(model: &ModelProto) -> Result<Graph, ImportError> {
    import::from_bytes(&model.encode_to_vec(), Path::new("model.onnx"))
}

pub fn refusal(model: &ModelProto) -> String {
    import(model).map(|graph| panic!("was accepted: {graph:?}")).unwrap_err().to_string()
}

pub fn ops(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(|n| n.op.as_str()).collect()
}
