//! Local work on a thread of its own.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use fedtt_link::Link;
use fedtt_wire::RunId;
use fedtt_wire::message::RunPlan;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::guard::{Guard, Hold};
use super::life::Life;
use super::room::Room;
use super::telling::Tell;
use super::worker::Worker;
use super::{DaemonError, Told};
use crate::board::Meter;
use crate::local::{LocalError, LocalResult};
use crate::round::{Adoption, Event, Job};
use crate::source::Available;

/// Added to the niceness of the training thread, and of the threads and the process it starts.
const NICENESS: i32 = 10;

/// For so long nothing else is to be done before a global state is checked.
const LULL: Duration = Duration::from_millis(200);

/// How long a step that is being done is waited for at the end.
const LEAVE: Duration = Duration::from_secs(10);

/// A model nothing was done with for so long is unloaded.
const REST: Duration = Duration::from_secs(600);

/// What the trainer is told to do.
pub(super) enum Order {
    Look(Arc<RunPlan>),
    Prepare(Arc<RunPlan>),
    Train(Box<Job>),
    Adopt(Adoption),
    Forget(RunId),
    /// There are these backbones by now.
    Work(Vec<Available>),
}

/// The training thread.
pub(super) struct Trainer {
    orders: Option<Sender<Order>>,
    stops: Arc<Stops>,
    /// Ready when the thread has ended.
    ended: Option<oneshot::Receiver<()>>,
}

/// Jobs that are of no interest any more.
#[derive(Default)]
struct Stops {
    told: Mutex<Stopped>,
    changed: Condvar,
}

#[derive(Default)]
struct Stopped {
    all: bool,
    jobs: BTreeSet<u64>,
}

impl Stops {
    fn tell(&self, change: impl FnOnce(&mut Stopped)) {
        change(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn has(&self, job: u64) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).has(job)
    }

    /// Waits until `job` is of no interest, at most this long; whether it is.
    fn wait(&self, job: u64, most: Duration) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(told, most, |told| !told.has(job));
        waited.unwrap_or_else(PoisonError::into_inner).0.has(job)
    }
}

impl Stopped {
    fn has(&self, job: u64) -> bool {
        self.all || self.jobs.contains(&job)
    }
}

impl Trainer {
    pub(super) fn start(
        worker: Box<dyn Worker>,
        room: Room,
        link: Link,
        events: UnboundedSender<Event>,
        tell: Tell,
        guard: Option<Guard>,
        life: Life,
    ) -> Result<Self, DaemonError> {
        let (orders, received) = mpsc::channel();
        let stops = Arc::new(Stops::default());
        let bench = Bench { worker, room, stops: stops.clone(), events, link, guard, life };
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
        self.stops.tell(|stops| {
            stops.jobs.insert(job);
        });
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
        self.stops.tell(|stops| stops.all = true);
        self.orders = None;
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        self.leave();
    }
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
    room: Room,
    stops: Arc<Stops>,
    events: UnboundedSender<Event>,
    link: Link,
    guard: Option<Guard>,
    life: Life,
}

impl Bench {
    fn work(mut self, orders: &Receiver<Order>) {
        // What there is to check waits until nothing else is to be done; of a run only the last is of interest.
        let mut adoptions: BTreeMap<RunId, Adoption> = BTreeMap::new();
        let mut resting = true;
        loop {
            self.life.training_busy(false);
            let order = match (adoptions.is_empty(), resting) {
                (true, true) => orders.recv().map_err(RecvTimeoutError::from),
                (true, false) => orders.recv_timeout(REST),
                (false, _) => orders.recv_timeout(LULL),
            };
            self.life.training_busy(true);
            let order = match order {
                Ok(Order::Adopt(adoption)) => {
                    adoptions.insert(adoption.plan.run.clone(), adoption);
                    continue;
                }
                Ok(order) => order,
                Err(RecvTimeoutError::Timeout) if adoptions.is_empty() => {
                    self.worker.forget(None);
                    resting = true;
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if !adoptions.pop_first().is_none_or(|(_, adoption)| self.adopt(&adoption)) {
                        return;
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            resting = false;
            let event = match order {
                Order::Adopt(_) => continue,
                Order::Work(sources) => {
                    self.worker.work_with(sources);
                    continue;
                }
                Order::Look(plan) => {
                    let objection = self.look(&plan);
                    Event::Looked { run: plan.run.clone(), objection }
                }
                Order::Prepare(plan) => {
                    let outcome = self.guarded(|bench| bench.worker.prepare(&plan));
                    if outcome.is_ok() {
                        self.room.prepared(&plan);
                    }
                    Event::Prepared { run: plan.run.clone(), outcome }
                }
                Order::Train(job) => {
                    let outcome = self.guarded(|bench| bench.train(&job)).map(Box::new);
                    self.stops.tell(|stops| {
                        stops.jobs.remove(&job.id);
                    });
                    let traffic = self.link.traffic();
                    Event::Trained { job: job.id, outcome, traffic: (traffic.sent, traffic.received) }
                }
                Order::Forget(run) => {
                    // A run's last state comes with its end.
                    if !adoptions.remove(&run).is_none_or(|adoption| self.adopt(&adoption)) {
                        return;
                    }
                    self.worker.forget(Some(&run));
                    self.room.forget(&run);
                    continue;
                }
            };
            if self.events.send(event).is_err() {
                return;
            }
        }
    }

    /// Why the board may not do a plan's work now, if it may not.
    fn look(&mut self, plan: &RunPlan) -> Option<String> {
        let guard = self.guard.as_mut()?;
        let worker = &mut self.worker;
        // A plan that cannot be foreseen shows what is wrong with it when it is prepared.
        let need = catch_unwind(AssertUnwindSafe(|| worker.need(plan))).unwrap_or(0);
        guard.objection(need).map(|objection| objection.to_string())
    }

    /// Checks a global state; whether there is anybody to tell.
    fn adopt(&mut self, adoption: &Adoption) -> bool {
        let outcome = self.guarded(|bench| bench.worker.adopt(adoption));
        let event = Event::Adopted { run: adoption.plan.run.clone(), round: adoption.round, outcome };
        self.events.send(event).is_ok()
    }

    /// A fault of an engine costs what it was doing, not the device.
    fn guarded<T, E: ToString>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, String> {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(outcome) => outcome.map_err(|e| e.to_string()),
            Err(_) => {
                self.worker.forget(None);
                Err("the engine failed in a way it should not; the device's log has more".into())
            }
        }
    }

    /// Does a job while the board allows it, and measures the energy that takes.
    fn train(&mut self, job: &Job) -> Result<LocalResult, LocalError> {
        let Bench { worker, stops, events, guard, life, .. } = self;
        if stops.has(job.id) {
            return Err(LocalError::Stopped);
        }
        let meter = guard.as_ref().and_then(Guard::meter);
        let mut given_up = None;
        let mut between_steps = || {
            life.training_busy(true);
            let mut hold = |hold: Hold<'_>| match hold {
                Hold::Told(reason) => {
                    match &meter {
                        Some(meter) if reason.is_some() => meter.pause(),
                        Some(meter) => meter.go_on(),
                        None => {}
                    }
                    let reason = reason.map(str::to_string);
                    // Nobody listens when the device is being stopped.
                    let _ = events.send(Event::Paused { job: job.id, reason });
                    false
                }
                Hold::Wait(time) => {
                    life.training_busy(false);
                    let stop = stops.wait(job.id, time);
                    life.training_busy(true);
                    stop
                }
            };
            if let Some(Err(reason)) = guard.as_mut().map(|guard| guard.pass(&mut hold)) {
                given_up = Some(reason);
            }
            given_up.is_some() || stops.has(job.id)
        };
        let between_steps = RefCell::new(&mut between_steps);
        let stop = || (*between_steps.borrow_mut())();
        let mut progress = |stepped| {
            let _ = events.send(Event::Progressed { job: job.id, stepped });
        };
        let outcome = worker.train(job, &stop, &mut progress);
        let joules = meter.and_then(Meter::finish);
        match given_up {
            Some(reason) => {
                // What it holds is what the board lacks.
                worker.forget(None);
                Err(LocalError::Board(reason))
            }
            None => outcome.map(|result| LocalResult { joules, ..result }),
        }
    }
}
