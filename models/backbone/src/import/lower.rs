//! Protobuf messages to the graph, node by node, with model-local functions inlined on the way.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use fedtt_runtime::proto::tensor_shape_proto::dimension::Value as DimValue;
use fedtt_runtime::proto::type_proto::Value as TypeValue;
use fedtt_runtime::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto};

use super::ImportError;
use super::budget::Budget;
use super::function::{Function, Functions, Scope};
use super::opset;
use super::tensor::{Source, dtype};
use crate::ir::{Attr, DType, Graph, Node, Port, PortDim, Weight};

/// Levels of subgraphs and function calls inside one another.
const MAX_DEPTH: usize = 24;

/// Largest dimension an input or output may state.
const MAX_PORT_DIM: i64 = 1 << 31;

/// Lowers a whole model; `bytes` are those it was decoded from.
pub(super) fn model(mut model: ModelProto, bytes: &[u8], path: &Path) -> Result<Graph, ImportError> {
    if !model.training_info.is_empty() {
        return Err(ImportError::model("the model carries ONNX training information: export it for inference"));
    }
    let opset = standard_opset(&model.opset_import)?
        .ok_or_else(|| ImportError::model("the model does not say which opset it was written for"))?;
    let functions = Functions::new(std::mem::take(&mut model.functions), bytes)?;
    let mut lowerer = Lowerer {
        source: Source::beside(path),
        functions,
        shared: BTreeMap::new(),
        budget: Budget::default(),
        calls: 0,
        depth: 0,
    };
    let graph = model.graph.take().unwrap_or_default();
    let mut graph = lowerer.graph(graph, &Scope::main(opset), true)?;
    for (name, weight) in lowerer.shared {
        add_weight(&mut graph, name, weight)?;
    }
    Ok(graph)
}

/// The version of ONNX's own operators among `imports`, if they name one.
pub(super) fn standard_opset(imports: &[OperatorSetIdProto]) -> Result<Option<i64>, ImportError> {
    let standard = imports.iter().filter(|o| standard_domain(&o.domain).is_empty()).map(|o| o.version).max();
    match standard {
        Some(version) if !opset::SUPPORTED.contains(&version) => Err(ImportError::model(format!(
            "the model is written for opset {version}; opsets {} to {} are understood: export it for one of them",
            opset::SUPPORTED.start(),
            opset::SUPPORTED.end(),
        ))),
        other => Ok(other),
    }
}

/// ONNX's own domain has two spellings.
pub(super) fn standard_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

pub(super) struct Lowerer {
    source: Source,
    functions: Functions,
    /// Constants of functions, which all calls read.
    shared: BTreeMap<String, Weight>,
    budget: Budget,
    calls: usize,
    depth: usize,
}

impl Lowerer {
    fn graph(&mut self, proto: GraphProto, scope: &Scope, top: bool) -> Result<Graph, ImportError> {
        let mut graph = Graph { name: proto.name, ..Graph::default() };
        if let Some(sparse) = proto.sparse_initializer.first() {
            let name = sparse.values.as_ref().map_or("?", |v| v.name.as_str());
            return Err(ImportError::tensor(name, "is sparse, which is not supported: export it dense"));
        }
        for tensor in proto.initializer {
            let name = self.name(scope, &tensor.name)?;
            let weight = self.source.weight(tensor)?;
            add_weight(&mut graph, name, weight)?;
        }
        for info in proto.input {
            let name = self.name(scope, &info.name)?;
            if !graph.weights.contains_key(&name) {
                graph.inputs.push(port(name, &info, top)?);
            }
        }
        for node in proto.node {
            self.node(node, scope, &mut graph)?;
        }
        for info in proto.output {
            graph.outputs.push(port(self.name(scope, &info.name)?, &info, top)?);
        }
        if top && graph.outputs.is_empty() {
            return Err(ImportError::graph(&graph.name, "has no outputs"));
        }
        Ok(graph)
    }

    fn node(&mut self, proto: NodeProto, scope: &Scope, graph: &mut Graph) -> Result<(), ImportError> {
        self.budget.nodes(1)?;
        let label = scope.label(&proto.name);
        self.budget.bytes(label.len())?;
        let mut node = Node {
            name: label,
            domain: standard_domain(&proto.domain).to_string(),
            op: proto.op_type,
            inputs: proto.input.iter().map(|name| self.name(scope, name)).collect::<Result<_, _>>()?,
            outputs: proto.output.iter().map(|name| self.name(scope, name)).collect::<Result<_, _>>()?,
            attrs: BTreeMap::new(),
        };
        for attribute in proto.attribute {
            let name = attribute.name.clone();
            let Some(attr) = self.attr(attribute, scope, &node)? else { continue };
            if node.attrs.insert(name.clone(), attr).is_some() {
                return Err(ImportError::node(&node, format!("has two attributes `{name}`")));
            }
        }
        if let Some(function) = self.functions.get(&node.domain, &node.op) {
            return self.call(function, node, scope, graph);
        }
        if node.is("Constant") {
            return constant(node, graph);
        }
        opset::upgrade(node, scope.opset(), graph)
    }

    /// What the value `name` is called in the graph.
    fn name(&mut self, scope: &Scope, name: &str) -> Result<String, ImportError> {
        let name = scope.name(name);
        self.budget.bytes(name.len())?;
        Ok(name)
    }

    fn call(
        &mut self,
        function: Rc<Function>,
        node: Node,
        scope: &Scope,
        graph: &mut Graph,
    ) -> Result<(), ImportError> {
        self.calls += 1;
        self.enter(&node)?;
        self.budget.bytes(function.size)?;
        for (name, tensor) in &function.constants {
            if !self.shared.contains_key(name) {
                self.shared.insert(name.clone(), self.source.weight(tensor.clone())?);
            }
        }
        let mut defaults = BTreeMap::new();
        for attribute in &function.defaults {
            if let Some(attr) = self.attr(attribute.clone(), scope, &node)? {
                defaults.insert(attribute.name.clone(), attr);
            }
        }
        let (inner, passed) = scope.enter(&function, node, defaults, self.calls)?;
        for (from, to) in passed {
            let identity = Node { op: "Identity".into(), inputs: vec![from], outputs: vec![to], ..Node::default() };
            graph.nodes.push(identity);
        }
        for body in &function.nodes {
            self.node(body.clone(), &inner, graph)?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn enter(&mut self, node: &Node) -> Result<(), ImportError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ImportError::node(node, format!("lies more than {MAX_DEPTH} subgraphs or functions deep")));
        }
        Ok(())
    }

    /// The attribute's value; none if it refers to an attribute of the function that the caller left out.
    fn attr(&mut self, proto: AttributeProto, scope: &Scope, node: &Node) -> Result<Option<Attr>, ImportError> {
        let bad = |what: &str| Err(ImportError::node(node, format!("its attribute `{}` {what}", proto.name)));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
        if !proto.ref_attr_name.is_empty() {
            return scope.attr(&proto.ref_attr_name).map(|attr| self.budget.copy(attr)).transpose();
        }
        let kind = if proto.r#type == 0 { guess_kind(&proto) } else { proto.r#type };
        Ok(Some(match kind {
            1 => Attr::Float(proto.f),
            2 => Attr::Int(proto.i),
            3 => match text(proto.s) {
                Some(s) => Attr::Str(s),
                None => return Err(ImportError::node(node, format!("its attribute `{}` is not text", proto.name))),
            },
            4 => match proto.t {
                Some(tensor) => Attr::Tensor(self.source.weight(tensor)?),
                None => return bad("has no value"),
            },
            5 => match proto.g {
                Some(graph) => {
                    self.enter(node)?;
                    let graph = self.graph(graph, scope, false)?;
                    self.depth -= 1;
                    Attr::Graph(Box::new(graph))
                }
                None => return bad("has no value"),
            },
            6 => Attr::Floats(proto.floats),
            7 => Attr::Ints(proto.ints),
            8 => match proto.strings.into_iter().map(text).collect() {
                Some(strings) => Attr::Strs(strings),
                None => return Err(ImportError::node(node, format!("its attribute `{}` is not text", proto.name))),
            },
            9 | 10 => return bad("is a list of tensors or graphs, which is not supported"),
            11 | 12 => return bad("is sparse, which is not supported: export it dense"),
            13 | 14 => {
                return bad("is a type, which only sequence and optional operators have: they are not supported");
            }
            _ => return bad("has no type"),
        }))
    }
}

/// Files of IR version 1 leave an attribute's type out.
fn guess_kind(proto: &AttributeProto) -> i32 {
    let present = [
        (4, proto.t.is_some()),
        (5, proto.g.is_some()),
        (3, !proto.s.is_empty()),
        (6, !proto.floats.is_empty()),
        (7, !proto.ints.is_empty()),
        (8, !proto.strings.is_empty()),
        (1, proto.f != 0.0),
        (2, proto.i != 0),
    ];
    present.iter().find(|(_, there)| *there).map_or(0, |(kind, _)| *kind)
}

fn constant(node: Node, graph: &mut Graph) -> Result<(), ImportError> {
    let Some(name) = node.output(0).map(str::to_string) else {
        return Err(ImportError::node(&node, "makes nothing"));
    };
    let weight = match node.attrs.iter().next() {
        Some((key, Attr::Tensor(weight))) if key == "value" => weight.clone(),
        Some((key, Attr::Float(v))) if key == "value_float" => Weight::f32s(&[], &[*v]),
        Some((key, Attr::Floats(v))) if key == "value_floats" => Weight::f32s(&[v.len()], v),
        Some((key, Attr::Int(v))) if key == "value_int" => Weight::i64s(&[], &[*v]),
        Some((key, Attr::Ints(v))) if key == "value_ints" => Weight::i64s(&[v.len()], v),
        Some((key, _)) => return Err(ImportError::node(&node, format!("its `{key}` is not supported"))),
        None => return Err(ImportError::node(&node, "has no value")),
    };
    add_weight(graph, name, weight)
}

fn add_weight(graph: &mut Graph, name: String, weight: Weight) -> Result<(), ImportError> {
    if name.is_empty() {
        return Err(ImportError::graph(&graph.name, "has a constant without a name"));
    }
    if graph.weights.contains_key(&name) {
        return Err(ImportError::graph(&graph.name, format!("has two constants named `{name}`")));
    }
    graph.weights.insert(name, weight);
    Ok(())
}

/// An input or output. Subgraphs may leave types out; theirs are filled in once types are inferred.
fn port(name: String, info: &ValueInfoProto, top: bool) -> Result<Port, ImportError> {
    if name.is_empty() {
        return Err(ImportError::model("the graph has an input or output without a name"));
    }
    let tensor = match info.r#type.as_ref().map(|t| &t.value) {
        Some(Some(TypeValue::TensorType(tensor))) => tensor,
        Some(None) => {
            let message = "is a sequence, map, optional or sparse tensor; only dense tensors are supported";
            return Err(ImportError::tensor(&name, message));
        }
        None if top => return Err(ImportError::tensor(&name, "is an input or output of which no type is stated")),
        None => return Ok(Port { name, dtype: DType::F32, shape: None }),
    };
    let dtype = dtype(&name, tensor.elem_type)?;
    let dim = |value: &Option<DimValue>| match value {
        Some(DimValue::DimValue(size)) if (0..=MAX_PORT_DIM).contains(size) => Ok(PortDim::Known(*size as usize)),
        None | Some(DimValue::DimValue(-1)) => Ok(PortDim::Unknown),
        Some(DimValue::DimValue(size)) => Err(ImportError::tensor(&name, format!("has dimension {size}"))),
        Some(DimValue::DimParam(symbol)) if symbol.is_empty() => Ok(PortDim::Unknown),
        Some(DimValue::DimParam(symbol)) => Ok(PortDim::Symbol(symbol.clone())),
    };
    let shape = tensor.shape.as_ref().map(|s| s.dim.iter().map(|d| dim(&d.value)).collect::<Result<_, _>>());
    let shape = shape.transpose()?;
    Ok(Port { name, dtype, shape })
}
