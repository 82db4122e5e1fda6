//! What does a device's local work.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fedtt_runtime::{Engine, EngineConfig, SessionOptions, expected, select};
use fedtt_wire::message::RunPlan;
use fedtt_wire::plan::Task;
use fedtt_wire::{DeviceName, RunId};

use super::Data;
use super::adopting::{Adopted, adopt};
use super::stamps::Stamps;
use super::workshop::Place;
use crate::adapters::Adapters;
use crate::data::{Dataset, ReadOptions};
use crate::fetch::Shelf;
use crate::local::{LocalData, LocalError, LocalResult, PlanModel, RoundWork, Stepped};
use crate::need::{Holder, Need};
use crate::round::{Adoption, Job, Prepared};
use crate::source::{Available, FieldSplit, field_reports};
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

    /// Bytes of memory that a plan's work will take beyond what the process has already.
    fn need(&mut self, plan: &RunPlan) -> u64 {
        let _ = plan;
        0
    }

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

    /// Checks a global state and uses it from then on.
    ///
    /// # Errors
    /// Why what is in use stays in use.
    fn adopt(&mut self, adoption: &Adoption) -> Result<(), String> {
        let _ = adoption;
        Ok(())
    }

    /// There are these backbones by now, in place of those before. Examples that have changed are read again as they are needed.
    fn work_with(&mut self, sources: Vec<Available>) {
        let _ = sources;
    }

    /// Unloads what is there for a run, or for all: after a panic, or when nothing has been asked for long.
    fn forget(&mut self, run: Option<&RunId>);
}

/// Training on the device's backbones and data.
pub(super) struct Training {
    device: DeviceName,
    sources: Vec<Available>,
    data: Data,
    config: EngineConfig,
    /// Selected with the first model that is loaded.
    engine: Option<Box<dyn Engine>>,
    options: SessionOptions,
    loaded: VecDeque<Loaded>,
    shelf: Shelf,
    adapters: Adapters,
    /// What each run's work takes, with the bundle that was foreseen from.
    needs: BTreeMap<RunId, (String, u64)>,
}

/// A run's model and examples.
struct Loaded {
    plan: Arc<RunPlan>,
    model: PlanModel,
    data: LocalData,
    /// Of the files the data is from, before they were read.
    stamps: Stamps,
    adopted: Option<Adopted>,
}

impl Training {
    pub(super) fn new(place: Place) -> Self {
        let Place { device, sources, data, engine: config, state } = place;
        Training {
            device,
            sources,
            data,
            engine: None,
            options: SessionOptions { threads: config.threads, ..SessionOptions::default() },
            config,
            loaded: VecDeque::new(),
            shelf: Shelf::of(&state),
            adapters: Adapters::of(&state),
            needs: BTreeMap::new(),
        }
    }

    /// The backbone of that hash.
    fn source(&self, wanted: &str) -> Result<Available, LocalError> {
        let source = match self.sources.iter().find(|source| source.hash == wanted) {
            Some(source) => Some(source.clone()),
            None => self.shelf.find(wanted)?,
        };
        source.ok_or_else(|| LocalError::OtherBackbone {
            wanted: wanted.to_string(),
            found: self.sources.first().map_or_else(String::new, |source| source.hash.clone()),
            name: self.sources.first().map_or_else(|| "no backbone".into(), |source| source.name.clone()),
        })
    }

    /// Memory that a plan's work takes.
    fn foresee(&self, plan: &RunPlan) -> Result<u64, LocalError> {
        let (holder, thrift) = match &self.engine {
            Some(engine) => (Holder::of(engine.as_ref()), engine.thrift()),
            None => {
                let engine = expected(&self.config)?;
                (Holder::expected(&engine), engine.thrift)
            }
        };
        let source = self.source(&plan.plan.model.bundle)?.open()?;
        Ok(Need::of_plan(&plan.plan, &source, holder, thrift)?.bytes())
    }

    /// A run's model, and the examples as they are now.
    fn load(&mut self, plan: &Arc<RunPlan>) -> Result<&mut Loaded, LocalError> {
        let stamps = Stamps::of_data(&self.data);
        match self.loaded.iter().position(|loaded| loaded.plan == *plan) {
            Some(place) => {
                let found = self.loaded.remove(place);
                self.loaded.extend(found);
            }
            None => {
                let source = self.source(&plan.plan.model.bundle)?;
                // Room first: two models at a time may be more than the device has memory for.
                while self.loaded.len() >= LOADED {
                    self.loaded.pop_front();
                }
                let engine = match &mut self.engine {
                    Some(engine) => engine,
                    none => none.insert(select(&self.config)?),
                };
                let model = PlanModel::load(&plan.plan, &*source.open()?, engine.as_ref(), &self.options)?;
                let data = model.data(&plan.plan, &self.data.read(plan.plan.model.task)?)?;
                self.loaded.push_back(Loaded { plan: plan.clone(), model, data, stamps, adopted: None });
                return self.loaded.back_mut().ok_or(LocalError::Empty);
            }
        }
        let loaded = self.loaded.back_mut().ok_or(LocalError::Empty)?;
        if loaded.stamps != stamps {
            loaded.data = loaded.model.data(&plan.plan, &self.data.read(plan.plan.model.task)?)?;
            // What the adapter in use measured was on others.
            (loaded.stamps, loaded.adopted) = (stamps, None);
        }
        Ok(loaded)
    }
}

impl Worker for Training {
    fn need(&mut self, plan: &RunPlan) -> u64 {
        if self.loaded.iter().any(|loaded| loaded.plan.plan == plan.plan) {
            return 0;
        }
        let known = self.needs.get(&plan.run).filter(|(of, _)| *of == plan.plan.model.bundle).map(|(_, need)| *need);
        known.unwrap_or_else(|| {
            // What is wrong with a plan shows when it is prepared.
            let need = self.foresee(plan).unwrap_or(0);
            self.needs.insert(plan.run.clone(), (plan.plan.model.bundle.clone(), need));
            need
        })
    }

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

    fn adopt(&mut self, adoption: &Adoption) -> Result<(), String> {
        let adapters = self.adapters.clone();
        let loaded = self.load(&adoption.plan).map_err(|e| e.to_string())?;
        if loaded.adopted.as_ref().is_some_and(|adopted| adopted.is(adoption.digest)) {
            return Ok(());
        }
        let Loaded { model, data, adopted, .. } = loaded;
        *adopted = Some(adopt(&adapters, adoption, model, data, adopted.as_ref()).map_err(|e| e.to_string())?);
        Ok(())
    }

    fn work_with(&mut self, sources: Vec<Available>) {
        self.sources = sources;
    }

    fn forget(&mut self, run: Option<&RunId>) {
        self.loaded.retain(|loaded| run.is_some_and(|run| loaded.plan.run != *run));
        self.needs.retain(|of, _| run.is_some_and(|run| of != run));
    }
}

impl Data {
    /// The examples, for a task.
    fn read(&self, task: Task) -> Result<Dataset, LocalError> {
        match self {
            Data::Embedded => Ok(field_reports(FieldSplit::Train)),
            Data::Given(data) => Ok(data.as_ref().clone()),
            Data::Files { paths, options } => {
                let task = TaskKind::from(task);
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
