//! What does a device's local work.

use std::collections::VecDeque;
use std::sync::Arc;

use fedtt_runtime::{Engine, SessionOptions};
use fedtt_wire::message::RunPlan;
use fedtt_wire::plan::Task;
use fedtt_wire::{DeviceName, RunId};

use super::{Data, Settings};
use crate::data::{Dataset, ReadOptions};
use crate::local::{LocalData, LocalError, LocalResult, PlanModel, RoundWork, Stepped};
use crate::round::{Job, Prepared};
use crate::source::Source;
use crate::task::TaskKind;

/// So many runs' models are kept loaded.
const LOADED: usize = 2;

/// Does a device's local work, on the training thread. What it returns goes to the host as it is.
pub trait Worker: Send {
    /// Loads what a plan needs.
    ///
    /// # Errors
    /// Why the device cannot take part in the run.
    fn prepare(&mut self, plan: &Arc<RunPlan>) -> Result<Prepared, LocalError>;

    /// Does a round's work; ends soon once `stop` says so.
    ///
    /// # Errors
    /// Why the device makes nothing of the round.
    fn train(
        &mut self,
        job: &Job,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Stepped),
    ) -> Result<LocalResult, LocalError>;

    /// Unloads what is there for a run, or for all after a panic.
    fn forget(&mut self, run: Option<&RunId>);
}

/// Training on the device's backbones and data.
pub(super) struct Training {
    device: DeviceName,
    sources: Vec<Arc<Source>>,
    data: Data,
    engine: Box<dyn Engine>,
    options: SessionOptions,
    loaded: VecDeque<Loaded>,
}

/// A run's model and examples.
struct Loaded {
    plan: Arc<RunPlan>,
    model: PlanModel,
    data: LocalData,
}

impl Training {
    pub(super) fn new(settings: &Settings, engine: Box<dyn Engine>) -> Self {
        Training {
            device: settings.name.clone(),
            sources: settings.sources.clone(),
            data: settings.data.clone(),
            engine,
            options: SessionOptions { threads: settings.engine.threads, ..SessionOptions::default() },
            loaded: VecDeque::new(),
        }
    }

    fn load(&mut self, plan: &Arc<RunPlan>) -> Result<&mut Loaded, LocalError> {
        match self.loaded.iter().position(|loaded| loaded.plan == *plan) {
            Some(place) => {
                let found = self.loaded.remove(place);
                self.loaded.extend(found);
            }
            None => {
                let wanted = &plan.plan.model.bundle;
                let source = self.sources.iter().find(|source| source.hash == *wanted);
                let source = source.ok_or_else(|| LocalError::OtherBackbone {
                    wanted: wanted.clone(),
                    found: self.sources.first().map_or_else(String::new, |source| source.hash.clone()),
                    name: self.sources.first().map_or_else(|| "no backbone".into(), |source| source.name.clone()),
                })?;
                // Room first: two models at a time may be more than the device has memory for.
                while self.loaded.len() >= LOADED {
                    self.loaded.pop_front();
                }
                let model = PlanModel::load(&plan.plan, source, self.engine.as_ref(), &self.options)?;
                let data = model.data(&plan.plan, &self.data.read(plan.plan.model.task)?)?;
                self.loaded.push_back(Loaded { plan: plan.clone(), model, data });
            }
        }
        self.loaded.back_mut().ok_or(LocalError::Empty)
    }
}

impl Worker for Training {
    fn prepare(&mut self, plan: &Arc<RunPlan>) -> Result<Prepared, LocalError> {
        let loaded = self.load(plan)?;
        let held_out = loaded.data.held_out.as_ref().map_or(0, |set| set.rows.len());
        Ok(Prepared {
            layout: loaded.model.layout().clone(),
            initial: loaded.model.initial().to_vec(),
            examples: (loaded.data.train.rows.len() + held_out) as u64,
        })
    }

    fn train(
        &mut self,
        job: &Job,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Stepped),
    ) -> Result<LocalResult, LocalError> {
        let device = self.device.clone();
        let loaded = self.load(&job.plan)?;
        let round = RoundWork {
            round: job.round,
            goal: job.goal,
            mask: &job.mask,
            rate: job.rate,
            globals: &job.globals,
            device: &device,
        };
        loaded.model.train(&job.plan.plan, &round, &loaded.data, &job.memory, stop, progress)
    }

    fn forget(&mut self, run: Option<&RunId>) {
        self.loaded.retain(|loaded| run.is_some_and(|run| loaded.plan.run != *run));
    }
}

impl Data {
    /// The examples, for a task.
    fn read(&self, task: Task) -> Result<Dataset, LocalError> {
        match self {
            Data::Given(data) => Ok(data.as_ref().clone()),
            Data::Files { paths, options } => {
                let task = match task {
                    Task::Classify => TaskKind::Classify,
                    Task::Regress => TaskKind::Regress,
                    Task::Lm => TaskKind::Lm,
                };
                let options = ReadOptions { task, labelled: task != TaskKind::Lm, ..options.clone() };
                let mut all = Dataset { name: String::new(), examples: Vec::new() };
                for path in paths {
                    let data = Dataset::read(path, &options)?;
                    all.name = if all.name.is_empty() { data.name } else { format!("{}, {}", all.name, data.name) };
                    all.examples.extend(data.examples);
                }
                Ok(all)
            }
        }
    }
}
