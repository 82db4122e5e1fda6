//! Local work going on, and its result.

use std::sync::Arc;

use fedtt_wire::message::{Progress, RunPlan};
use fedtt_wire::{Message, RunId};

use super::delivering::Delivering;
use super::kept::{Done, Settled, State, Task};
use super::participant::Context;
use super::run::{Asked, Phase, Run};
use super::{Effect, Job, LocalPolicy, What};
use crate::local::{LocalResult, Stepped};

/// Milliseconds between two reports of progress.
const REPORT_EVERY: u64 = 5_000;

/// Quiet hours are looked for this often, in milliseconds.
const POLICE_EVERY: u64 = 30_000;

pub(super) struct Training {
    job: u64,
    asked: Asked,
    began: u64,
    reported: u64,
    policed: u64,
    /// Since when it waits for the board.
    paused: Option<u64>,
}

impl Training {
    pub(super) fn task(&self) -> Task {
        self.asked.task
    }

    pub(super) fn due(&self, policy: &LocalPolicy) -> Option<u64> {
        let limit = policy
            .max_seconds
            .filter(|_| self.paused.is_none())
            .map(|seconds| self.began.saturating_add(seconds.saturating_mul(1000)));
        let quiet = policy.quiet.map(|_| self.policed + POLICE_EVERY);
        [limit, quiet].into_iter().flatten().min()
    }

    pub(super) fn leave(self, run: &RunId, cx: &mut Context<'_>) {
        cx.effects.push(Effect::Stop(self.job));
        cx.tell(run, What::Stopped { round: self.asked.task.round });
    }
}

impl Run {
    pub(super) fn train(&mut self, asked: &Asked, plan: Arc<RunPlan>, state: State, cx: &mut Context<'_>) {
        self.leave(cx);
        *cx.jobs += 1;
        let Task { round, goal, .. } = asked.task;
        let job = Job {
            id: *cx.jobs,
            plan,
            round,
            goal,
            mask: asked.mask.clone(),
            rate: asked.rate,
            globals: state.values,
            memory: self.work.memory.clone(),
        };
        self.phase = Phase::Training(Training {
            job: job.id,
            asked: asked.clone(),
            began: cx.now,
            reported: cx.now,
            policed: cx.now,
            paused: None,
        });
        self.admission = None;
        cx.tell(&self.id, What::Training { round, goal });
        cx.effects.push(Effect::Train(Box::new(job)));
    }

    /// Whether a job is this run's present one.
    pub(super) fn has(&self, job: u64) -> bool {
        matches!(&self.phase, Phase::Training(training) if training.job == job)
    }

    pub(super) fn progressed(&mut self, job: u64, stepped: Stepped, cx: &mut Context<'_>) {
        let Phase::Training(training) = &mut self.phase else { return };
        if training.job != job || !cx.connected || cx.now.abs_diff(training.reported) < REPORT_EVERY {
            return;
        }
        training.reported = cx.now;
        let Stepped { step, steps, loss } = stepped;
        let (run, round) = (self.id.clone(), training.asked.task.round);
        cx.up(Progress { run, round, step, steps, loss });
    }

    /// Work waits for the board, for which it is not given less time, or goes on.
    pub(super) fn paused(&mut self, reason: Option<String>, cx: &mut Context<'_>) {
        let Phase::Training(training) = &mut self.phase else { return };
        let round = training.asked.task.round;
        match reason {
            Some(reason) => {
                training.paused.get_or_insert(cx.now);
                cx.tell(&self.id, What::Paused { round, reason });
            }
            None => {
                let waited = training.paused.take().map_or(0, |since| cx.now.saturating_sub(since));
                training.began += waited;
                cx.tell(&self.id, What::Resumed { round });
            }
        }
    }

    /// Stops work that the owner of the device does not allow, or no longer.
    pub(super) fn police(&mut self, cx: &mut Context<'_>) {
        let Phase::Training(training) = &mut self.phase else { return };
        training.policed = cx.now;
        // The clock may be set back.
        training.began = training.began.min(cx.now);
        let limit = cx.policy.max_seconds.filter(|_| training.paused.is_none());
        let limit = limit.filter(|seconds| cx.now >= training.began.saturating_add(seconds.saturating_mul(1000)));
        let too_long = limit.map(|seconds| format!("its work takes longer than the {seconds} s this device allows"));
        let quiet = || cx.policy.objection(cx.now).map(|(reason, until)| (reason, Some(until)));
        if let Some((reason, until)) = too_long.map(|reason| (reason, None)).or_else(quiet) {
            let asked = training.asked.clone();
            self.refuse_until(&asked, reason, until, cx);
        }
    }

    /// Local work ended.
    pub(super) fn trained(
        &mut self,
        outcome: Result<Box<LocalResult>, String>,
        traffic: (u64, u64),
        cx: &mut Context<'_>,
    ) {
        let (Phase::Training(training), Some(plan)) = (&self.phase, self.plan.clone()) else { return };
        let asked = training.asked.clone();
        // Nothing is left to be stopped.
        self.phase = Phase::Waiting;
        let packed = outcome.and_then(|result| {
            let (round, state) = (asked.task.round, asked.task.state);
            let update = result.update((&self.id, plan.began), round, state, &cx.identity.device, traffic);
            let payload = Message::from(update).encode(plan.plan.wire.level).map_err(|e| e.to_string())?;
            Ok((result, payload))
        });
        let (result, payload) = match packed {
            Ok(packed) => packed,
            Err(reason) => return self.refuse(&asked, reason, cx),
        };
        cx.tell(
            &self.id,
            What::Trained {
                round: asked.task.round,
                steps: result.steps,
                loss: result.loss,
                seconds: result.seconds,
                bytes: payload.len(),
            },
        );
        let before = self.work.last.replace(Done {
            task: asked.task,
            attempt: asked.attempt,
            payload,
            chunk: plan.plan.wire.chunk,
            memory: Some(result.memory),
            verdict: Settled::Open,
        });
        if let Err(error) = self.keep_work(cx) {
            self.work.last = before;
            return self.refuse(&asked, error.to_string(), cx);
        }
        self.phase = Phase::Delivering(Delivering::fresh(cx));
        self.deliver(cx);
    }
}
