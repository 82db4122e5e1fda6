//! Model-local functions and the scopes their bodies are lowered in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use fedtt_runtime::prost::Message;
use fedtt_runtime::proto::{AttributeProto, FunctionProto, NodeProto, TensorProto};

use super::ImportError;
use super::lower::{standard_domain, standard_opset};
use crate::ir::{Attr, Node};

/// The fields of `FunctionProto` newer than the shared definitions.
#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "fedtt_runtime::prost")]
struct NewerFunctionFields {
    /// Attributes with a default.
    #[prost(message, repeated, tag = "11")]
    attribute_proto: Vec<AttributeProto>,
    /// Tells functions of one name apart.
    #[prost(string, tag = "13")]
    overload: String,
}

#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "fedtt_runtime::prost")]
struct NewerModelFields {
    #[prost(message, repeated, tag = "25")]
    functions: Vec<NewerFunctionFields>,
}

/// One function of the model.
pub(super) struct Function {
    key: (String, String),
    opset: Option<i64>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    pub(super) nodes: Vec<NodeProto>,
    pub(super) defaults: Vec<AttributeProto>,
    /// Constants of the body, under the names they have in the graph whatever the call.
    pub(super) constants: Vec<(String, TensorProto)>,
    /// Those names by the body's own.
    constant_names: HashMap<String, String>,
    /// Bytes that one call copies.
    pub(super) size: usize,
}

impl Function {
    fn new(proto: FunctionProto, defaults: Vec<AttributeProto>) -> Result<Self, ImportError> {
        let key = (standard_domain(proto.domain()).to_string(), proto.name().to_string());
        let opset = standard_opset(&proto.opset_import)?;
        let (inputs, outputs) = (proto.input, proto.output);
        let mut constants = Vec::new();
        let mut constant_names = HashMap::new();
        let ports: HashSet<&String> = inputs.iter().chain(&outputs).collect();
        let mut nodes = Vec::with_capacity(proto.node.len());
        for mut node in proto.node {
            match take_constant(&mut node, &ports) {
                Some((output, tensor)) => {
                    let name = format!("{}::{}/{output}", key.0, key.1);
                    constants.push((name.clone(), tensor));
                    if constant_names.insert(output, name).is_some() {
                        let message = format!("function `{}` has two constants of one name", key.1);
                        return Err(ImportError::model(message));
                    }
                }
                None => nodes.push(node),
            }
        }
        let names = inputs.iter().chain(&outputs).chain(constant_names.iter().flat_map(|(own, name)| [own, name]));
        let size = names.map(String::len).sum::<usize>()
            + nodes.iter().map(NodeProto::encoded_len).sum::<usize>()
            + defaults.iter().map(AttributeProto::encoded_len).sum::<usize>();
        Ok(Function { key, opset, inputs, outputs, nodes, defaults, constants, constant_names, size })
    }
}

/// Name and tensor of a `Constant` that is none of the function's `ports`.
fn take_constant(node: &mut NodeProto, ports: &HashSet<&String>) -> Option<(String, TensorProto)> {
    let [output] = &node.output[..] else { return None };
    let [attribute] = &mut node.attribute[..] else { return None };
    let plain = node.op_type == "Constant"
        && standard_domain(&node.domain).is_empty()
        && node.input.is_empty()
        && attribute.name == "value"
        && matches!(attribute.r#type, 0 | 4)
        && attribute.ref_attr_name.is_empty()
        && !output.is_empty()
        && !ports.contains(output);
    if plain { attribute.t.take().map(|tensor| (output.clone(), tensor)) } else { None }
}

/// A model's functions by domain and name.
pub(super) struct Functions {
    by_key: HashMap<(String, String), Rc<Function>>,
}

impl Functions {
    /// `bytes` are the model's, for the fields that its definitions lack.
    pub(super) fn new(protos: Vec<FunctionProto>, bytes: &[u8]) -> Result<Self, ImportError> {
        let mut by_key = HashMap::new();
        if protos.is_empty() {
            return Ok(Functions { by_key });
        }
        let newer = NewerModelFields::decode(bytes).map_err(|e| ImportError::model(e.to_string()))?;
        for (proto, newer) in protos.into_iter().zip(newer.functions) {
            if !newer.overload.is_empty() {
                let name = proto.name();
                let message = format!("function `{name}` is overloaded, which is not supported: export it inlined");
                return Err(ImportError::model(message));
            }
            let function = Function::new(proto, newer.attribute_proto)?;
            let key = function.key.clone();
            if by_key.insert(key.clone(), Rc::new(function)).is_some() {
                return Err(ImportError::model(format!("the model has two functions named `{}`", key.1)));
            }
        }
        Ok(Functions { by_key })
    }

    pub(super) fn get(&self, domain: &str, name: &str) -> Option<Rc<Function>> {
        if self.by_key.is_empty() {
            return None;
        }
        self.by_key.get(&(domain.to_string(), name.to_string())).cloned()
    }
}

/// Where a node stands: in the model's own graph, or in one call of a function.
pub(super) struct Scope {
    opset: i64,
    prefix: String,
    names: HashMap<String, String>,
    attrs: BTreeMap<String, Attr>,
    calls: Vec<(String, String)>,
}

impl Scope {
    /// The model's own graph.
    pub(super) fn main(opset: i64) -> Self {
        Scope { opset, prefix: String::new(), names: HashMap::new(), attrs: BTreeMap::new(), calls: Vec::new() }
    }

    /// The version of ONNX's own operators here.
    pub(super) fn opset(&self) -> i64 {
        self.opset
    }

    /// What the value `name` is called in the graph.
    pub(super) fn name(&self, name: &str) -> String {
        match self.names.get(name) {
            Some(actual) => actual.clone(),
            None => self.label(name),
        }
    }

    /// What the node `name` is called in the graph.
    pub(super) fn label(&self, name: &str) -> String {
        if name.is_empty() || self.prefix.is_empty() { name.to_string() } else { format!("{}/{name}", self.prefix) }
    }

    /// The value of the function's attribute `name`.
    pub(super) fn attr(&self, name: &str) -> Option<&Attr> {
        self.attrs.get(name)
    }

    /// The scope of one call, and the (input, output) values that the function passes through untouched.
    pub(super) fn enter(
        &self,
        function: &Function,
        node: Node,
        defaults: BTreeMap<String, Attr>,
        call: usize,
    ) -> Result<(Scope, Vec<(String, String)>), ImportError> {
        let refuse = |message: &str| Err(ImportError::node(&node, message));
        if self.calls.contains(&function.key) {
            return refuse("is a function that calls itself");
        }
        if node.inputs.len() > function.inputs.len() || node.outputs.len() > function.outputs.len() {
            return refuse("has more inputs or outputs than its function");
        }
        let prefix = self.label(&format!("{}~{call}", function.key.1));
        let mut names = function.constant_names.clone();
        for (i, formal) in function.inputs.iter().enumerate() {
            names.insert(formal.clone(), node.input(i).unwrap_or_default().to_string());
        }
        let mut passed = Vec::new();
        for (i, formal) in function.outputs.iter().enumerate() {
            let Some(actual) = node.output(i) else { continue };
            match names.get(formal) {
                Some(value) => passed.push((value.clone(), actual.to_string())),
                None => {
                    names.insert(formal.clone(), actual.to_string());
                }
            }
        }
        let mut attrs = defaults;
        attrs.extend(node.attrs);
        let mut calls = self.calls.clone();
        calls.push(function.key.clone());
        let opset = function.opset.unwrap_or(self.opset);
        Ok((Scope { opset, prefix, names, attrs, calls }, passed))
    }
}
