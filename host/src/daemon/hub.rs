//! The loop around the coordinator: messages, requests, measurements and time in, its effects out.
//!
//! It has a thread of its own, where waiting for the disk keeps neither the link nor the page waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fedtt_link::{Delivery, Inbox};
use fedtt_wire::{RunId, Topic, Topics};
use tokio::sync::{mpsc, oneshot, watch};

use super::answer::Ask;
use super::enrolment::Asks;
use super::gate::Gate;
use super::measuring::{Job, Measuring};
use super::outbox::Outbox;
use super::registry::{Registry, Tests};
use super::scribe::{Adapter, Scribe};
use super::tell::{Teller, Told};
use super::view::{self, Quality};
use super::{DaemonError, now};
use crate::coordinator::{Coordinator, Input};
use crate::record::{RoundRecord, Status};
use crate::report::RunReport;
use crate::run::{Effect, RunEvent, What};
use crate::web::snapshot::{Broker, Snapshot};

/// Most messages, and their bytes, that are taken in as one transaction.
const BATCH: (usize, usize) = (1024, 8 << 20);
/// A commit waits for the disk: while updates of a round are to come it is put off until none has come for this long, so that
/// those sent at the same time cost one.
const QUIET: Duration = Duration::from_millis(2);
/// As long as that may go on.
const LINGER: Duration = Duration::from_millis(20);
/// Longest time without looking at the clock.
const TICK: Duration = Duration::from_secs(1);
/// Least time between two views for the page, and between two writings of a run's files.
const VIEW_EVERY: Duration = Duration::from_millis(250);
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Everything the loop works with.
pub(super) struct Hub {
    pub(super) coordinator: Coordinator,
    pub(super) topics: Topics,
    pub(super) fleet: String,
    pub(super) broker: Broker,
    pub(super) gate: Gate,
    pub(super) inbox: Inbox,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) enrolment: Asks,
    pub(super) outbox: Outbox,
    pub(super) scribe: Scribe,
    pub(super) measuring: Measuring,
    pub(super) measured: mpsc::UnboundedReceiver<Input>,
    pub(super) registry: Arc<Registry>,
    pub(super) snapshot: watch::Sender<Arc<Snapshot>>,
    pub(super) teller: Teller,
    /// Files for runs that have none of their own.
    pub(super) tests: Vec<std::path::PathBuf>,
    pub(super) state: HubState,
}

/// What the loop remembers from one turn to the next.
pub(super) struct HubState {
    quality: Quality,
    /// Whether the registry may know of what no run needs any more.
    pub(super) untidy: bool,
    /// Runs whose files are behind.
    dirty: BTreeSet<RunId>,
    write_at: Instant,
    view_at: Instant,
}

impl Default for HubState {
    fn default() -> Self {
        let now = Instant::now();
        HubState { quality: Quality::new(), untidy: true, dirty: BTreeSet::new(), write_at: now, view_at: now }
    }
}

impl HubState {
    /// Forgets a run that was removed; the page is made anew at once.
    pub(super) fn forget(&mut self, run: &RunId) {
        self.quality.remove(run);
        self.dirty.remove(run);
        (self.untidy, self.view_at) = (true, Instant::now());
    }
}

impl Hub {
    /// Runs until `stop` is told or dropped.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Result<(), DaemonError> {
        self.load_quality()?;
        self.mend_files()?;
        self.announce_tests();
        self.turn(Vec::new())?;
        loop {
            let wait = self.wait();
            let mut inputs = Vec::new();
            tokio::select! {
                biased;
                _ = &mut stop => break,
                Some(ask) = self.asks.recv() => self.answer(ask)?,
                Some(measured) = self.measured.recv() => inputs.push(measured),
                delivery = self.inbox.recv(), if self.outbox.has_room() => match delivery {
                    Some(delivery) => self.take(delivery, &mut inputs).await?,
                    None => break,
                },
                () = tokio::time::sleep(wait) => {}
            }
            self.turn(inputs)?;
        }
        self.write_files(true)?;
        let Hub { outbox, scribe, .. } = self;
        drop(outbox);
        scribe.finish();
        Ok(())
    }

    /// How long there is nothing to do but for messages.
    fn wait(&self) -> Duration {
        let now = now();
        // What was due has been done by now, or waits for devices.
        let due = self.coordinator.due().filter(|&due| due > now);
        let wait = due.map_or(TICK, |due| Duration::from_millis(due - now)).min(TICK);
        if self.outbox.has_room() { wait } else { wait.min(Duration::from_millis(20)) }
    }

    /// Takes a delivery, and all that are there already, up to a batch.
    async fn take(&mut self, delivery: Delivery, inputs: &mut Vec<Input>) -> Result<(), DaemonError> {
        let began = Instant::now();
        let mut next = Some(delivery);
        let mut bytes = 0;
        while let Some(delivery) = next {
            match delivery {
                Delivery::Message { topic, payload, .. } => {
                    match self.topics.parse(&topic) {
                        // An error: too many wait already, and this one is repeated.
                        Some(Topic::Ask(id)) => drop(self.enrolment.try_send((id, payload))),
                        Some(topic) => {
                            bytes += payload.len();
                            let (input, answer) = self.gate.pass(topic, &payload, now());
                            inputs.extend(input);
                            answer.into_iter().for_each(|answer| self.outbox.push(answer));
                        }
                        None => {}
                    }
                }
                Delivery::Connected { session_present } => {
                    self.broker.connected = true;
                    self.outbox.set_connected(true);
                    self.teller.say(Told::Connected);
                    if !session_present {
                        self.gate.introduction().into_iter().for_each(|who| self.outbox.push(who));
                        // What came over the connection before is older than what the broker says now.
                        self.turn(std::mem::take(inputs))?;
                        let effects = self.coordinator.republish(now())?;
                        // It is the broker that was restarted, not the runs.
                        let restored = |effect: &Effect| matches!(effect, Effect::Event(e) if e.what == What::Restored);
                        self.carry_out(effects.into_iter().filter(|effect| !restored(effect)).collect())?;
                    }
                }
                Delivery::Disconnected { reason, retry_in } => {
                    self.broker.connected = false;
                    self.outbox.set_connected(false);
                    self.teller.disconnected(reason, retry_in);
                }
            }
            if inputs.len() >= BATCH.0 || bytes >= BATCH.1 {
                break;
            }
            next = self.inbox.try_recv();
            if next.is_none() && began.elapsed() < LINGER {
                self.coordinator.take(std::mem::take(inputs), now())?;
                if self.coordinator.expects_more() {
                    next = tokio::time::timeout(QUIET, self.inbox.recv()).await.unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    /// Hands inputs to the coordinator and does what it says.
    pub(super) fn turn(&mut self, mut inputs: Vec<Input>) -> Result<(), DaemonError> {
        inputs.extend(self.gate.gone());
        self.gate.keep()?;
        let effects = self.coordinator.handle(inputs, now())?;
        self.carry_out(effects)?;
        self.write_files(false)?;
        self.tidy_registry();
        if Instant::now() >= self.state.view_at {
            self.state.view_at = Instant::now() + VIEW_EVERY;
            let Self { coordinator, state, fleet, broker, teller, .. } = &*self;
            let snapshot = view::snapshot(coordinator, &state.quality, fleet, broker, teller);
            self.snapshot.send_replace(Arc::new(snapshot));
        }
        Ok(())
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), DaemonError> {
        let mut events = Vec::new();
        for effect in effects {
            match effect {
                Effect::Publish { topic, payload, retain } => {
                    self.outbox.push(self.gate.seal(&topic, payload, retain));
                }
                Effect::Broadcast(broadcast) => self.outbox.push_all(broadcast),
                Effect::Event(event) => events.push(event),
                Effect::Warning { device, reason } => self.teller.warn_of_device(device.as_str(), reason),
                Effect::RoundEnded { run, round } => self.measure(run, round)?,
            }
        }
        for event in &events {
            self.note(event)?;
        }
        if !events.is_empty() {
            self.scribe.events(events);
        }
        Ok(())
    }

    fn measure(&self, run: RunId, round: u32) -> Result<(), DaemonError> {
        let Some(found) = self.coordinator.runs().get(&run) else { return Ok(()) };
        if found.to_be_measured() == Some(round) {
            let values = found.values(&self.coordinator.store().begin()?)?;
            let (plan, tests) = (found.plan().clone(), self.tests(&run));
            self.measuring.measure(Job { run, round, plan, tests, values });
        }
        Ok(())
    }

    /// The files a run is measured on.
    pub(super) fn tests(&self, run: &RunId) -> Tests {
        let own = self.registry.tests(run.as_str());
        match own.files.is_empty() {
            true => Tests { files: self.tests.clone(), ..own },
            false => own,
        }
    }

    /// Tells the coordinator which of the runs it has taken up are measured here.
    fn announce_tests(&mut self) {
        let runs = self.coordinator.runs().keys().filter(|run| !self.tests(run).files.is_empty());
        for run in runs.cloned().collect::<Vec<_>>() {
            self.coordinator.measures(run);
        }
    }

    /// What an event means for the run's files. Where a run rests they are written before anybody hears of it.
    fn note(&mut self, event: &RunEvent) -> Result<(), DaemonError> {
        let Ok(run) = RunId::new(event.run.as_str()) else { return Ok(()) };
        // Devices measure on other examples than the host: one curve is of one of them.
        let by_devices = self.tests(&run).files.is_empty();
        let mut point = |round: u32, value: f64| {
            self.state.quality.entry(run.clone()).or_default().insert(round, value);
        };
        match &event.what {
            What::RoundEnded { before: Some(measured), .. } if by_devices => point(event.round, measured.value),
            What::Measured { after } => point(event.round, after.value),
            _ => {}
        }
        let status = self.coordinator.runs().get(&run).map(|run| run.summary().status);
        let is_over = status.is_some_and(Status::is_final);
        match &event.what {
            What::Status { .. } | What::Measured { .. } if is_over || status == Some(Status::Paused) => {
                if is_over {
                    self.measuring.forget(run.clone());
                }
                self.write_adapter(&run, None)?;
                self.write_report(&run)
            }
            What::Started | What::RoundEnded { .. } | What::Measured { .. } | What::Status { .. } => {
                self.state.dirty.insert(run);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Has a run's best adapter written.
    pub(super) fn write_adapter(
        &self,
        run: &RunId,
        reply: Option<oneshot::Sender<Result<std::path::PathBuf, String>>>,
    ) -> Result<(), DaemonError> {
        let Some(found) = self.coordinator.runs().get(run) else { return Ok(()) };
        let store = self.coordinator.store().begin()?;
        let values = found.best_values(&store)?;
        self.scribe.adapter(Adapter { run: run.clone(), plan: found.plan().clone(), values, reply });
        Ok(())
    }

    /// A run as it is reported.
    pub(super) fn report(&self, run: &RunId) -> Result<Option<RunReport>, DaemonError> {
        let Some(found) = self.coordinator.runs().get(run) else { return Ok(None) };
        let rounds = self.coordinator.store().begin()?.records(run)?;
        Ok(Some(RunReport { summary: found.summary().clone(), plan: found.plan().clone(), rounds }))
    }

    fn write_report(&mut self, run: &RunId) -> Result<(), DaemonError> {
        self.state.dirty.remove(run);
        if let Some(report) = self.report(run)? {
            self.scribe.report(report);
        }
        Ok(())
    }

    /// Writes the files that are behind, when it is time; long runs, whose files take longer to write, less often.
    fn write_files(&mut self, now: bool) -> Result<(), DaemonError> {
        let began = Instant::now();
        if !now && (self.state.dirty.is_empty() || began < self.state.write_at || !self.scribe.is_idle()) {
            return Ok(());
        }
        for run in std::mem::take(&mut self.state.dirty) {
            self.write_report(&run)?;
        }
        self.state.write_at = began + WRITE_EVERY.max((began.elapsed() + self.scribe.took()) * 20);
        Ok(())
    }

    /// Writes the files of runs that came to rest just before the host was killed.
    fn mend_files(&mut self) -> Result<(), DaemonError> {
        let runs = self.coordinator.runs().values();
        let resting = runs.filter(|run| run.summary().status.is_final() && !self.scribe.is_current(run.summary()));
        for run in resting.map(|run| run.id().clone()).collect::<Vec<_>>() {
            self.write_adapter(&run, None)?;
            self.write_report(&run)?;
        }
        Ok(())
    }

    /// What runs measured before this host was started.
    fn load_quality(&mut self) -> Result<(), DaemonError> {
        let store = self.coordinator.store().begin()?;
        for run in self.coordinator.runs().keys() {
            let records = store.records(run)?;
            let after = |r: &RoundRecord| r.after.as_ref().map(|measured| (r.round + 1, measured.value));
            let before = |r: &RoundRecord| r.before.as_ref().map(|measured| (r.round, measured.value));
            let mut points: BTreeMap<u32, f64> = records.iter().filter_map(after).collect();
            if points.is_empty() {
                points.extend(records.iter().filter_map(before));
            }
            self.state.quality.insert(run.clone(), points);
        }
        Ok(())
    }
}
