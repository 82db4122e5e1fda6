//! A plan's model on this machine.

use fedtt_runtime::{Engine, SessionOptions};
use fedtt_tt::{AdapterSet, Parameter};
use fedtt_wire::layout::starting;
use fedtt_wire::message::Measurement;
use fedtt_wire::{Layout, Plan};
use ndarray::ArrayD;

use super::plan::adapter_header;
use super::{LocalData, LocalError};
use crate::adapter_file::AdapterHeader;
use crate::batch::{BatchShape, EncodedSet};
use crate::data::Dataset;
use crate::evaluate::evaluate;
use crate::model::{AdaptedModel, Use};
use crate::prepare::Encoding;
use crate::source::Source;
use crate::task::TaskKind;
use crate::tokenize::TextEncoder;

/// The backbone with a plan's adapters on an engine. It holds nothing of a client: all clients of a thread can share it.
pub struct PlanModel {
    /// Its values are those of the last use.
    pub(super) set: AdapterSet,
    pub(super) model: AdaptedModel,
    pub(super) shape: BatchShape,
    pub(super) parameters: Vec<Parameter>,
    pub(super) layout: Layout,
    initial: Vec<ArrayD<f32>>,
    encoder: TextEncoder,
    vocabulary: Option<usize>,
    task: TaskKind,
    header: AdapterHeader,
}

impl PlanModel {
    /// Grafts the plan's adapters into the backbone of `source` and loads the result.
    ///
    /// # Errors
    /// When the plan is for another backbone, or its settings do not fit this one or the engine.
    pub fn load(
        plan: &Plan,
        source: &Source,
        engine: &dyn Engine,
        options: &SessionOptions,
    ) -> Result<Self, LocalError> {
        let header = adapter_header(plan, source)?;
        let encoder = source.encoder(plan.model.max_length)?;
        let objective = header.objective(source)?;
        let set = header.fresh(source, &objective)?;
        let model = AdaptedModel::load(&source.backbone, &set, &objective, engine, options, Use::Train)?;
        let parameters = set.parameters();
        Ok(PlanModel {
            layout: Layout::of(&parameters),
            initial: starting(&set),
            shape: BatchShape { rows: plan.local.batch, max_length: encoder.max_length(), pad_id: encoder.pad_id() },
            parameters,
            model,
            set,
            encoder,
            vocabulary: source.backbone.vocabulary(),
            task: plan.model.task.into(),
            header,
        })
    }

    /// The values a run begins with, in the order of the layout, from the plan's seed.
    pub fn initial(&self) -> &[ArrayD<f32>] {
        &self.initial
    }

    /// What an adapter of the plan is for.
    pub fn header(&self) -> &AdapterHeader {
        &self.header
    }

    /// The tensors of the global state.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The same with their roles.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The adapters with the values given, to be written to a file.
    ///
    /// # Errors
    /// When the values are not the layout's.
    pub fn adapters(&mut self, values: &[ArrayD<f32>]) -> Result<AdapterSet, LocalError> {
        self.assign(values)?;
        Ok(self.set.clone())
    }

    /// Ids and targets of every example, with the plan's classes or scale.
    ///
    /// # Errors
    /// When a text or a label does not fit; with file and line.
    pub fn encode(&self, data: &Dataset) -> Result<EncodedSet, LocalError> {
        let encoding = Encoding {
            encoder: &self.encoder,
            vocabulary: self.vocabulary,
            task: self.task,
            labels: self.header.labels.as_ref(),
            scale: self.header.scale,
        };
        Ok(encoding.labelled(data)?)
    }

    /// A device's data for `plan`: encoded, with the plan's share held out.
    ///
    /// # Errors
    /// As [`PlanModel::encode`].
    pub fn data(&self, plan: &Plan, data: &Dataset) -> Result<LocalData, LocalError> {
        Ok(LocalData::split(plan, self.encode(data)?))
    }

    /// Measures global values on `examples`.
    ///
    /// # Errors
    /// When the values are not the layout's, the engine fails or the loss is not finite.
    pub fn measure(&mut self, globals: &[ArrayD<f32>], examples: &EncodedSet) -> Result<Measurement, LocalError> {
        self.assign(globals)?;
        self.measure_assigned(examples)
    }

    pub(super) fn measure_assigned(&mut self, examples: &EncodedSet) -> Result<Measurement, LocalError> {
        let evaluation = evaluate(&mut self.model, &self.set, examples, self.shape, self.header.scale)?;
        if !evaluation.loss.is_finite() {
            return Err(LocalError::Diverged { loss: evaluation.loss as f32, step: 0 });
        }
        let (metric, value) = evaluation.headline();
        Ok(Measurement {
            examples: evaluation.examples as u64,
            loss: evaluation.loss,
            metric: metric.to_string(),
            value,
        })
    }

    pub(super) fn assign(&mut self, values: &[ArrayD<f32>]) -> Result<(), LocalError> {
        let unfit = |source| LocalError::Values { what: "the global state", source };
        self.layout.check(values).map_err(unfit)?;
        for (mut own, value) in self.set.values_mut().into_iter().zip(values) {
            own.assign(value);
        }
        Ok(())
    }
}
