//! What a run says, and what of it the broker keeps.

use std::sync::Arc;

use fedtt_tt::optim::Schedule;
use fedtt_wire::message::{End, Goal, Manifest, Parcel, RunPlan};
use fedtt_wire::{Message, RunId, Topic, WireError, chunk};
use serde::{Deserialize, Serialize};

use super::collecting::Collecting;
use super::{Effect, Run, RunError};
use crate::store::Changes;

/// Milliseconds for which a restored host clears again what was to be cleared: it may have been killed before it could.
const CLEARED_AGAIN: u64 = 24 * 3_600_000;

/// Milliseconds after which a state that is still asked for is published again.
const STATE_AGAIN: u64 = 30_000;

/// A payload for all, which the broker keeps. Its messages are made as they are sent: a long one is in memory once.
#[derive(Clone, Debug)]
pub struct Broadcast {
    run: RunId,
    round: u32,
    topic: fn(RunId, u32) -> Topic,
    payload: Arc<Vec<u8>>,
    parcel: Parcel,
    chunk: usize,
}

impl Broadcast {
    /// Bytes of the payload.
    pub fn bytes(&self) -> usize {
        self.payload.len()
    }

    /// Its messages.
    pub fn chunks(&self) -> u32 {
        self.parcel.chunks
    }

    /// They themselves, each with where it goes.
    pub fn messages(&self) -> impl Iterator<Item = Result<(Topic, Vec<u8>), WireError>> + '_ {
        (0..self.parcel.chunks).map(|index| {
            let part = chunk::part(&self.run, self.round, self.parcel, &self.payload, self.chunk, index);
            Ok(((self.topic)(self.run.clone(), index), Message::from(part).into_bytes(0)?))
        })
    }
}

/// What a run that is over may have left at the broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Retained {
    /// When the run began, in Unix milliseconds.
    began: u64,
    /// Most chunks a payload ever had: so many topics are to be cleared.
    chunks: u32,
    /// Unix milliseconds since when nothing is to be there any more.
    since: u64,
}

impl Retained {
    /// Whether it may not have been cleared yet.
    pub(crate) fn is_recent(&self, now: u64) -> bool {
        now.saturating_sub(self.since) < CLEARED_AGAIN
    }

    /// Says that the run is over, to those who hear it now, and clears everything retained.
    pub(crate) fn clear(&self, run: &RunId) -> Vec<Effect> {
        let cleared = |topic| Effect::Publish { topic, payload: Vec::new(), retain: true };
        let (began, plan) = (self.began, || Topic::Plan(run.clone()));
        // A message of plain values always has a CBOR form.
        let end = Message::from(End { run: run.clone(), began }).encode(3).ok();
        let end = end.map(|payload| Effect::Publish { topic: plan(), payload, retain: false });
        let chunks = (0..self.chunks).flat_map(|i| [Topic::Change(run.clone(), i), Topic::State(run.clone(), i)]);
        end.into_iter().chain(chunks.chain([Topic::Round(run.clone()), plan()]).map(cleared)).collect()
    }
}

impl Run {
    /// What it may have left at the broker, by when nothing is to be there any more.
    pub(super) fn retained(&self, since: u64) -> Retained {
        Retained { began: self.record.summary.began, chunks: self.record.chunks, since }
    }

    pub(super) fn publish(&mut self, topic: Topic, message: impl Into<Message>, retain: bool) -> Result<(), WireError> {
        let payload = message.into().encode(self.record.plan.wire.level)?;
        self.effects.push(Effect::Publish { topic, payload, retain });
        Ok(())
    }

    pub(super) fn clear(&mut self, topic: Topic) {
        self.effects.push(Effect::Publish { topic, payload: Vec::new(), retain: true });
    }

    pub(super) fn announce(&mut self) -> Result<(), WireError> {
        let (run, began) = (self.id.clone(), self.record.summary.began);
        let plan = RunPlan { run, began, plan: self.record.plan.clone(), layout: self.layout.clone() };
        self.publish(Topic::Plan(self.id.clone()), plan, true)
    }

    fn broadcast(&mut self, topic: fn(RunId, u32) -> Topic, parcel: Parcel, payload: Arc<Vec<u8>>) {
        let (run, round, chunk) = (self.id.clone(), self.record.round, self.record.plan.wire.chunk);
        if parcel.chunks > self.record.chunks {
            self.record.chunks = parcel.chunks;
            self.dirty = true;
        }
        self.effects.push(Effect::Broadcast(Broadcast { run, round, topic, payload, parcel, chunk }));
    }

    /// Publishes the whole state: once for all, or again where a broker seems to have lost it.
    pub(super) fn publish_state(&mut self, now: u64) -> Result<(), WireError> {
        let state = self.global.digest();
        if self.published.is_some_and(|(last, since)| last == state && (since..since + STATE_AGAIN).contains(&now)) {
            return Ok(());
        }
        let payload = Message::from(self.global.whole(&self.id)).into_bytes(self.record.plan.wire.level)?;
        let parcel = chunk::parcel(&payload, self.record.plan.wire.chunk);
        self.broadcast(Topic::State, parcel, Arc::new(payload));
        self.published = Some((state, now));
        Ok(())
    }

    pub(super) fn publish_change(&mut self, store: &Changes) -> Result<(), RunError> {
        let Some((_, parcel)) = self.record.change else { return Ok(()) };
        let payload = match self.change.take() {
            Some(payload) => payload,
            None => store.change(&self.id)?,
        };
        self.broadcast(Topic::Change, parcel, Arc::new(payload));
        Ok(())
    }

    /// The number of the next manifest: above all before, also where the host's store was put back to what it once was.
    pub(super) fn issue(&mut self, now: u64) -> u64 {
        self.record.issued = now.max(self.record.issued + 1);
        self.dirty = true;
        self.record.issued
    }

    pub(super) fn publish_manifest(&mut self, collecting: &Collecting, now: u64) -> Result<(), WireError> {
        let issued = self.issue(now);
        let plan = &self.record.plan;
        let local = &plan.local;
        let schedule = Schedule {
            warmup_steps: u64::from(local.warmup),
            decay: local.decay,
            total_steps: Some(u64::from(plan.rounds.max(local.warmup))),
            floor: local.floor,
        };
        let manifest = Manifest {
            run: self.id.clone(),
            began: self.record.summary.began,
            issued,
            round: self.record.round,
            attempt: collecting.attempt,
            goal: if self.is_measuring() { Goal::Measure } else { Goal::Train },
            cohort: collecting.cohort.clone(),
            mask: self.mask(),
            rate: schedule.factor(u64::from(self.record.round)) as f32,
            state: self.global.digest(),
            change: self.record.change,
            seconds: plan.collection.longest() / 1000,
            counted: self.record.counted.clone(),
        };
        self.publish(Topic::Round(self.id.clone()), manifest, true)
    }
}
