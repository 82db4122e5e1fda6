//! Writes what runs leave behind, on a thread of its own, and tells watchers what happened once it is written: whoever hears
//! of a run's end finds its files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fedtt_wire::{Plan, RunId};
use ndarray::ArrayD;
use serde_json::{Value, json};
use tokio::sync::{broadcast, oneshot};

use super::registry::Registry;
use super::tell::Teller;
use crate::artefacts::{self, ArtefactError, Artefacts};
use crate::record::RunSummary;
use crate::report::RunReport;
use crate::run::RunEvent;

/// Events a watcher may be behind before it misses some.
const BACKLOG: usize = 8192;

/// An adapter to be written.
pub(super) struct Adapter {
    pub(super) run: RunId,
    pub(super) plan: Plan,
    pub(super) values: Vec<ArrayD<f32>>,
    /// Told where it is, or why not.
    pub(super) reply: Option<oneshot::Sender<Result<PathBuf, String>>>,
}

/// Runs that were removed, whose folders are let go of.
pub(super) struct Removal {
    pub(super) runs: BTreeSet<RunId>,
    /// Whether the folders are removed too.
    pub(super) files: bool,
    /// Told which folders stay, or why some could not be removed.
    pub(super) reply: oneshot::Sender<Result<Value, String>>,
}

/// What is handed to a watcher: everything that happens from here on.
pub(super) type Events = broadcast::Receiver<RunEvent>;

enum Task {
    Events(Vec<RunEvent>),
    Report(Box<RunReport>),
    Adapter(Box<Adapter>),
    Remove(Removal),
    Subscribe(oneshot::Sender<Events>),
}

/// How busy the thread is.
#[derive(Default)]
struct Load {
    /// Reports not yet written, and removals not yet done.
    waiting: AtomicUsize,
    /// Milliseconds the last one took.
    took: AtomicU64,
}

/// The thread that writes.
pub(super) struct Scribe {
    tasks: Sender<Task>,
    runs: PathBuf,
    load: Arc<Load>,
    thread: JoinHandle<()>,
}

impl Scribe {
    pub(super) fn start(runs: &Path, registry: Arc<Registry>, teller: Teller) -> Result<Self, ArtefactError> {
        let artefacts = Artefacts::open(runs)?;
        let (tasks, queue) = channel();
        let load = Arc::new(Load::default());
        let own = load.clone();
        let thread = std::thread::Builder::new().name("artefacts".into());
        let thread = thread
            .spawn(move || work(artefacts, &queue, &registry, &teller, &own))
            .map_err(|source| ArtefactError::Io { path: runs.into(), source })?;
        Ok(Scribe { tasks, runs: runs.to_path_buf(), load, thread })
    }

    fn give(&self, task: Task) {
        // An error: the thread has panicked, which stopped nothing but the writing.
        let _ = self.tasks.send(task);
    }

    pub(super) fn events(&self, events: Vec<RunEvent>) {
        self.give(Task::Events(events));
    }

    pub(super) fn report(&self, report: RunReport) {
        self.load.waiting.fetch_add(1, Ordering::AcqRel);
        self.give(Task::Report(Box::new(report)));
    }

    pub(super) fn remove(&self, removal: Removal) {
        self.load.waiting.fetch_add(1, Ordering::AcqRel);
        self.give(Task::Remove(removal));
    }

    pub(super) fn adapter(&self, adapter: Adapter) {
        self.give(Task::Adapter(Box::new(adapter)));
    }

    /// Everything that happens after what the thread was given so far.
    pub(super) fn subscribe(&self, reply: oneshot::Sender<Events>) {
        self.give(Task::Subscribe(reply));
    }

    /// Whether all reports given are written, and all removals done.
    pub(super) fn is_idle(&self) -> bool {
        self.load.waiting.load(Ordering::Acquire) == 0
    }

    /// What the last report took.
    pub(super) fn took(&self) -> Duration {
        Duration::from_millis(self.load.took.load(Ordering::Acquire))
    }

    /// Whether a run's files were written after it came to stand so.
    pub(super) fn is_current(&self, summary: &RunSummary) -> bool {
        artefacts::is_current(&self.runs, summary)
    }

    /// Waits until everything is written.
    pub(super) fn finish(self) {
        drop(self.tasks);
        // An error: it has panicked and said so.
        let _ = self.thread.join();
    }
}

fn work(mut artefacts: Artefacts, queue: &Receiver<Task>, registry: &Registry, teller: &Teller, load: &Load) {
    let (watchers, _) = broadcast::channel(BACKLOG);
    let complain = |error: ArtefactError| teller.warn("artefacts", error.to_string());
    while let Ok(task) = queue.recv() {
        match task {
            Task::Events(events) => {
                artefacts.events(&events).unwrap_or_else(complain);
                for event in events {
                    teller.event(&event);
                    // An error: nobody watches.
                    let _ = watchers.send(event);
                }
            }
            Task::Report(report) => {
                let began = Instant::now();
                artefacts.report(&report).unwrap_or_else(complain);
                load.took.store(began.elapsed().as_millis() as u64, Ordering::Release);
                load.waiting.fetch_sub(1, Ordering::AcqRel);
            }
            Task::Remove(Removal { runs, files, reply }) => {
                runs.iter().for_each(|run| teller.forget(run.as_str()));
                // An error: whoever asked is gone.
                let _ = reply.send(remove(&mut artefacts, &runs, files));
                load.waiting.fetch_sub(1, Ordering::AcqRel);
            }
            Task::Adapter(adapter) => {
                let Adapter { run, plan, values, reply } = *adapter;
                let written = registry
                    .source(&plan.model.bundle)
                    .map_err(|e| e.to_string())
                    .and_then(|source| artefacts.adapter(&run, &plan, &source, &values).map_err(|e| e.to_string()));
                match (reply, written) {
                    (Some(reply), written) => drop(reply.send(written)),
                    (None, Err(reason)) => {
                        teller.warn(run.as_str(), format!("the adapter cannot be written: {reason}"))
                    }
                    (None, Ok(_)) => {}
                }
            }
            Task::Subscribe(reply) => drop(reply.send(watchers.subscribe())),
        }
    }
}

/// Lets go of folders, as far as that can be done; what is left of each.
fn remove(artefacts: &mut Artefacts, runs: &BTreeSet<RunId>, files: bool) -> Result<Value, String> {
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    for run in runs {
        match artefacts.remove(run, files) {
            Ok(folder) => removed.push(json!({ "run": run, "folder": folder })),
            Err(error) => failed.push(error.to_string()),
        }
    }
    match failed.is_empty() {
        true => Ok(json!({ "removed": removed })),
        false => Err(format!("the runs are removed, but not all of their files: {}", failed.join("; "))),
    }
}
