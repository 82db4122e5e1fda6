//! A frozen backbone with adapters in it, loaded on an engine.

use std::collections::HashMap;
use std::path::PathBuf;

use fedtt_backbone::backbone::{Backbone, Role};
use fedtt_backbone::training::{
    LOSS, Norm, Pooling, STREAM, TRAIN, Task, TrainingError, TrainingGraph, TrainingSpec, gradient_of,
};
use fedtt_runtime::{Engine, EngineError, Session, SessionOptions, Tensor, Thrift};
use fedtt_tt::AdapterSet;
use ndarray::{ArrayD, Axis, IxDyn, concatenate};

use crate::batch::Batch;
use crate::streams::{StreamCache, feeds, named};

/// Gradients of the training graph's inputs, by input name.
pub type Gradients = HashMap<String, ArrayD<f32>>;

/// The graph input that is added to the logits.
const HEAD_BIAS: &str = "head.out.bias";

/// What is asked of a loaded model.
#[derive(Debug)]
pub enum Use {
    /// The forward pass alone.
    Forward,
    /// Forward and backward.
    Train,
    /// The same for the blocks from this one on, fed with the stored output of those below.
    TrainAbove(usize, StreamCache),
}

/// Backbone, adapters, head and loss, ready to run. The adapters' values are handed in with every run.
pub struct AdaptedModel {
    backbone: Backbone,
    sessions: Sessions,
    feeds: Vec<(Role, String)>,
    /// The factors with a gradient.
    trained: Vec<String>,
    result: &'static str,
    streams: Option<StreamCache>,
    thrift: Thrift,
}

enum Sessions {
    /// One session; the backward pass runs on demand.
    Shared(Box<dyn Session>),
    /// One session each, for engines without conditionals.
    Split { step: Box<dyn Session>, forward: Box<dyn Session> },
    /// The forward pass alone.
    Forward(Box<dyn Session>),
}

/// What becomes of the backbone's hidden states, and what of the backbone itself trains.
#[derive(Clone, Debug)]
pub struct Objective {
    /// The task with its size.
    pub task: Task,
    /// How hidden states are pooled for the head.
    pub pooling: Pooling,
    /// Norm gains that train with the adapters.
    pub norms: Vec<Norm>,
}

/// Results of a forward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The weighted sum of the batch's losses.
    pub loss: f32,
    /// Logits or predictions `[B, outputs]`; for language modelling each token's loss, `[B, S]`. At least of the rows that hold an
    /// example.
    pub result: ArrayD<f32>,
}

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No training graph could be made.
    #[error(transparent)]
    Graph(#[from] TrainingError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The adapter's settings or values do not fit.
    #[error(transparent)]
    Adapter(#[from] fedtt_tt::Error),
    /// The stored output of the lower blocks cannot be written or read.
    #[error("cache in {}: {source}", path.display())]
    Cache {
        /// Its folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A head without bias cannot have its logits shifted.
    #[error("the head has no bias to shift its logits by")]
    NoHeadBias,
    /// The engine's output is not what the graph promises.
    #[error("the engine returned no float32 tensor for `{0}`")]
    Output(String),
}

/// The graph that trains the forms of `set` for `objective`, from a block on, whose steps save memory and time by `thrift`.
pub(crate) fn training_graph(
    backbone: &Backbone,
    set: &AdapterSet,
    objective: &Objective,
    from_block: Option<usize>,
    thrift: Thrift,
) -> Result<TrainingGraph, TrainingError> {
    let spec = TrainingSpec {
        adapters: set.forms().into_iter().map(|(site, form)| (site.id, form)).collect(),
        head: set.head_form(),
        task: objective.task,
        pooling: objective.pooling,
        from_block,
        norms: objective.norms.clone(),
        frozen: set.parameters().into_iter().filter(|p| !p.trainable).map(|p| p.name).collect(),
    };
    Ok(TrainingGraph::build(backbone, &spec)?.with(thrift))
}

impl AdaptedModel {
    /// Grafts the forms of `set` into `backbone` and loads the result.
    ///
    /// # Errors
    /// When the graph cannot be differentiated or the engine refuses it.
    pub fn load(
        backbone: &Backbone,
        set: &AdapterSet,
        objective: &Objective,
        engine: &dyn Engine,
        options: &SessionOptions,
        purpose: Use,
    ) -> Result<Self, ModelError> {
        let from_block = match &purpose {
            Use::TrainAbove(block, _) => Some(*block),
            Use::Forward | Use::Train => None,
        };
        let thrift = engine.thrift();
        let graph = training_graph(backbone, set, objective, from_block, thrift)?;
        let sessions = match purpose {
            Use::Forward => Sessions::Forward(engine.load(&graph.forward(backbone)?, options)?),
            Use::Train | Use::TrainAbove(..) if engine.conditionals() => {
                Sessions::Shared(engine.load(&graph.shared(backbone)?, options)?)
            }
            Use::Train | Use::TrainAbove(..) => Sessions::Split {
                step: engine.load(&graph.step(backbone)?, options)?,
                forward: engine.load(&graph.forward(backbone)?, options)?,
            },
        };
        Ok(AdaptedModel {
            backbone: backbone.clone(),
            sessions,
            feeds: graph.feeds.clone(),
            trained: graph.trained.clone(),
            result: graph.result,
            thrift,
            streams: match purpose {
                Use::TrainAbove(_, streams) => Some(streams),
                Use::Forward | Use::Train => None,
            },
        })
    }

    /// The forward pass.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn forward(&mut self, set: &AdapterSet, batch: &Batch) -> Result<Outcome, ModelError> {
        let factors = factors(set);
        let mut outcomes = Vec::new();
        for turn in batch.split(self.thrift) {
            outcomes.extend(self.forward_parts(&factors, &turn)?);
        }
        let results: Vec<_> = outcomes.iter().map(|outcome| outcome.result.view()).collect();
        let result = concatenate(Axis(0), &results).map_err(|_| ModelError::Output(self.result.to_string()))?;
        Ok(Outcome { loss: outcomes.iter().map(|outcome| outcome.loss).sum(), result })
    }

    fn forward_parts(&mut self, factors: &[(String, Tensor)], parts: &[Batch]) -> Result<Vec<Outcome>, ModelError> {
        let inputs = self.inputs(parts)?;
        let (session, train) = match &mut self.sessions {
            Sessions::Shared(session) => (session, Some(false)),
            Sessions::Split { forward, .. } | Sessions::Forward(forward) => (forward, None),
        };
        let wanted = [LOSS.to_string(), self.result.to_string()];
        let outcome = |outputs: Vec<ArrayD<f32>>| {
            let mut outputs = outputs.into_iter();
            Outcome { loss: outputs.next().map_or(0.0, |loss| loss.sum()), result: outputs.next().unwrap_or_default() }
        };
        Ok(run(session.as_mut(), factors, train, &inputs, &wanted)?.into_iter().map(outcome).collect())
    }

    /// Forward and backward: the loss, with `shift` `[outputs]` added to the logits if there is one, and the gradient of every
    /// factor.
    ///
    /// # Errors
    /// When the engine fails, the model was loaded for [`Use::Forward`], or there is a shift and the head has no bias.
    pub fn step(
        &mut self,
        set: &AdapterSet,
        batch: &Batch,
        shift: Option<&ArrayD<f32>>,
    ) -> Result<(f32, Gradients), ModelError> {
        let mut factors = factors(set);
        if let Some(shift) = shift {
            // A bias is added to the logits as well.
            match factors.iter_mut().find(|(name, _)| name == HEAD_BIAS) {
                Some((_, Tensor::F32(bias))) => *bias += shift,
                _ => return Err(ModelError::NoHeadBias),
            }
        }
        let (mut loss, mut gradients) = (0.0, Gradients::new());
        for turn in batch.split(self.thrift) {
            for (of_part, by_input) in self.step_parts(&factors, &turn)? {
                loss += of_part;
                add(&mut gradients, by_input);
            }
        }
        Ok((loss, gradients))
    }

    fn step_parts(
        &mut self,
        factors: &[(String, Tensor)],
        parts: &[Batch],
    ) -> Result<Vec<(f32, Gradients)>, ModelError> {
        let inputs = self.inputs(parts)?;
        let (session, train) = match &mut self.sessions {
            Sessions::Shared(session) => (session, Some(true)),
            Sessions::Split { step, .. } => (step, None),
            Sessions::Forward(_) => {
                return Err(ModelError::Output("gradients: the model was loaded to predict".into()));
            }
        };
        let wanted: Vec<String> =
            std::iter::once(LOSS.to_string()).chain(self.trained.iter().map(|f| gradient_of(f))).collect();
        let by_input = |outputs: Vec<ArrayD<f32>>| {
            let mut outputs = outputs.into_iter();
            let loss = outputs.next().map_or(0.0, |loss| loss.sum());
            (loss, self.trained.iter().cloned().zip(outputs).collect())
        };
        Ok(run(session.as_mut(), factors, train, &inputs, &wanted)?.into_iter().map(by_input).collect())
    }

    /// What each part feeds.
    fn inputs(&mut self, parts: &[Batch]) -> Result<Vec<Vec<(String, Tensor)>>, ModelError> {
        let of_part = |part: &Batch| {
            let mut inputs = feeds(&self.backbone, part, &self.feeds);
            if let Some(streams) = &mut self.streams {
                inputs.push((STREAM.into(), Tensor::F32(streams.of(part)?)));
            }
            inputs.push(("labels".into(), part.labels.clone()));
            inputs.push(("weights".into(), part.weights.clone()));
            Ok(inputs)
        };
        parts.iter().map(of_part).collect()
    }
}

/// What the adapters feed, the same for every part of a batch.
fn factors(set: &AdapterSet) -> Vec<(String, Tensor)> {
    set.graph_inputs().into_iter().map(|(name, value)| (name, Tensor::F32(value))).collect()
}

/// Adds gradients to a sum.
pub(crate) fn add(sum: &mut Gradients, gradients: Gradients) {
    for (name, gradient) in gradients {
        match sum.get_mut(&name) {
            Some(sum) => *sum += &gradient,
            None => drop(sum.insert(name, gradient)),
        }
    }
}

/// Runs a session on each part's inputs, in a mode if it has two; the outputs of each.
fn run(
    session: &mut dyn Session,
    factors: &[(String, Tensor)],
    train: Option<bool>,
    parts: &[Vec<(String, Tensor)>],
    outputs: &[String],
) -> Result<Vec<Vec<ArrayD<f32>>>, ModelError> {
    let mode = train.map(|on| (TRAIN.to_string(), Tensor::Bool(ArrayD::from_elem(IxDyn(&[]), on))));
    let common = [named(factors), named(mode.as_slice())].concat();
    let parts: Vec<_> = parts.iter().map(|part| named(part)).collect();
    let names: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let float = |(tensor, name): (Tensor, &String)| match tensor {
        Tensor::F32(array) => Ok(array),
        _ => Err(ModelError::Output(name.clone())),
    };
    let floats = |tensors: Vec<Tensor>| match tensors.len() == outputs.len() {
        true => tensors.into_iter().zip(outputs).map(float).collect(),
        false => Err(ModelError::Output(outputs.join(", "))),
    };
    session.run_parts(&common, &parts, &names)?.into_iter().map(floats).collect()
}
