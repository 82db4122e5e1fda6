//! Waiting for the global state: the change of it where the state before is held, the whole of it otherwise.

use fedtt_wire::RunId;
use fedtt_wire::message::{Chunk, Need};

use super::kept::{State, Task};
use super::parcels::Parcels;
use super::participant::Context;
use super::retry::Retry;
use super::run::{Phase, Run, tensors, whole};
use super::{Effect, What};

pub(super) struct Fetching {
    task: Task,
    parcels: Parcels,
    retry: Retry,
    /// Whether the whole state was asked for.
    asked: bool,
}

impl Fetching {
    pub(super) fn task(&self) -> Task {
        self.task
    }

    pub(super) fn due(&self) -> u64 {
        self.retry.due()
    }

    pub(super) fn leave(self, run: &RunId, cx: &mut Context<'_>) {
        if self.asked {
            cx.effects.push(Effect::Unsubscribe(cx.topics.state_filter(run)));
        }
    }
}

impl Run {
    pub(super) fn fetch(&mut self, task: Task, cx: &mut Context<'_>) {
        if matches!(self.phase, Phase::Fetching(_)) {
            // For the same task: its change turned out to be of no use, or nothing new is known.
            if self.change_is_coming() {
                return;
            }
        } else {
            let retry = Retry::new(cx.now, cx.pace, cx.rng);
            let parcels = Parcels::default();
            self.phase = Phase::Fetching(Fetching { task, parcels, retry, asked: false });
            if self.change_is_coming() {
                return;
            }
        }
        if let Phase::Fetching(fetching) = &self.phase
            && !fetching.asked
        {
            self.ask(cx);
        }
    }

    /// Whether the change that leads to the current state is one this device can use, and on its way.
    fn change_is_coming(&self) -> bool {
        let change = self.manifest.as_ref().and_then(|manifest| manifest.change);
        let held = self.state.as_ref().map(|state| state.digest);
        change.is_some_and(|(before, parcel)| held == Some(before) && self.spoilt != Some(parcel.digest))
    }

    fn ask(&mut self, cx: &mut Context<'_>) {
        let Phase::Fetching(fetching) = &mut self.phase else { return };
        if !cx.connected {
            return;
        }
        if !fetching.asked {
            fetching.asked = true;
            cx.tell(&self.id, What::Fetching { round: fetching.task.round });
        }
        // Each time: to a new subscription the broker says again what it keeps.
        cx.effects.push(Effect::Subscribe(cx.topics.state_filter(&self.id)));
        cx.up(Need { run: self.id.clone(), state: fetching.task.state });
    }

    pub(super) fn ask_again(&mut self, cx: &mut Context<'_>) {
        let Phase::Fetching(fetching) = &mut self.phase else { return };
        if fetching.retry.is_due(cx.now) {
            fetching.retry.again(cx.now, cx.rng);
            self.ask(cx);
        }
    }

    pub(super) fn ask_soon(&mut self, cx: &mut Context<'_>) {
        if let Phase::Fetching(fetching) = &mut self.phase {
            fetching.retry = Retry::soon(cx.now, cx.pace, cx.rng);
        }
    }

    /// A part of a whole state.
    pub(super) fn state_comes(&mut self, chunk: Chunk, cx: &mut Context<'_>) {
        let limit = self.limit();
        let (Phase::Fetching(fetching), Some(plan)) = (&mut self.phase, &self.plan) else { return };
        let wanted = fetching.task.state;
        match fetching.parcels.add(chunk, limit) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return cx.ignore(&self.id, format!("a part of the global state: {error}")),
        }
        let Some(payload) = fetching.parcels.take() else { return };
        let values = match tensors(&payload, &self.id, &plan.layout) {
            // What the broker keeps of a round before.
            Ok(tensors) if tensors.state != wanted => return,
            Ok(tensors) => whole(&tensors, &plan.layout),
            Err(error) => Err(error),
        };
        match values.map(State::new) {
            Ok(state) if state.digest == wanted => {
                self.leave(cx);
                self.keep(state, cx);
                self.go_on(cx);
            }
            Ok(_) => cx.ignore(&self.id, "a global state that is not what its digest says"),
            Err(error) => cx.ignore(&self.id, format!("a global state: {error}")),
        }
    }
}
