//! One run as a device sees it: what is known of it, and the phase it is in.

use std::sync::Arc;

use fedtt_tt::TrainMask;
use fedtt_wire::message::{Chunk, Goal, Manifest, Refusal, RunPlan, Tensors};
use fedtt_wire::{Digest, Layout, Message, RunId, WireError};
use ndarray::ArrayD;

use super::admission::Admission;
use super::delivering::Delivering;
use super::fetching::Fetching;
use super::kept::{Settled, State, Task, Work};
use super::parcels::Parcels;
use super::participant::Context;
use super::training::Training;
use super::waiting::Fit;
use super::{Adoption, Effect, LocalPolicy, Slot, What};

/// Largest payload put together before the plan says how large it may be.
const EARLY_LIMIT: usize = 64 * 1024 * 1024;

/// A run nobody announces is forgotten after this, in milliseconds.
const UNANNOUNCED: u64 = 3_600_000;

pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) plan: Option<Arc<RunPlan>>,
    pub(super) fit: Fit,
    pub(super) manifest: Option<Manifest>,
    pub(super) state: Option<State>,
    pub(super) work: Work,
    pub(super) change: Parcels,
    /// A change that does not lead where it should.
    pub(super) spoilt: Option<Digest>,
    /// The state that was last handed on to be used.
    offered: Option<Digest>,
    /// Round and attempt that were refused.
    pub(super) refused: Option<(u32, u32)>,
    /// Work that waits for the board.
    pub(super) admission: Option<Admission>,
    pub(super) phase: Phase,
    /// Since when nobody has announced it.
    pub(super) unannounced: Option<u64>,
}

pub(super) enum Phase {
    /// For a manifest that names this device, or for the model to be loaded.
    Waiting,
    /// For the global state.
    Fetching(Fetching),
    /// For local work.
    Training(Training),
    /// For the verdict on an update.
    Delivering(Delivering),
}

/// A round's task with what is needed to do it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) task: Task,
    pub(super) attempt: u32,
    pub(super) mask: TrainMask,
    pub(super) rate: f32,
}

impl Run {
    pub(super) fn new(id: RunId, state: Option<State>, work: Work) -> Self {
        let open = work.last.as_ref().is_some_and(|done| done.verdict == Settled::Open);
        Run {
            id,
            plan: None,
            fit: Fit::Unknown,
            manifest: None,
            state,
            work,
            change: Parcels::default(),
            spoilt: None,
            offered: None,
            refused: None,
            admission: None,
            // The chunks may have got through before the process ended: the host says which did not.
            phase: if open { Phase::Delivering(Delivering::resumed()) } else { Phase::Waiting },
            unannounced: None,
        }
    }

    /// When time alone brings something next.
    pub(super) fn due(&self, policy: &LocalPolicy, connected: bool) -> Option<u64> {
        let phase = match &self.phase {
            Phase::Waiting => None,
            Phase::Fetching(fetching) => connected.then(|| fetching.due()),
            Phase::Training(training) => training.due(policy),
            Phase::Delivering(delivering) => connected.then(|| delivering.due()),
        };
        [phase, self.admission.as_ref().and_then(Admission::due)].into_iter().flatten().min()
    }

    pub(super) fn tick(&mut self, cx: &mut Context<'_>) {
        match &self.phase {
            Phase::Waiting => {}
            Phase::Fetching(_) => self.ask_again(cx),
            Phase::Training(_) => self.police(cx),
            Phase::Delivering(_) => self.deliver_again(cx),
        }
        self.look_again(cx);
    }

    pub(super) fn connected(&mut self, cx: &mut Context<'_>) {
        self.refused = None;
        self.reconsider(cx);
        self.unannounced(cx);
        match &self.phase {
            Phase::Waiting | Phase::Training(_) => {}
            Phase::Fetching(_) => self.ask_soon(cx),
            Phase::Delivering(_) => self.deliver_soon(cx),
        }
    }

    /// When the run began, as far as it is known here.
    pub(super) fn began(&self) -> Option<u64> {
        self.plan.as_ref().map(|plan| plan.began)
    }

    /// From now on it is to be announced, or will be forgotten.
    pub(super) fn unannounced(&mut self, cx: &Context<'_>) {
        self.unannounced = Some(cx.now);
    }

    /// Whether nobody has announced it for so long that its files can go. That it is over only the host can say.
    pub(super) fn is_forgotten(&mut self, cx: &mut Context<'_>) -> bool {
        let since = self.unannounced.filter(|_| cx.connected);
        let forgotten = since.is_some_and(|since| cx.now >= since + UNANNOUNCED);
        if forgotten {
            self.leave(cx);
            cx.effects.push(Effect::Forget(self.id.clone()));
        }
        forgotten
    }

    /// The current round was announced.
    pub(super) fn begins(&mut self, manifest: Manifest, cx: &mut Context<'_>) {
        let last = self.manifest.as_ref().map_or((0, 0), |current| (current.began, current.issued));
        let least = last.max((manifest.began, cx.ledger.issued(&self.id, manifest.began)));
        // Messages overtake each other, and may be repeated by whoever has them.
        if (manifest.began, manifest.issued) < least {
            return cx
                .ignore(&self.id, format!("a manifest of round {}, after which there was another", manifest.round));
        }
        if self.began().is_none_or(|began| began == manifest.began) {
            self.settle_by(&manifest, cx);
        }
        let weighs = manifest.cohort.contains(&cx.identity.device) || manifest.goal == Goal::Rest;
        if weighs && cx.ledger.asked(&self.id, manifest.began, manifest.issued) {
            cx.keep_ledger(&self.id);
        }
        self.manifest = Some(manifest);
        self.go_on(cx);
    }

    /// The run is over.
    pub(super) fn over(&mut self, cx: &mut Context<'_>) {
        self.leave(cx);
        cx.effects.push(Effect::Forget(self.id.clone()));
        cx.tell(&self.id, What::Over);
    }

    /// What the current manifest asks of this device, if anything.
    pub(super) fn asked(&self, cx: &Context<'_>) -> Option<Asked> {
        let manifest = self.manifest.as_ref()?;
        if manifest.goal == Goal::Rest
            || Some(manifest.began) != self.began()
            || !manifest.cohort.contains(&cx.identity.device)
        {
            return None;
        }
        Some(Asked {
            task: Task { round: manifest.round, goal: manifest.goal, state: manifest.state },
            attempt: manifest.attempt,
            mask: manifest.mask.clone(),
            rate: manifest.rate,
        })
    }

    /// Does what there is to do as things stand; called whenever anything has changed.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>) {
        self.follow(cx);
        self.offer(cx);
        let asked = self.asked(cx);
        let task = asked.as_ref().map(|asked| asked.task);
        match &self.phase {
            Phase::Training(training) if Some(training.task()) == task => return,
            Phase::Training(_) => self.leave(cx),
            Phase::Fetching(fetching) if Some(fetching.task()) != task => self.leave(cx),
            _ => {}
        }
        let (Some(asked), Some(plan)) = (asked, self.plan.clone()) else { return self.stop_waiting(cx) };
        match &self.work.last {
            Some(done) if done.task == asked.task => return self.deliver_to(asked.attempt, cx),
            // The host went back, or on without a word: that update is of no use any more.
            Some(done) if done.verdict == Settled::Open => self.settle(Settled::Late, None, cx),
            _ => {}
        }
        if self.refused == Some((asked.task.round, asked.attempt)) {
            return;
        }
        if let Some(problem) = &cx.identity.presence.problem {
            return self.refuse(&asked, format!("it takes part in nothing for now: {problem}"), cx);
        }
        if let Some((reason, until)) = cx.policy.objection(cx.now) {
            return self.refuse_until(&asked, reason, Some(until), cx);
        }
        if !self.is_unfit() && !self.may_begin(&asked, &plan, cx) {
            return;
        }
        match self.fits(&plan, cx) {
            None => return,
            Some(Err(reason)) => return self.refuse(&asked, reason, cx),
            Some(Ok(())) => {}
        }
        self.start_from_scratch(asked.task.state, cx);
        match self.state.clone().filter(|state| state.digest == asked.task.state) {
            Some(state) => self.train(&asked, plan, state, cx),
            None => self.fetch(asked.task, cx),
        }
    }

    /// Says why this device does not take part in a round.
    pub(super) fn refuse(&mut self, asked: &Asked, reason: String, cx: &mut Context<'_>) {
        self.refuse_until(asked, reason, None, cx);
    }

    /// The same, where it is known until when that holds, in Unix milliseconds.
    pub(super) fn refuse_until(&mut self, asked: &Asked, reason: String, until: Option<u64>, cx: &mut Context<'_>) {
        self.leave(cx);
        let round = asked.task.round;
        self.refused = Some((round, asked.attempt));
        self.admission = None;
        cx.tell(&self.id, What::Refused { round, reason: reason.clone() });
        if cx.connected {
            cx.up(Refusal { run: self.id.clone(), round, reason, until });
        } else {
            // Said again when there is someone to hear it.
            self.refused = None;
        }
    }

    /// Back to waiting, whatever goes on; an update stays in the outbox.
    pub(super) fn leave(&mut self, cx: &mut Context<'_>) {
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Waiting => {}
            Phase::Fetching(fetching) => fetching.leave(&self.id, cx),
            Phase::Training(training) => training.leave(&self.id, cx),
            delivering @ Phase::Delivering(_) => self.phase = delivering,
        }
    }

    /// A part of the change since the round before.
    pub(super) fn changes(&mut self, chunk: Chunk, cx: &mut Context<'_>) {
        let held = self.state.as_ref().map(|state| state.digest);
        let known = |m: &Manifest| m.change.is_some_and(|(_, parcel)| parcel == chunk.parcel) && held == Some(m.state);
        if self.manifest.as_ref().is_some_and(known) {
            return;
        }
        match self.change.add(chunk, self.limit()) {
            Ok(true) => self.go_on(cx),
            Ok(false) => {}
            Err(error) => cx.ignore(&self.id, format!("a part of a change: {error}")),
        }
    }

    /// Applies the change to the current state, if it is there and begins at the state held.
    fn follow(&mut self, cx: &mut Context<'_>) {
        let (Some(plan), Some(manifest)) = (&self.plan, &self.manifest) else { return };
        if manifest.began != plan.began {
            return;
        }
        let Some((before, parcel)) = manifest.change else { return };
        let current = [&self.state, self.fit.initial()].into_iter().flatten();
        let Some(held) = current.into_iter().find(|state| state.digest == before) else { return };
        let Some(payload) = self.change.get(&parcel.digest) else { return };
        let wanted = manifest.state;
        let applied = tensors(payload, &self.id, &plan.layout).and_then(|tensors| {
            let mut values = held.values.as_ref().clone();
            for (place, change) in tensors.values(&plan.layout)? {
                values[place] += &change;
            }
            Ok(State::new(values))
        });
        self.change.discard(&parcel.digest);
        match applied {
            Ok(state) if state.digest == wanted => self.keep(state, cx),
            Ok(_) => self.spoil(parcel.digest, "it does not lead to the state announced".into(), cx),
            Err(error) => self.spoil(parcel.digest, error.to_string(), cx),
        }
    }

    /// Hands the current state on to be used on this device; not fresh adapters, which know nothing yet.
    fn offer(&mut self, cx: &mut Context<'_>) {
        let (Some(plan), Some(manifest), Some(state)) = (&self.plan, &self.manifest, &self.state) else { return };
        if cx.identity.presence.problem.is_some() {
            return;
        }
        if manifest.round == 0 || state.digest != manifest.state || self.offered == Some(state.digest) {
            return;
        }
        self.offered = Some(state.digest);
        let (digest, values) = (state.digest, state.values.clone());
        cx.effects.push(Effect::Adopt(Adoption { plan: plan.clone(), round: manifest.round, digest, values }));
    }

    fn spoil(&mut self, change: Digest, reason: String, cx: &mut Context<'_>) {
        self.spoilt = Some(change);
        cx.ignore(&self.id, format!("a change of the global state: {reason}"));
    }

    /// A fresh adapter where a run begins with one: nothing to download.
    fn start_from_scratch(&mut self, wanted: Digest, cx: &mut Context<'_>) {
        if self.state.as_ref().is_some_and(|state| state.digest == wanted) {
            return;
        }
        if let Some(initial) = self.fit.initial().clone().filter(|state| state.digest == wanted) {
            self.keep(initial, cx);
        }
    }

    /// Keeps a global state for good.
    pub(super) fn keep(&mut self, state: State, cx: &mut Context<'_>) {
        match state.encode() {
            Ok(bytes) => cx.effects.push(Effect::Save { run: self.id.clone(), slot: Slot::State, bytes }),
            Err(error) => cx.ignore(&self.id, format!("the global state cannot be kept: {error}")),
        }
        self.state = Some(state);
    }

    /// Keeps what was made, and what goes into the next round, for good.
    ///
    /// # Errors
    /// When it has no CBOR form.
    pub(super) fn keep_work(&self, cx: &mut Context<'_>) -> Result<(), WireError> {
        let bytes = self.work.encode()?;
        cx.effects.push(Effect::Save { run: self.id.clone(), slot: Slot::Work, bytes });
        Ok(())
    }

    /// Largest payload about the run's tensors.
    pub(super) fn limit(&self) -> usize {
        self.plan.as_ref().map_or(EARLY_LIMIT, |plan| plan.layout.limit())
    }
}

/// A state that was handed on is in use, or it is not; of a run that may be over by then.
pub(super) fn adopted(run: &RunId, round: u32, outcome: Result<(), String>, goes_on: bool, cx: &mut Context<'_>) {
    let Err(reason) = outcome else { return cx.tell(run, What::Adopted { round }) };
    cx.tell(run, What::NotAdopted { round, reason: reason.clone() });
    if goes_on && cx.connected {
        // Of the round that led to it, which is over: the device may well take part in the next.
        let reason = format!("the adapter after {round} rounds is not used here: {reason}");
        cx.up(Refusal { run: run.clone(), round: round.saturating_sub(1), reason, until: None });
    }
}

/// The tensors in a payload of a run.
pub(super) fn tensors(payload: &[u8], run: &RunId, layout: &Layout) -> Result<Tensors, WireError> {
    match Message::decode(payload, layout.limit())? {
        Message::Tensors(tensors) if tensors.run == *run => Ok(tensors),
        other => Err(WireError::Body { what: "tensors", reason: format!("it is a {} of another run", other.what()) }),
    }
}

/// All tensors of a layout, from a message that holds them all.
pub(super) fn whole(tensors: &Tensors, layout: &Layout) -> Result<Vec<ArrayD<f32>>, WireError> {
    let values = tensors.values(layout)?;
    if values.len() != layout.0.len() {
        return Err(WireError::Count { expected: layout.0.len(), found: values.len() });
    }
    Ok(values.into_iter().map(|(_, value)| value).collect())
}
