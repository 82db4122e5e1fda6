//! The training graph: backbone, grafts, head and loss, differentiated.

mod footprint;
mod layout;
mod loss;
mod norms;
mod recompute;
mod scale;

use std::collections::HashSet;

use fedtt_runtime::{Model, Thrift};
use fedtt_tt::form::{AdapterForm, HeadForm};
use ndarray::ArrayD;

use crate::backbone::{Backbone, Output, Role};
use crate::export::{ExportError, to_model};
use crate::graft::{Graft, GraftError, Grafted, add_input, graft};
use crate::ir::{Builder, DType, Graph, Port, Weight};
use crate::rows;
use crate::shape::{Dim, Facts};
use crate::sites::Site;
use crate::unpack::unpack_in_place_of_use;
use crate::vjp::{VjpError, differentiate};

pub use footprint::Footprint;
pub use loss::{Pooling, Task};
pub use norms::{Norm, norms};

use recompute::Stage;
pub(crate) use scale::computes_in;
use scale::differentiate_scaled;

/// Graph input that replaces the blocks below [`TrainingSpec::from_block`].
pub const STREAM: &str = "stream";
/// Scalar output: the weighted sum of losses.
pub const LOSS: &str = "loss";
/// Output of classification and regression: `[batch, classes or targets]`.
pub const LOGITS: &str = "logits";
/// The output that carries what a graph of probes has its loss of.
pub const PROBED: &str = "probed";
/// Output of causal language modelling: the loss of each token, `[batch, sequence]`.
pub const TOKEN_LOSS: &str = "token_loss";

/// What to train.
#[derive(Clone, Debug)]
pub struct TrainingSpec {
    /// Site ids with the adapter grafted there.
    pub adapters: Vec<(String, AdapterForm)>,
    /// Factors, by the names of their graph inputs, that do not train: no gradient is made for them.
    pub frozen: Vec<String>,
    /// The head; required unless the task is causal language modelling.
    pub head: Option<HeadForm>,
    /// The task.
    pub task: Task,
    /// How hidden states are pooled for the head.
    pub pooling: Pooling,
    /// Leave out the blocks below this one and feed their output as [`STREAM`] instead.
    pub from_block: Option<usize>,
    /// Norm gains trained as well, from [`norms`]; none by default.
    pub norms: Vec<Norm>,
}

/// Why a training graph could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// An adapter names a site the backbone lacks.
    #[error("the backbone has no site `{site}`; it has: {known}")]
    UnknownSite {
        /// The site asked for.
        site: String,
        /// The sites there are.
        known: String,
    },
    /// The task needs something the specification or the backbone does not have.
    #[error("{0}")]
    Task(String),
    /// An adapter lies below the block training starts from.
    #[error("site `{site}` lies below block {block}, from which training starts")]
    BelowStart {
        /// The site.
        site: String,
        /// The first block trained.
        block: usize,
    },
    /// A graft does not fit.
    #[error(transparent)]
    Graft(#[from] GraftError),
    /// Something on the way has no gradient.
    #[error(transparent)]
    Vjp(#[from] VjpError),
    /// The graph could not be written as ONNX.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// A differentiated graph, ready to be laid out for an engine.
pub struct TrainingGraph {
    graph: Graph,
    /// Backbone inputs to feed, by role.
    pub feeds: Vec<(Role, String)>,
    /// Factor inputs, in the order of the specification's adapters, then the head, then the norm gains.
    pub factors: Vec<String>,
    /// Those of them that have a gradient.
    pub trained: Vec<String>,
    /// The output with the task's results: [`LOGITS`] or [`TOKEN_LOSS`].
    pub result: &'static str,
    /// The value people want of a trained model: classes' logits, predictions, the next token's logits.
    answer: String,
    forward: Vec<String>,
    gradients: Vec<String>,
    stages: Vec<Stage>,
    /// Whether engines get chains of element-wise operators as row programs.
    fuse: bool,
}

/// The input that says which positions are pooled, where the backbone takes no mask.
const POOLING_MASK: &str = "pooling_mask";

/// What a graph computes from the backbone's output.
struct Top<'a> {
    /// The backbone's output in single precision, which head and loss read.
    output: &'a str,
    /// The head's factors.
    head: &'a [String],
    /// The loss, a scalar.
    loss: &'a str,
    /// The result's name as an output, and its value.
    result: (&'static str, &'a str),
}

/// The output that carries the gradient of input `name`.
pub fn gradient_of(name: &str) -> String {
    format!("grad.{name}")
}

impl TrainingGraph {
    /// Grafts, adds head and loss, and differentiates.
    ///
    /// # Errors
    /// When a site is unknown, an adapter or head does not fit, or an operator on the way has no gradient.
    pub fn build(backbone: &Backbone, spec: &TrainingSpec) -> Result<Self, TrainingError> {
        let anatomy = &backbone.anatomy;
        let target = match spec.task {
            Task::CausalLm => backbone.causal_logits().map_err(|why| TrainingError::Task(why.into()))?.to_string(),
            _ => anatomy.hidden_state.clone(),
        };
        let mut graph = backbone.graph.clone();
        retarget(&mut graph, &[&target], &backbone.facts);
        let mut facts = backbone.facts.clone();
        if let Some(block) = spec.from_block.filter(|&block| block > 0) {
            start_from(&mut graph, &mut facts, backbone, spec, block)?;
        }
        norms::into_inputs(&mut graph, &mut facts, &spec.norms);
        let grafts = resolve(backbone, spec)?;
        let mut g = graft(&graph, &facts, &grafts)?;
        let target = g.value(&target);
        let target = g.builder.cast(&target, DType::F32);
        let grafted = g.inputs.len();
        let (result, outputs) = match (&spec.head, spec.task) {
            (_, Task::CausalLm) => (TOKEN_LOSS, target.clone()),
            (Some(head), _) => {
                let mask = backbone.input(Role::Mask).unwrap_or(POOLING_MASK);
                if !g.builder.graph.inputs.iter().any(|p| p.name == mask) {
                    add_input(&mut g.builder, mask, DType::I64, &[Dim::symbol("batch"), Dim::symbol("sequence")]);
                }
                (LOGITS, loss::pooled_head(&mut g, &target, mask, spec.pooling, head))
            }
            (None, _) => return Err(TrainingError::Task("classification and regression need a head".into())),
        };
        check_head(&g, spec, &outputs)?;
        let head = g.inputs[grafted..].to_vec();
        g.inputs.extend(spec.norms.iter().map(|norm| norm.name.clone()));
        let answer = outputs.clone();
        let loss = loss::loss(&mut g.builder, &outputs, spec.task);
        let lowest = grafts.iter().map(|(site, _)| site.block).min().unwrap_or_default();
        let streams = anatomy.streams.iter().skip(lowest.max(spec.from_block.unwrap_or_default()));
        let streams: Vec<String> = streams.flatten().map(|stream| g.value(stream)).collect();
        let trained = g.inputs.iter().filter(|factor| !spec.frozen.contains(factor)).cloned().collect();
        let top = Top { output: &target, head: &head, loss: &loss.loss, result: (result, &loss.result) };
        let mut built = Self::differentiated(backbone, g, trained, &top, &streams)?;
        if spec.task == Task::CausalLm {
            built.answer = answer;
        }
        Ok(built)
    }

    /// A graph with a probe at every site and the loss `sum(output * R * mask)`; besides [`LOSS`] and the probes'
    /// gradients it returns [`PROBED`], the output.
    ///
    /// # Errors
    /// As [`TrainingGraph::build`].
    pub fn probes(backbone: &Backbone, output: Output<'_>) -> Result<Self, TrainingError> {
        let mut graph = backbone.graph.clone();
        retarget(&mut graph, &[output.value], &backbone.facts);
        let sites = backbone.anatomy.sites.iter();
        let grafts: Vec<(Site, Graft)> = sites.map(|site| (site.clone(), Graft::Probe)).collect();
        let mut g = graft(&graph, &backbone.facts, &grafts)?;
        let value = g.value(output.value);
        let value = g.builder.cast(&value, DType::F32);
        let mask = backbone.input(Role::Mask).filter(|mask| g.builder.graph.inputs.iter().any(|p| p.name == *mask));
        let loss = loss::probe_loss(&mut g.builder, &value, mask, output.width);
        let probes = g.inputs.clone();
        let top = Top { output: &value, head: &[], loss: &loss, result: (PROBED, &value) };
        Self::differentiated(backbone, g, probes, &top, &[])
    }

    fn differentiated(
        backbone: &Backbone,
        mut g: Grafted,
        trained: Vec<String>,
        top: &Top<'_>,
        streams: &[String],
    ) -> Result<Self, TrainingError> {
        let b = &mut g.builder;
        let one = b.constant("seed", Weight::f32s(&[], &[1.0]));
        let seed = (top.loss.to_string(), one);
        // The lowest stream's cotangent nobody needs.
        let others = streams.get(1..).unwrap_or_default();
        let cotangents = if computes_in(backbone, DType::F16) {
            let head: Vec<String> = top.head.iter().filter(|factor| trained.contains(factor)).cloned().collect();
            differentiate_scaled(b, seed, top.output, &head, &trained, others)?
        } else {
            differentiate(b, &[seed], &[&trained, others].concat())?
        };
        let leaving = streams.iter().skip(1).map(Some).chain([None]);
        let stage = |(stream, leaving): (&String, Option<&String>)| Stage {
            stream: stream.clone(),
            arriving: leaving.and_then(|leaving| cotangents.get(leaving)).cloned(),
        };
        let stages = streams.iter().zip(leaving).map(stage).collect();
        let mut forward = Vec::new();
        for (name, value) in [top.result, (LOSS, top.loss)] {
            forward.push(name_output(b, value, name));
        }
        let mut gradients = Vec::new();
        for factor in &trained {
            let gradient = cotangents.get(factor).ok_or_else(|| {
                TrainingError::Task(format!(
                    "the loss does not depend on `{factor}`; its site does not reach the output"
                ))
            })?;
            gradients.push(name_output(b, gradient, &gradient_of(factor)));
        }
        let mut graph = g.builder.graph;
        graph.outputs = [forward.clone(), gradients.clone()].concat().iter().map(|name| output_port(name)).collect();
        graph.prune();
        drop_unread_inputs(&mut graph);
        let own = backbone.input(Role::Mask).is_none().then(|| (Role::Mask, POOLING_MASK.to_string()));
        let feeds = backbone.feeds.iter().cloned().chain(own);
        Ok(TrainingGraph {
            feeds: feeds.filter(|(_, name)| graph.inputs.iter().any(|p| p.name == *name)).collect(),
            factors: g.inputs,
            trained,
            result: top.result.0,
            answer: top.result.0.into(),
            forward,
            gradients,
            stages,
            fuse: false,
            graph,
        })
    }

    /// The same made for steps that save memory and time by `thrift`. A backward pass that computes what it reads of a block again,
    /// when it comes to it, takes a third more time, and memory for one block's values and what enters each.
    pub fn with(mut self, thrift: Thrift) -> Self {
        if thrift.recompute {
            self.graph = recompute::recompute(&self.graph, &self.forward, &self.stages);
        }
        TrainingGraph { fuse: thrift.fuse, ..self }
    }

    /// The graph as engines run it: 8-bit weights unpacked where they are used, chains of operators fused where the engine can.
    fn for_engines(&self, mut graph: Graph) -> Graph {
        unpack_in_place_of_use(&mut graph);
        if self.fuse {
            let early = layout::made(&layout::forward_pass(&graph, &self.forward)).map(str::to_string).collect();
            let facts = Facts::of_graph(&graph);
            rows::fuse(&mut graph, &facts, &early);
        }
        graph
    }

    /// Forward and backward in one model.
    ///
    /// # Errors
    /// When the graph cannot be written.
    pub fn step(&self, backbone: &Backbone) -> Result<Model, TrainingError> {
        Ok(to_model(&self.for_engines(self.graph.clone()), backbone.weights.as_ref())?)
    }

    /// The forward pass alone.
    ///
    /// # Errors
    /// When the graph cannot be written.
    pub fn forward(&self, backbone: &Backbone) -> Result<Model, TrainingError> {
        let graph = self.for_engines(layout::forward_pass(&self.graph, &self.forward));
        Ok(to_model(&graph, backbone.weights.as_ref())?)
    }

    /// A graph for those who use what was trained: the factors' values are among its weights, and its one output, [`LOGITS`],
    /// is the logits or predictions.
    ///
    /// # Errors
    /// When a factor has no value.
    pub fn applied(&self, values: &[(String, ArrayD<f32>)]) -> Result<Graph, TrainingError> {
        let mut graph = self.graph.clone();
        for (name, value) in values {
            let data: Vec<f32> = value.iter().copied().collect();
            graph.weights.insert(name.clone(), Weight::f32s(value.shape(), &data));
        }
        if let Some(missing) = self.factors.iter().find(|&name| !graph.weights.contains_key(name)) {
            return Err(TrainingError::Task(format!("no value is given for `{missing}`")));
        }
        graph.inputs.retain(|port| !graph.weights.contains_key(&port.name));
        let mut b = Builder::new(graph, Facts::default());
        let output = if self.answer == LOGITS { LOGITS.to_string() } else { named_logits(&mut b, &self.answer) };
        let mut graph = b.graph;
        graph.outputs = vec![output_port(&output)];
        graph.prune();
        drop_unread_inputs(&mut graph);
        Ok(graph)
    }

    /// Forward always, backward inside `If(train)`: one session and one set of weights for training and evaluation.
    /// Gradients are empty when the boolean input [`layout::TRAIN`] is false.
    ///
    /// # Errors
    /// When the graph cannot be written.
    pub fn shared(&self, backbone: &Backbone) -> Result<Model, TrainingError> {
        let graph = self.for_engines(self.graph.clone());
        let graph = layout::conditional(&graph, &self.forward, &self.gradients);
        Ok(to_model(&graph, backbone.weights.as_ref())?)
    }
}

pub use layout::TRAIN;

/// A model that computes the residual stream entering `block`, as the output [`STREAM`], `[batch, sequence, width]`.
///
/// # Errors
/// When no single stream enters the block or the graph cannot be written.
pub fn lower_blocks(backbone: &Backbone, block: usize) -> Result<Model, TrainingError> {
    let stream = stream_into(backbone, block)?;
    let mut graph = backbone.graph.clone();
    retarget(&mut graph, &[&stream], &backbone.facts);
    let mut b = Builder::new(graph, backbone.facts.clone());
    let value = b.cast(&stream, DType::F32);
    let ids = backbone.input(Role::Ids).unwrap_or_default().to_string();
    let leading = b.op("Shape", &[&ids], &[]);
    let width = b.ints(&[backbone.stream_width(block) as i64]);
    let shape = b.op("Concat", &[&leading, &width], &[("axis", crate::ir::Attr::Int(0))]);
    b.push("Reshape", &[&value, &shape], &[STREAM], &[]);
    let mut graph = b.graph;
    graph.outputs = vec![output_port(STREAM)];
    graph.prune();
    drop_unread_inputs(&mut graph);
    Ok(backbone.export(&graph)?)
}

fn stream_into(backbone: &Backbone, block: usize) -> Result<String, TrainingError> {
    let no_cut = || {
        TrainingError::Task(format!("no single value enters block {block}; train with all blocks in the graph instead"))
    };
    backbone.anatomy.streams.get(block).cloned().flatten().ok_or_else(no_cut)
}

/// Replaces the stream into `block` by a graph input and drops what lies below.
fn start_from(
    graph: &mut Graph,
    facts: &mut Facts,
    backbone: &Backbone,
    spec: &TrainingSpec,
    block: usize,
) -> Result<(), TrainingError> {
    let is_below = |id: &str| backbone.site(id).is_some_and(|site| site.block < block);
    if let Some((site, _)) = spec.adapters.iter().find(|(id, _)| is_below(id)) {
        return Err(TrainingError::BelowStart { site: site.clone(), block });
    }
    let stream = stream_into(backbone, block)?;
    let nodes = std::mem::take(&mut graph.nodes);
    let mut b = Builder::new(std::mem::take(graph), std::mem::take(facts));
    let original = Graph { nodes, ..Graph::default() };
    b.reserve(&original);
    let width = backbone.stream_width(block) as i64;
    add_input(&mut b, STREAM, DType::F32, &[Dim::symbol("batch"), Dim::symbol("sequence"), Dim::known(width)]);
    let mut value = STREAM.to_string();
    if b.facts.rank(&stream) == Some(2) {
        let flat = b.ints(&[-1, width]);
        value = b.op("Reshape", &[&value, &flat], &[]);
    }
    if let Some(dtype) = b.facts.dtype(&stream) {
        value = b.cast(&value, dtype);
    }
    for node in original.nodes {
        b.push_known(node);
    }
    *graph = b.graph;
    *facts = b.facts;
    graph.redirect(&stream, &value);
    graph.prune();
    drop_unread_inputs(graph);
    Ok(())
}

fn resolve(backbone: &Backbone, spec: &TrainingSpec) -> Result<Vec<(Site, Graft)>, TrainingError> {
    let adapters = spec.adapters.iter();
    adapters
        .map(|(id, form)| {
            let site = backbone.site(id).ok_or_else(|| TrainingError::UnknownSite {
                site: id.clone(),
                known: backbone.sites().map(|s| s.id.as_str()).collect::<Vec<_>>().join(", "),
            })?;
            Ok((site.clone(), Graft::Adapter(form.clone())))
        })
        .collect()
}

fn check_head(g: &Grafted, spec: &TrainingSpec, outputs: &str) -> Result<(), TrainingError> {
    let expected = match spec.task {
        Task::Classify { classes } => classes,
        Task::Regress { targets } => targets,
        Task::CausalLm => return Ok(()),
    };
    let width = g.builder.facts.shape(outputs).and_then(|s| s.last()?.as_known());
    if width == Some(expected as i64) {
        return Ok(());
    }
    let width = width.map_or("an unknown number of".to_string(), |w| w.to_string());
    Err(TrainingError::Task(format!("the head makes {width} outputs where the task has {expected}")))
}

/// Keeps only `outputs`, and only what they need.
fn retarget(graph: &mut Graph, outputs: &[&str], facts: &Facts) {
    let port =
        |name: &&str| Port { name: name.to_string(), dtype: facts.dtype(name).unwrap_or(DType::F32), shape: None };
    graph.outputs = outputs.iter().map(port).collect();
    graph.prune();
}

fn name_output(b: &mut Builder, value: &str, name: &str) -> String {
    b.push("Identity", &[value], &[name], &[]);
    name.to_string()
}

/// The same value as [`LOGITS`], or under a name like it where the graph has another value of that name.
fn named_logits(b: &mut Builder, value: &str) -> String {
    let taken = b.graph.nodes.iter().any(|node| node.outputs.iter().any(|output| output == LOGITS));
    let name = if taken { b.fresh(LOGITS) } else { LOGITS.to_string() };
    name_output(b, value, &name)
}

fn output_port(name: &str) -> Port {
    Port { name: name.to_string(), dtype: DType::F32, shape: None }
}

/// Drops graph inputs nothing reads: an engine may refuse or ignore them, and nobody should have to feed them.
fn drop_unread_inputs(graph: &mut Graph) {
    let read: HashSet<String> = graph.nodes.iter().flat_map(|n| n.reads().into_iter().map(str::to_string)).collect();
    graph.inputs.retain(|port| read.contains(&port.name));
}
