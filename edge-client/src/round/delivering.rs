//! An update in the outbox: sent in chunks, and repeated until the host has said what becomes of it.

use fedtt_wire::Digest;
use fedtt_wire::chunk;
use fedtt_wire::message::{Manifest, Outcome, Verdict};

use super::What;
use super::kept::Settled;
use super::participant::Context;
use super::retry::Retry;
use super::run::{Phase, Run};

pub(super) struct Delivering {
    retry: Option<Retry>,
    /// Whether all chunks were given to the broker once.
    sent: bool,
}

impl Delivering {
    /// Of an update that was just made.
    pub(super) fn fresh(cx: &mut Context<'_>) -> Self {
        Delivering { retry: Some(Retry::new(cx.now, cx.pace, cx.rng)), sent: false }
    }

    /// Of one that was made before the process started.
    pub(super) fn resumed() -> Self {
        Delivering { retry: None, sent: true }
    }

    pub(super) fn due(&self) -> u64 {
        self.retry.as_ref().map_or(0, Retry::due)
    }
}

impl Run {
    /// Sends all of the update, if there is someone to send it to.
    pub(super) fn deliver(&mut self, cx: &mut Context<'_>) {
        self.send(None, cx);
    }

    /// Sends the chunks listed, or all.
    fn send(&mut self, only: Option<&[u32]>, cx: &mut Context<'_>) {
        let (Phase::Delivering(delivering), Some(done)) = (&mut self.phase, &self.work.last) else { return };
        if !cx.connected {
            return;
        }
        delivering.sent |= only.is_none();
        let parcel = chunk::parcel(&done.payload, done.chunk);
        for index in (0..parcel.chunks).filter(|index| only.is_none_or(|only| only.contains(index))) {
            cx.up(chunk::part(&self.id, done.task.round, parcel, &done.payload, done.chunk, index));
        }
    }

    /// Time passed without a verdict: the last chunk makes the host say what it lacks.
    pub(super) fn deliver_again(&mut self, cx: &mut Context<'_>) {
        let (Phase::Delivering(delivering), Some(done)) = (&mut self.phase, &self.work.last) else { return };
        if !cx.connected || delivering.retry.as_ref().is_some_and(|retry| !retry.is_due(cx.now)) {
            return;
        }
        match &mut delivering.retry {
            Some(retry) => retry.again(cx.now, cx.rng),
            none => *none = Some(Retry::new(cx.now, cx.pace, cx.rng)),
        }
        let last = chunk::parcel(&done.payload, done.chunk).chunks - 1;
        match delivering.sent {
            true => self.send(Some(&[last]), cx),
            false => self.send(None, cx),
        }
    }

    pub(super) fn deliver_soon(&mut self, cx: &mut Context<'_>) {
        if let Phase::Delivering(delivering) = &mut self.phase {
            delivering.retry = Some(Retry::soon(cx.now, cx.pace, cx.rng));
        }
    }

    /// The round whose work is done goes on: with another attempt, the update may still be wanted.
    pub(super) fn deliver_to(&mut self, attempt: u32, cx: &mut Context<'_>) {
        let Some(done) = &mut self.work.last else { return };
        if attempt <= done.attempt || done.verdict == Settled::Rejected {
            return;
        }
        done.attempt = attempt;
        done.verdict = Settled::Open;
        self.leave(cx);
        self.phase = Phase::Delivering(Delivering { retry: Some(Retry::new(cx.now, cx.pace, cx.rng)), sent: true });
        self.deliver(cx);
    }

    /// The host has said what becomes of an update.
    pub(super) fn judged(&mut self, verdict: Verdict, cx: &mut Context<'_>) {
        let (Phase::Delivering(delivering), Some(done)) = (&mut self.phase, &self.work.last) else { return };
        if verdict.update != Digest::of(&done.payload) {
            return;
        }
        match verdict.outcome {
            Outcome::Missing(chunks) => {
                delivering.retry = Some(Retry::new(cx.now, cx.pace, cx.rng));
                self.send(Some(&chunks), cx);
            }
            Outcome::Accepted | Outcome::Duplicate => self.settle(Settled::Counted, None, cx),
            Outcome::Late => self.settle(Settled::Late, None, cx),
            Outcome::Rejected(reason) => self.settle(Settled::Rejected, Some(reason), cx),
        }
    }

    /// A later round tells what became of an open update, also if the verdict was lost.
    pub(super) fn settle_by(&mut self, manifest: &Manifest, cx: &mut Context<'_>) {
        let Some(done) = &mut self.work.last else { return };
        if done.verdict != Settled::Open || manifest.round <= done.task.round {
            return;
        }
        let next = manifest.round == done.task.round + 1;
        if !next && let Some(memory) = done.memory.take() {
            // It may have counted, and with it what coding had left over before: that is not sent twice.
            self.work.memory = memory;
        }
        let counted = next && manifest.counted.contains(&cx.identity.device);
        self.settle(if counted { Settled::Counted } else { Settled::Late }, None, cx);
    }

    /// Closes the delivery; what was to be kept of a counted update is adopted.
    pub(super) fn settle(&mut self, verdict: Settled, reason: Option<String>, cx: &mut Context<'_>) {
        let Some(done) = &mut self.work.last else { return };
        done.verdict = verdict;
        if verdict == Settled::Counted
            && let Some(memory) = done.memory.take()
        {
            self.work.memory = memory;
        }
        let round = done.task.round;
        let outcome = match verdict {
            Settled::Counted => "counted",
            Settled::Late => "late",
            Settled::Rejected => "rejected",
            Settled::Open => "open",
        };
        if let Err(error) = self.keep_work(cx) {
            cx.ignore(&self.id, format!("what the device keeps cannot be stored: {error}"));
        }
        cx.tell(&self.id, What::Delivered { round, outcome, reason });
        if matches!(self.phase, Phase::Delivering(_)) {
            self.phase = Phase::Waiting;
        }
    }
}
