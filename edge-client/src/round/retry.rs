//! When something is said again.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Milliseconds before the first repetition.
const FIRST: u64 = 5_000;
/// Longest time between two.
const LONGEST: u64 = 300_000;
/// Devices that reconnect together do not speak at once.
const SPREAD: u64 = 2_000;

/// Repetition with waits that double, each drawn between its half and its whole.
#[derive(Clone, Debug)]
pub(super) struct Retry {
    since: u64,
    due: u64,
    wait: u64,
}

impl Retry {
    /// Begins now.
    pub(super) fn new(now: u64, rng: &mut ChaCha8Rng) -> Self {
        let mut retry = Retry { since: now, due: now, wait: FIRST };
        retry.again(now, rng);
        retry
    }

    /// Due very soon, whatever was before.
    pub(super) fn soon(now: u64, rng: &mut ChaCha8Rng) -> Self {
        Retry { since: now, due: now + rng.random_range(0..SPREAD), wait: FIRST }
    }

    pub(super) fn due(&self) -> u64 {
        self.due
    }

    /// Whether it is time; also when the clock was set back, which boards without a battery do once they know the time.
    pub(super) fn is_due(&self, now: u64) -> bool {
        now >= self.due || now < self.since
    }

    /// It is said again now.
    pub(super) fn again(&mut self, now: u64, rng: &mut ChaCha8Rng) {
        self.since = now;
        self.due = now + rng.random_range(self.wait / 2..=self.wait);
        self.wait = (self.wait * 2).min(LONGEST);
    }
}
