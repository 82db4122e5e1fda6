//! The graph as an ONNX model: opset 21, weights inline or where they already are on disk.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use fedtt_runtime::Model;
use fedtt_runtime::prost::Message;
use fedtt_runtime::proto::tensor_shape_proto::{Dimension, dimension::Value as DimValue};
use fedtt_runtime::proto::type_proto::{Tensor, Value as TypeValue};
use fedtt_runtime::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto,
};

use crate::bundle::WeightsWriter;
use crate::ir::{Attr, Data, Graph, Node, OPSET, Port, PortDim, Weight};

/// The first IR version with opset 21.
const IR_VERSION: i64 = 10;

/// Weights below this many bytes are always written into the model itself.
pub const INLINE_BELOW: usize = 1024;

/// Protobuf messages end here.
pub const MAX_MODEL: usize = (1 << 31) - (1 << 20);

/// A file of weights that written models may refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsFile {
    folder: PathBuf,
    name: String,
}

impl WeightsFile {
    /// The file at `path`; none if it has no name that a model could hold.
    pub fn new(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_string();
        Some(WeightsFile { folder: path.parent()?.to_path_buf(), name })
    }

    fn holds(&self, path: &Path) -> bool {
        path.file_name().is_some_and(|n| n == self.name.as_str()) && path.parent() == Some(&self.folder)
    }
}

/// Why a graph cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A weight's bytes cannot be read from where they are.
    #[error("weight `{name}`: {source}")]
    Read {
        /// The weight.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The model would not fit one protobuf message.
    #[error(
        "the model would take {0} bytes, more than one ONNX file may have: keep its weights in a file of their own"
    )]
    TooLarge(usize),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes `graph` as an ONNX model.
///
/// Weights that already lie in `weights` are referred to there, unless they are small; all others are written into
/// the model, so that graphs derived from one another share one file. Values keep their names and nodes their order.
///
/// # Errors
/// When a weight cannot be read, or the model would grow beyond 2 GiB.
pub fn to_model(graph: &Graph, weights: Option<&WeightsFile>) -> Result<Model, ExportError> {
    let model = model_proto(graph, weights)?;
    Ok(Model { bytes: model.encode_to_vec(), weights_dir: weights.map(|w| w.folder.clone()) })
}

/// Writes `graph` to the file `path` as a model of its own, with `metadata` for those who use it. Up to `inline` bytes of
/// weights are within the model; more are in the file `<name>.data` beside it, which has to stay there. Returns that file.
///
/// # Errors
/// When a weight cannot be read, or a file cannot be written.
pub fn save(
    graph: &Graph,
    path: &Path,
    inline: usize,
    metadata: &[(&str, String)],
) -> Result<Option<PathBuf>, ExportError> {
    let refused = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ExportError::Write { path, source }
    };
    let beside = path.with_file_name(format!("{}.data", path.file_name().unwrap_or_default().to_string_lossy()));
    let external = inline_bytes(graph, None) > inline.min(MAX_MODEL);
    let mut model = if external {
        let mut graph = graph.clone();
        let mut writer = WeightsWriter::create(&beside, beside.clone()).map_err(refused(&beside))?;
        writer.move_weights(&mut graph).map_err(|(name, source)| ExportError::Read { name, source })?;
        writer.finish().map_err(refused(&beside))?;
        model_proto(&graph, WeightsFile::new(&beside).as_ref())?
    } else {
        model_proto(graph, None)?
    };
    let entry = |(key, value): &(&str, String)| StringStringEntryProto { key: key.to_string(), value: value.clone() };
    model.metadata_props = metadata.iter().map(entry).collect();
    std::fs::write(path, model.encode_to_vec()).map_err(refused(path))?;
    Ok(external.then_some(beside))
}

/// Puts a node that changes nothing (`Max` of one value) between dequantised weights and the products that read them. Without
/// it ONNX Runtime's default is to make one operator of both that rounds activations to 8 bits
/// (`session.qdq_matmulnbits_accuracy_level`), and results differ in the third digit.
pub fn keep_products_exact(graph: &mut Graph) {
    let is_product = |node: &Node| node.is("MatMul") || node.is("Gemm");
    let products = graph.nodes.iter().filter(|node| is_product(node));
    let read: BTreeSet<&String> = products.flat_map(|node| &node.inputs).collect();
    let stored = |node: &&Node| node.input(0).is_some_and(|weight| graph.weights.contains_key(weight));
    let dequantised = graph.nodes.iter().filter(|node| node.is("DequantizeLinear")).filter(stored);
    let outputs = dequantised.flat_map(|node| &node.outputs).filter(|output| read.contains(output));
    let weights: BTreeSet<String> = outputs.cloned().collect();
    let kept = |name: &str| format!("{name}~exact");
    for mut node in std::mem::take(&mut graph.nodes) {
        if is_product(&node) {
            let inputs = node.inputs.iter_mut().filter(|input| weights.contains(*input));
            inputs.for_each(|input| *input = kept(input));
        }
        let made = node.outputs.iter().find(|output| weights.contains(*output)).cloned();
        graph.nodes.push(node);
        graph.nodes.extend(made.map(|name| Node {
            op: "Max".into(),
            outputs: vec![kept(&name)],
            inputs: vec![name],
            ..Node::default()
        }));
    }
}

fn model_proto(graph: &Graph, weights: Option<&WeightsFile>) -> Result<ModelProto, ExportError> {
    let inline = inline_bytes(graph, weights);
    if inline > MAX_MODEL {
        return Err(ExportError::TooLarge(inline));
    }
    let mut domains = BTreeSet::from([""]);
    collect_domains(graph, &mut domains);
    let version = |domain: &str| if domain.is_empty() { OPSET } else { 1 };
    Ok(ModelProto {
        ir_version: IR_VERSION,
        opset_import: domains
            .into_iter()
            .map(|domain| OperatorSetIdProto { domain: domain.to_string(), version: version(domain) })
            .collect(),
        producer_name: env!("CARGO_PKG_NAME").to_string(),
        producer_version: env!("CARGO_PKG_VERSION").to_string(),
        graph: Some(graph_proto(graph, weights, value_info)?),
        ..ModelProto::default()
    })
}

fn subgraphs(node: &Node) -> impl Iterator<Item = &Graph> {
    node.attrs.values().filter_map(|attr| match attr {
        Attr::Graph(graph) => Some(graph.as_ref()),
        _ => None,
    })
}

fn collect_domains<'a>(graph: &'a Graph, domains: &mut BTreeSet<&'a str>) {
    for node in &graph.nodes {
        domains.insert(&node.domain);
        subgraphs(node).for_each(|inner| collect_domains(inner, domains));
    }
}

fn inline_bytes(graph: &Graph, weights: Option<&WeightsFile>) -> usize {
    let own = graph.weights.values().filter(|w| external(w, weights).is_none()).map(Weight::byte_len);
    let inner = graph.nodes.iter().flat_map(subgraphs).map(|inner| inline_bytes(inner, weights));
    own.chain(inner).fold(0, usize::saturating_add)
}

/// The weight's offset in the weights file, if that is where the model shall look for it.
fn external(weight: &Weight, weights: Option<&WeightsFile>) -> Option<u64> {
    match &weight.data {
        Data::File { path, offset } if weight.byte_len() >= INLINE_BELOW && weights?.holds(path) => Some(*offset),
        _ => None,
    }
}

fn graph_proto(
    graph: &Graph,
    weights: Option<&WeightsFile>,
    value_info: fn(&Port) -> ValueInfoProto,
) -> Result<GraphProto, ExportError> {
    let tensor = |(name, weight): (&String, &Weight)| tensor_proto(name, weight, weights);
    Ok(GraphProto {
        name: if graph.name.is_empty() { "graph".to_string() } else { graph.name.clone() },
        node: graph.nodes.iter().map(|node| node_proto(node, weights)).collect::<Result<_, _>>()?,
        initializer: graph.weights.iter().map(tensor).collect::<Result<_, _>>()?,
        input: graph.inputs.iter().map(value_info).collect(),
        output: graph.outputs.iter().map(value_info).collect(),
        ..GraphProto::default()
    })
}

fn node_proto(node: &Node, weights: Option<&WeightsFile>) -> Result<NodeProto, ExportError> {
    let attribute = |(name, attr): (&String, &Attr)| attribute_proto(name, attr, weights);
    Ok(NodeProto {
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        name: node.name.clone(),
        op_type: node.op.clone(),
        domain: node.domain.clone(),
        attribute: node.attrs.iter().map(attribute).collect::<Result<_, _>>()?,
        doc_string: String::new(),
    })
}

fn attribute_proto(name: &str, attr: &Attr, weights: Option<&WeightsFile>) -> Result<AttributeProto, ExportError> {
    let mut proto = AttributeProto { name: name.to_string(), ..AttributeProto::default() };
    proto.r#type = match attr {
        Attr::Float(v) => {
            proto.f = *v;
            1
        }
        Attr::Int(v) => {
            proto.i = *v;
            2
        }
        Attr::Str(v) => {
            proto.s = v.as_bytes().to_vec();
            3
        }
        Attr::Tensor(v) => {
            proto.t = Some(tensor_proto("", v, None)?);
            4
        }
        Attr::Graph(v) => {
            proto.g = Some(graph_proto(v, weights, inner_value_info)?);
            5
        }
        Attr::Floats(v) => {
            proto.floats = v.clone();
            6
        }
        Attr::Ints(v) => {
            proto.ints = v.clone();
            7
        }
        Attr::Strs(v) => {
            proto.strings = v.iter().map(|s| s.as_bytes().to_vec()).collect();
            8
        }
    };
    Ok(proto)
}

fn tensor_proto(name: &str, weight: &Weight, weights: Option<&WeightsFile>) -> Result<TensorProto, ExportError> {
    let mut proto = TensorProto {
        name: name.to_string(),
        dims: weight.shape.iter().map(|&d| d as i64).collect(),
        data_type: weight.dtype.onnx() as i32,
        ..TensorProto::default()
    };
    match (external(weight, weights), weights) {
        (Some(offset), Some(file)) => {
            let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_string(), value };
            proto.data_location = Some(1);
            proto.external_data = vec![
                entry("location", file.name.clone()),
                entry("offset", offset.to_string()),
                entry("length", weight.byte_len().to_string()),
            ];
        }
        _ => {
            let bytes = weight.bytes().map_err(|source| ExportError::Read { name: name.to_string(), source })?;
            proto.raw_data = bytes.to_vec();
        }
    }
    Ok(proto)
}

/// Of a value of a subgraph: where no shape is stated the type may not have been either, and engines infer both.
fn inner_value_info(port: &Port) -> ValueInfoProto {
    match port.shape {
        Some(_) => value_info(port),
        None => ValueInfoProto { name: port.name.clone(), ..ValueInfoProto::default() },
    }
}

fn value_info(port: &Port) -> ValueInfoProto {
    let dim = |dim: &PortDim| Dimension {
        value: match dim {
            PortDim::Known(size) => Some(DimValue::DimValue(*size as i64)),
            PortDim::Symbol(name) => Some(DimValue::DimParam(name.clone())),
            PortDim::Unknown => None,
        },
        ..Dimension::default()
    };
    let shape = port.shape.as_ref().map(|dims| TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = Tensor { elem_type: port.dtype.onnx() as i32, shape };
    let r#type = TypeProto { value: Some(TypeValue::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: port.name.clone(), r#type: Some(r#type), ..ValueInfoProto::default() }
}
