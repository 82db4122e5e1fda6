//! Local work on a thread of its own.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use fedtt_link::Link;
use fedtt_runtime::{Engine, SessionOptions};
use fedtt_wire::message::RunPlan;
use fedtt_wire::plan::Task;
use fedtt_wire::{DeviceName, RunId};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::{DaemonError, Data, Settings, Told};
use crate::data::{Dataset, ReadOptions};
use crate::local::{LocalData, LocalError, LocalResult, PlanModel, RoundWork};
use crate::round::{Event, Job, Prepared};
use crate::source::Source;
use crate::task::TaskKind;

/// Added to the niceness of the training thread, and of those its engine starts.
const NICENESS: i32 = 10;

/// How long a step that is being done is waited for at the end.
const LEAVE: Duration = Duration::from_secs(10);

/// So many runs' models are kept loaded.
const LOADED: usize = 2;

/// What the trainer is told to do.
pub(super) enum Order {
    Prepare(Arc<RunPlan>),
    Train(Box<Job>),
    Forget(RunId),
}

/// The training thread.
pub(super) struct Trainer {
    orders: Option<Sender<Order>>,
    stops: Arc<Mutex<Stops>>,
    /// Ready when the thread has ended.
    ended: Option<oneshot::Receiver<()>>,
}

/// Jobs that are of no interest any more.
#[derive(Default)]
struct Stops {
    all: bool,
    jobs: BTreeSet<u64>,
}

impl Trainer {
    pub(super) fn start(
        settings: &Settings,
        engine: Box<dyn Engine>,
        link: Link,
        events: UnboundedSender<Event>,
        tell: Arc<dyn Fn(Told) + Send + Sync>,
    ) -> Result<Self, DaemonError> {
        let (orders, received) = mpsc::channel();
        let stops = Arc::new(Mutex::new(Stops::default()));
        let bench = Bench {
            device: settings.name.clone(),
            sources: settings.sources.clone(),
            data: settings.data.clone(),
            engine,
            options: SessionOptions { threads: settings.engine.threads, ..SessionOptions::default() },
            stops: stops.clone(),
            events,
            link,
            loaded: VecDeque::new(),
        };
        let (running, ended) = oneshot::channel::<()>();
        let work = move || {
            let _running = running;
            if let Err(reason) = yield_to_others() {
                tell(Told::Priority(reason));
            }
            bench.work(&received);
        };
        // Not joined: it tells its end, and a process may end without it.
        let spawned = Builder::new().name("training".into()).spawn(work);
        drop(spawned.map_err(|e| DaemonError::Trainer(format!("cannot be started: {e}")))?);
        Ok(Trainer { orders: Some(orders), stops, ended: Some(ended) })
    }

    pub(super) fn order(&self, order: Order) -> Result<(), DaemonError> {
        let sent = self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok());
        sent.then_some(()).ok_or_else(|| DaemonError::Trainer("has ended".into()))
    }

    pub(super) fn stop(&self, job: u64) {
        lock(&self.stops).jobs.insert(job);
    }

    /// Stops what goes on and waits for the step that is being done, but not for a model that is being loaded: nothing is
    /// lost with the thread.
    pub(super) async fn end(mut self) {
        self.leave();
        let Some(ended) = self.ended.take() else { return };
        // It says nothing: its end of the channel is dropped with it.
        let _ = tokio::time::timeout(LEAVE, ended).await;
    }

    fn leave(&mut self) {
        lock(&self.stops).all = true;
        self.orders = None;
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        self.leave();
    }
}

fn lock(stops: &Mutex<Stops>) -> std::sync::MutexGuard<'_, Stops> {
    stops.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lowers the priority of the calling thread, which on Linux has one of its own.
fn yield_to_others() -> Result<(), String> {
    let thread = rustix::thread::gettid();
    rustix::process::setpriority_process(Some(thread), NICENESS)
        .map_err(|e| format!("training runs at the usual priority: {e}"))
}

/// What the training thread works with.
struct Bench {
    device: DeviceName,
    sources: Vec<Arc<Source>>,
    data: Data,
    engine: Box<dyn Engine>,
    options: SessionOptions,
    stops: Arc<Mutex<Stops>>,
    events: UnboundedSender<Event>,
    link: Link,
    loaded: VecDeque<Loaded>,
}

/// A run's model and examples.
struct Loaded {
    plan: Arc<RunPlan>,
    model: PlanModel,
    data: LocalData,
}

impl Bench {
    fn work(mut self, orders: &Receiver<Order>) {
        for order in orders {
            let event = match order {
                Order::Prepare(plan) => {
                    let outcome = self.guarded(|bench| bench.prepare(&plan));
                    Event::Prepared { run: plan.run.clone(), outcome }
                }
                Order::Train(job) => {
                    let outcome = self.guarded(|bench| bench.train(&job)).map(Box::new);
                    lock(&self.stops).jobs.remove(&job.id);
                    let traffic = self.link.traffic();
                    Event::Trained { job: job.id, outcome, traffic: (traffic.sent, traffic.received) }
                }
                Order::Forget(run) => {
                    self.loaded.retain(|loaded| loaded.plan.run != run);
                    continue;
                }
            };
            if self.events.send(event).is_err() {
                return;
            }
        }
    }

    /// A fault of an engine costs a round, not the device.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, LocalError>) -> Result<T, String> {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(outcome) => outcome.map_err(|e| e.to_string()),
            Err(_) => {
                self.loaded.clear();
                Err("the engine failed in a way it should not; the device's log has more".into())
            }
        }
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

    fn train(&mut self, job: &Job) -> Result<LocalResult, LocalError> {
        let (stops, events, device) = (self.stops.clone(), self.events.clone(), self.device.clone());
        let stop = || {
            let stops = lock(&stops);
            stops.all || stops.jobs.contains(&job.id)
        };
        if stop() {
            return Err(LocalError::Stopped);
        }
        let loaded = self.load(&job.plan)?;
        let round = RoundWork {
            round: job.round,
            goal: job.goal,
            mask: &job.mask,
            rate: job.rate,
            globals: &job.globals,
            device: &device,
        };
        let mut progress = |stepped| {
            // Nobody listens when the device is being stopped.
            let _ = events.send(Event::Progressed { job: job.id, stepped });
        };
        loaded.model.train(&job.plan.plan, &round, &loaded.data, &job.memory, &stop, &mut progress)
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
