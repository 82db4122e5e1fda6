//! Local work on a thread of its own.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use fedtt_link::Link;
use fedtt_wire::RunId;
use fedtt_wire::message::RunPlan;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::worker::Worker;
use super::{DaemonError, Told};
use crate::local::{LocalError, LocalResult};
use crate::round::{Event, Job};

/// Added to the niceness of the training thread, and of those its engine starts.
const NICENESS: i32 = 10;

/// How long a step that is being done is waited for at the end.
const LEAVE: Duration = Duration::from_secs(10);

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
        worker: Box<dyn Worker>,
        link: Link,
        events: UnboundedSender<Event>,
        tell: Arc<dyn Fn(Told) + Send + Sync>,
    ) -> Result<Self, DaemonError> {
        let (orders, received) = mpsc::channel();
        let stops = Arc::new(Mutex::new(Stops::default()));
        let bench = Bench { worker, stops: stops.clone(), events, link };
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
    worker: Box<dyn Worker>,
    stops: Arc<Mutex<Stops>>,
    events: UnboundedSender<Event>,
    link: Link,
}

impl Bench {
    fn work(mut self, orders: &Receiver<Order>) {
        for order in orders {
            let event = match order {
                Order::Prepare(plan) => {
                    let outcome = self.guarded(|bench| bench.worker.prepare(&plan));
                    Event::Prepared { run: plan.run.clone(), outcome }
                }
                Order::Train(job) => {
                    let outcome = self.guarded(|bench| bench.train(&job)).map(Box::new);
                    lock(&self.stops).jobs.remove(&job.id);
                    let traffic = self.link.traffic();
                    Event::Trained { job: job.id, outcome, traffic: (traffic.sent, traffic.received) }
                }
                Order::Forget(run) => {
                    self.worker.forget(Some(&run));
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
                self.worker.forget(None);
                Err("the engine failed in a way it should not; the device's log has more".into())
            }
        }
    }

    fn train(&mut self, job: &Job) -> Result<LocalResult, LocalError> {
        let (stops, events) = (&self.stops, &self.events);
        let stop = || {
            let stops = lock(stops);
            stops.all || stops.jobs.contains(&job.id)
        };
        if stop() {
            return Err(LocalError::Stopped);
        }
        let mut progress = |stepped| {
            // Nobody listens when the device is being stopped.
            let _ = events.send(Event::Progressed { job: job.id, stepped });
        };
        self.worker.train(job, &stop, &mut progress)
    }
}
