//! Measures global adapters on the host's own examples, on a thread of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use fedtt_edge::batch::EncodedSet;
use fedtt_edge::data::Dataset;
use fedtt_edge::local::PlanModel;
use fedtt_runtime::{EngineConfig, SessionOptions, select};
use fedtt_wire::plan::Task;
use fedtt_wire::{Plan, RunId};
use ndarray::ArrayD;
use tokio::sync::mpsc::UnboundedSender;

use super::registry::{Registry, Tests};
use super::tell::Teller;
use crate::coordinator::Input;
use crate::record::Measured;

/// Models kept loaded, one per run.
const LOADED: usize = 4;

/// Values to be measured.
pub(super) struct Job {
    pub(super) run: RunId,
    pub(super) round: u32,
    pub(super) plan: Plan,
    pub(super) tests: Tests,
    pub(super) values: Vec<ArrayD<f32>>,
}

/// The thread that measures.
pub(super) struct Measuring(Sender<Order>);

enum Order {
    Measure(Box<Job>),
    /// A run is over: its model is not kept loaded.
    Forget(RunId),
}

struct Loaded {
    model: PlanModel,
    examples: EncodedSet,
}

impl Measuring {
    /// Starts the thread; what it measured goes to `done`.
    pub(super) fn start(
        registry: Arc<Registry>,
        done: UnboundedSender<Input>,
        teller: Teller,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        // Not joined: what it measures when the host stops is measured for nobody.
        let _thread = std::thread::Builder::new()
            .name("measuring".into())
            .spawn(move || work(&queue, &registry, &done, &teller))?;
        Ok(Measuring(jobs))
    }

    pub(super) fn measure(&self, job: Job) {
        // An error: the thread has panicked, which costs the measurements alone.
        let _ = self.0.send(Order::Measure(Box::new(job)));
    }

    /// Drops the model of a run that is over.
    pub(super) fn forget(&self, run: RunId) {
        // An error: it is gone with the thread.
        let _ = self.0.send(Order::Forget(run));
    }
}

fn work(queue: &Receiver<Order>, registry: &Registry, done: &UnboundedSender<Input>, teller: &Teller) {
    let mut loaded: BTreeMap<RunId, Loaded> = BTreeMap::new();
    while let Ok(first) = queue.recv() {
        // Of a run that is ahead of its measurements only the newest values matter.
        let mut jobs = BTreeMap::new();
        for task in std::iter::once(first).chain(queue.try_iter()) {
            match task {
                Order::Measure(job) => drop(jobs.insert(job.run.clone(), job)),
                Order::Forget(run) => drop(loaded.remove(&run)),
            }
        }
        for (run, job) in jobs {
            let outcome = measure(&mut loaded, registry, &job);
            let Job { round, values, .. } = *job;
            let input = match outcome {
                Ok(measured) => Input::Measured { run, round, values, measured },
                Err(error) => {
                    let reason = format!("{error:#}");
                    teller.warn(run.as_str(), format!("cannot measure round {round}: {reason}"));
                    Input::Unmeasured { run, round, reason }
                }
            };
            if done.send(input).is_err() {
                return;
            }
        }
    }
}

fn measure(loaded: &mut BTreeMap<RunId, Loaded>, registry: &Registry, job: &Job) -> anyhow::Result<Measured> {
    if !loaded.contains_key(&job.run) {
        let source = registry.source(&job.plan.model.bundle)?;
        let engine = select(&EngineConfig::default())?;
        let model = PlanModel::load(&job.plan, &source, engine.as_ref(), &SessionOptions::default())?;
        let examples = model.encode(&read(&job.tests, job.plan.model.task)?)?;
        if loaded.len() >= LOADED {
            loaded.clear();
        }
        loaded.insert(job.run.clone(), Loaded { model, examples });
    }
    let Some(Loaded { model, examples }) = loaded.get_mut(&job.run) else {
        anyhow::bail!("the model is not loaded");
    };
    Ok(model.measure(&job.values, examples)?)
}

/// All examples of some files.
pub(crate) fn read(tests: &Tests, task: Task) -> anyhow::Result<Dataset> {
    let options = tests.reading.options(task);
    let mut all = Dataset { name: String::new(), examples: Vec::new() };
    for file in &tests.files {
        let data = Dataset::read(file, &options)?;
        all.name = if all.name.is_empty() { data.name } else { format!("{}, {}", all.name, data.name) };
        all.examples.extend(data.examples);
    }
    Ok(all)
}
