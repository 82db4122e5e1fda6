//! Before work begins: whether the board may train now, and waiting until it may.

use std::sync::Arc;

use fedtt_wire::message::RunPlan;

use super::participant::Context;
use super::run::{Asked, Run};
use super::{Effect, What};

/// What the board said holds for so long, in milliseconds.
const FRESH: u64 = 4_000;

/// A board that may not train is looked at this often, in milliseconds.
const LOOK_EVERY: u64 = 5_000;

/// Work that waits for the board.
#[derive(Debug)]
pub(super) struct Admission {
    round: u32,
    attempt: u32,
    /// When the round came up, and until when work can wait.
    since: u64,
    patience: u64,
    /// When the board was last asked about, while it has not answered.
    asked: bool,
    /// When it answered, and why it may not train.
    answer: Option<(u64, Option<String>)>,
    /// Whether people were told that it waits.
    told: bool,
}

impl Admission {
    fn of(asked: &Asked, seconds: u64, now: u64) -> Self {
        // A refusal should reach the host before the round is over.
        let patience = seconds.saturating_mul(900);
        Admission {
            round: asked.task.round,
            attempt: asked.attempt,
            since: now,
            patience,
            asked: false,
            answer: None,
            told: false,
        }
    }

    /// When time alone brings something next.
    pub(super) fn due(&self) -> Option<u64> {
        let (answered, objection) = self.answer.as_ref()?;
        objection.as_ref()?;
        let deadline = self.since.saturating_add(self.patience);
        Some(if self.asked { deadline } else { deadline.min(answered + LOOK_EVERY) })
    }
}

impl Run {
    /// Whether work may begin; if not, the board is looked at again until it may or the round is nearly over.
    pub(super) fn may_begin(&mut self, asked: &Asked, plan: &Arc<RunPlan>, cx: &mut Context<'_>) -> bool {
        if !cx.policy.limited {
            return true;
        }
        let seconds = self.manifest.as_ref().map_or(0, |manifest| manifest.seconds);
        let same = |a: &Admission| (a.round, a.attempt) == (asked.task.round, asked.attempt);
        if !self.admission.as_ref().is_some_and(same) {
            self.admission = Some(Admission::of(asked, seconds, cx.now));
        }
        let Some(admission) = &mut self.admission else { return true };
        // The clock may be set back.
        admission.since = admission.since.min(cx.now);
        match &admission.answer {
            Some((answered, None)) if cx.now.abs_diff(*answered) <= FRESH => {
                if std::mem::take(&mut admission.told) {
                    cx.tell(&self.id, What::Resumed { round: asked.task.round });
                }
                return true;
            }
            Some((_, Some(reason))) if cx.now >= admission.since.saturating_add(admission.patience) => {
                let reason = reason.clone();
                self.admission = None;
                self.refuse(asked, reason, cx);
                return false;
            }
            Some((answered, Some(_))) if cx.now.abs_diff(*answered) < LOOK_EVERY => return false,
            _ => {}
        }
        if !admission.asked {
            admission.asked = true;
            cx.effects.push(Effect::Look(plan.clone()));
        }
        false
    }

    /// The board was looked at.
    pub(super) fn looked(&mut self, objection: Option<String>, cx: &mut Context<'_>) {
        let Some(admission) = &mut self.admission else { return };
        admission.asked = false;
        admission.answer = Some((cx.now, objection.clone()));
        if let Some(reason) = objection
            && !admission.told
        {
            admission.told = true;
            let round = admission.round;
            cx.tell(&self.id, What::Held { round, reason });
        }
        self.go_on(cx);
    }

    /// Time passed while work waits for the board.
    pub(super) fn look_again(&mut self, cx: &mut Context<'_>) {
        let is_due = |run: &Run, now| run.admission.as_ref().and_then(Admission::due).is_some_and(|due| now >= due);
        if is_due(self, cx.now) {
            self.go_on(cx);
            // Nothing waits where nothing became of it.
            if is_due(self, cx.now) {
                self.admission = None;
            }
        }
    }

    /// Whatever waited is of no interest any more.
    pub(super) fn stop_waiting(&mut self, cx: &mut Context<'_>) {
        if let Some(Admission { told: true, round, .. }) = self.admission.take() {
            cx.tell(&self.id, What::Stopped { round });
        }
    }
}
