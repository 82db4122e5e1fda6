//! Running a model on tract.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use prost::Message;
use tract_linalg::multithread::Executor;
use tract_onnx::model::{Onnx, ParseResult};
use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{TractErrorContext, bail, ensure};
use tract_onnx::tract_hir::infer::{Factoid, InferenceModelExt};

use super::convert::{datum_type, from_tract, into_tract};
use super::plans::{Key, Plan, Plans, Weights};
use super::{casts, guard, lower_for_tract, rows};
use crate::{EngineError, Model, Session};

/// A model ready to run on tract.
pub(super) struct TractSession {
    engine: String,
    /// The graph as read, shapes open; plans are made from copies that share its constants.
    graph: InferenceModel,
    inputs: Vec<(String, OutletId)>,
    outputs: HashMap<String, OutletId>,
    executor: Executor,
    plans: Plans,
    weights: Weights,
}

impl TractSession {
    pub(super) fn new(engine: String, model: &Model, executor: Executor, low_memory: bool) -> TractResult<Self> {
        let mut proto = pb::ModelProto::decode(model.bytes.as_slice()).context("the bytes are not an ONNX model")?;
        lower_for_tract(&mut proto, model.weights_dir.as_deref())?;
        let weights_dir = match &model.weights_dir {
            Some(dir) => Some(dir.to_str().context("the weights folder's name is not UTF-8")?),
            None => None,
        };
        let output_names: Vec<String> =
            proto.graph.iter().flat_map(|g| g.output.iter().map(|o| o.name.clone())).collect();
        let mut framework = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_types(true);
        casts::register(&mut framework.op_register);
        rows::register(&mut framework.op_register);
        let mut lacking = Vec::new();
        if let Some(graph) = &proto.graph {
            lacking_operators(graph, &framework, &mut lacking);
        }
        ensure!(lacking.is_empty(), "tract has no {}", lacking.join(", "));
        let ParseResult { model: graph, unresolved_inputs, outlets_by_name } = framework.parse(&proto, weights_dir)?;
        ensure!(unresolved_inputs.is_empty(), "no node or input makes {}", unresolved_inputs.join(", "));
        let inputs = graph.input_outlets()?.iter().map(|o| (graph.node(o.node).name.clone(), *o)).collect();
        let outputs = output_names.into_iter().filter_map(|name| Some((name.clone(), *outlets_by_name.get(&name)?)));
        let outputs = outputs.collect();
        let plans = Plans::new(if low_memory { 4 } else { 16 });
        Ok(TractSession { engine, graph, inputs, outputs, executor, plans, weights: Weights::default() })
    }

    /// The plan for inputs of these shapes, and the inputs as it takes them.
    fn plan(&mut self, inputs: &[(&str, &crate::Tensor)], outputs: &[&str]) -> TractResult<(Arc<Plan>, TVec<TValue>)> {
        let mut given: Vec<(usize, &crate::Tensor)> = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs {
            let at = self.inputs.iter().position(|(known, _)| known == name);
            let known = || self.inputs.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ");
            given.push((at.with_context(|| format!("the model has no input `{name}`; it has {}", known()))?, tensor));
        }
        given.sort_by_key(|(at, _)| *at);
        let key = Key {
            inputs: given.iter().map(|(at, tensor)| (*at, tensor.shape().to_vec())).collect(),
            outputs: outputs.iter().map(|name| name.to_string()).collect(),
        };
        let Self { graph, inputs: known, outputs: known_outputs, plans, weights, .. } = self;
        let plan = plans.get(key, || prepare(graph, known, known_outputs, &given, outputs, weights))?;
        let tensors: HashMap<usize, &crate::Tensor> = given.into_iter().collect();
        let values = plan.inputs.iter().map(|at| into_tract(tensors[at])).collect::<TractResult<_>>()?;
        Ok((plan, values))
    }

    fn try_run(&mut self, inputs: &[(&str, &crate::Tensor)], outputs: &[&str]) -> TractResult<Vec<crate::Tensor>> {
        let (plan, values) = self.plan(inputs, outputs)?;
        plan.run(&self.executor, values)?.iter().map(from_tract).collect()
    }

    /// Runs each part on a thread of its own, if there are several.
    fn try_abreast(&mut self, parts: &[Inputs<'_>], outputs: &[&str]) -> TractResult<Vec<Vec<crate::Tensor>>> {
        let pool = match &self.executor {
            Executor::MultiThread(pool) if parts.len() > 1 => Arc::clone(pool),
            _ => return parts.iter().map(|part| self.try_run(part, outputs)).collect(),
        };
        let fed = parts.iter().map(|part| self.plan(part, outputs)).collect::<TractResult<Vec<_>>>()?;
        let mut results: Vec<TractResult<Vec<crate::Tensor>>> = fed.iter().map(|_| Ok(Vec::new())).collect();
        pool.scope(|scope| {
            for ((plan, values), result) in fed.into_iter().zip(&mut results) {
                scope.spawn(move |_| {
                    let outputs = plan.run(&Executor::SingleThread, values);
                    *result = outputs.and_then(|outputs| outputs.iter().map(from_tract).collect());
                });
            }
        });
        results.into_iter().collect()
    }

    fn failed(&self, message: String) -> EngineError {
        EngineError::Run { engine: self.engine.clone(), message }
    }
}

/// The named inputs of a run.
type Inputs<'a> = Vec<(&'a str, &'a crate::Tensor)>;

impl Session for TractSession {
    fn run(&mut self, inputs: &[(&str, &crate::Tensor)], outputs: &[&str]) -> Result<Vec<crate::Tensor>, EngineError> {
        guard(|| self.try_run(inputs, outputs)).map_err(|message| self.failed(message))
    }

    fn run_parts(
        &mut self,
        common: &[(&str, &crate::Tensor)],
        parts: &[Vec<(&str, &crate::Tensor)>],
        outputs: &[&str],
    ) -> Result<Vec<Vec<crate::Tensor>>, EngineError> {
        let parts: Vec<_> = parts.iter().map(|part| [common, part].concat()).collect();
        guard(|| self.try_abreast(&parts, outputs)).map_err(|message| self.failed(message))
    }
}

/// Adds the operators of `graph` and of its branches that tract does not know, each with a node that asks for it.
fn lacking_operators(graph: &pb::GraphProto, framework: &Onnx, lacking: &mut Vec<String>) {
    for node in &graph.node {
        let prefix = format!("{} (", node.op_type);
        if !framework.op_register.0.contains_key(&node.op_type) && !lacking.iter().any(|l| l.starts_with(&prefix)) {
            lacking.push(format!("{prefix}node `{}`)", node.name));
        }
        for branch in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
            lacking_operators(branch, framework, lacking);
        }
    }
}

/// Makes the shapes numbers, keeps what `outputs` need, optimises.
fn prepare(
    graph: &InferenceModel,
    inputs: &[(String, OutletId)],
    known_outputs: &HashMap<String, OutletId>,
    given: &[(usize, &crate::Tensor)],
    outputs: &[&str],
    weights: &mut Weights,
) -> TractResult<Plan> {
    let mut model = graph.clone();
    let known = || known_outputs.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let wanted = outputs
        .iter()
        .map(|name| {
            known_outputs
                .get(*name)
                .copied()
                .with_context(|| format!("the model has no output `{name}`; it has {}", known()))
        })
        .collect::<TractResult<Vec<_>>>()?;
    let needed = needed_nodes(&model, &wanted);
    let missing = inputs
        .iter()
        .enumerate()
        .find(|(at, (_, outlet))| needed.contains(&outlet.node) && !given.iter().any(|(g, _)| g == at));
    if let Some((_, (name, _))) = missing {
        bail!("the input `{name}` is missing");
    }
    let used: Vec<_> = given.iter().filter(|(at, _)| needed.contains(&inputs[*at].1.node)).collect();
    for (at, tensor) in &used {
        let (name, outlet) = &inputs[*at];
        let declared = model.outlet_fact(*outlet)?;
        let fact = InferenceFact::dt_shape(datum_type(tensor), tensor.shape());
        ensure!(
            takes(declared, &fact),
            "the input `{name}` is {:?} of shape {:?}, the model takes {declared:?}",
            datum_type(tensor),
            tensor.shape()
        );
        model.set_outlet_fact(*outlet, fact)?;
    }
    model.set_input_outlets(&used.iter().map(|(at, _)| inputs[*at].1).collect::<Vec<_>>())?;
    model.select_output_outlets(&wanted)?;
    let mut model = model.into_compact()?.into_optimized()?;
    weights.share(&mut model);
    Plan::new(model, used.iter().map(|(at, _)| *at).collect())
}

/// Whether an input declared as one fact, open where it names dimensions, takes the other, which is all numbers.
fn takes(declared: &InferenceFact, given: &InferenceFact) -> bool {
    let number = |dim: Option<TDim>| dim.and_then(|d| d.to_i64().ok());
    let fixed = declared.shape.dims().enumerate().filter_map(|(at, dim)| Some((at, number(dim.concretize())?)));
    let same_type = declared.datum_type().is_none_or(|kind| given.datum_type() == Some(kind));
    let same_rank = declared.shape.is_open() || declared.shape.dims().count() == given.shape.dims().count();
    let given_dims: Vec<_> = given.shape.dims().map(|dim| number(dim.concretize())).collect();
    same_type && same_rank && fixed.into_iter().all(|(at, dim)| given_dims.get(at) == Some(&Some(dim)))
}

/// The nodes `outlets` depend on.
fn needed_nodes(model: &InferenceModel, outlets: &[OutletId]) -> HashSet<usize> {
    let mut needed = HashSet::new();
    let mut waiting: Vec<usize> = outlets.iter().map(|o| o.node).collect();
    while let Some(node) = waiting.pop() {
        if needed.insert(node) {
            waiting.extend(model.node(node).inputs.iter().map(|o| o.node));
        }
    }
    needed
}
