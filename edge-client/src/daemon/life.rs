//! Signs of life of the event loop and the training thread, for a watchdog.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A piece of training, loading a model or a step, may take this long whatever came before.
const PATIENCE: Duration = Duration::from_secs(600);

/// Beyond that it may take so many times the longest piece yet.
const FACTOR: u32 = 4;

/// Signs of life, seen by all clones.
#[derive(Clone, Debug)]
pub(super) struct Life(Arc<Signs>);

#[derive(Debug)]
struct Signs {
    began: Instant,
    events: Sign,
    training: Sign,
}

/// Milliseconds since the beginning, from 1; 0 for never.
#[derive(Debug, Default)]
struct Sign {
    /// When the present piece of work began; 0 while waiting.
    busy: AtomicU64,
    /// The longest piece that was done.
    longest: AtomicU64,
}

impl Life {
    pub(super) fn new() -> Self {
        Life(Arc::new(Signs { began: Instant::now(), events: Sign::default(), training: Sign::default() }))
    }

    fn now(&self) -> u64 {
        1 + self.0.began.elapsed().as_millis() as u64
    }

    /// The event loop has something to do, or has done it.
    pub(super) fn events_busy(&self, busy: bool) {
        self.0.events.set(busy, self.now());
    }

    /// The training thread begins a piece of work (and has done the one before), or waits.
    pub(super) fn training_busy(&self, busy: bool) {
        self.0.training.set(busy, self.now());
    }

    /// Whether both are alive: the event loop has worked on one thing for no longer than `limit`; the training thread on one
    /// piece for no longer than ten minutes or four times the longest so far, since steps of large models take minutes.
    pub(super) fn is_seen(&self, limit: Duration) -> bool {
        let patience = PATIENCE.max(self.0.training.longest().saturating_mul(FACTOR));
        self.0.events.is_alive(self.now(), limit) && self.0.training.is_alive(self.now(), patience)
    }
}

impl Sign {
    fn set(&self, busy: bool, now: u64) {
        let began = self.busy.swap(if busy { now } else { 0 }, Ordering::Relaxed);
        if began > 0 {
            self.longest.fetch_max(now.saturating_sub(began), Ordering::Relaxed);
        }
    }

    fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.load(Ordering::Relaxed))
    }

    fn is_alive(&self, now: u64, limit: Duration) -> bool {
        let began = self.busy.load(Ordering::Relaxed);
        began == 0 || Duration::from_millis(now.saturating_sub(began)) <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_alive_and_who_works_too_long_is_not() {
        let sign = Sign::default();
        let limit = Duration::from_secs(60);
        assert!(sign.is_alive(1, limit) && sign.is_alive(u64::MAX, limit));
        sign.set(true, 1_000);
        assert!(sign.is_alive(61_000, limit) && !sign.is_alive(61_001, limit));
        // The next piece.
        sign.set(true, 50_000);
        assert!(sign.is_alive(110_000, limit));
        assert_eq!(sign.longest(), Duration::from_secs(49));
        sign.set(false, 60_000);
        assert!(sign.is_alive(u64::MAX, limit));
    }
}
