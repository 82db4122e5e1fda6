//! When something is said again.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// How often a device repeats itself, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Before the first repetition of what was not answered.
    pub first: u64,
    /// The longest time between two.
    pub longest: u64,
    /// Devices that reconnect together do not speak at once, but within this.
    pub spread: u64,
    /// Between two times of announcing itself and asking what rounds there are, for what a broker may have lost.
    pub listen: u64,
}

impl Default for Pace {
    /// 5 s, doubling to 5 minutes; 2 s of spread; 10 minutes.
    fn default() -> Self {
        Pace { first: 5_000, longest: 300_000, spread: 2_000, listen: 600_000 }
    }
}

/// Repetition with waits that double, each drawn between its half and its whole.
#[derive(Clone, Debug)]
pub(super) struct Retry {
    pace: Pace,
    since: u64,
    due: u64,
    wait: u64,
}

impl Retry {
    /// Begins now.
    pub(super) fn new(now: u64, pace: Pace, rng: &mut ChaCha8Rng) -> Self {
        let mut retry = Retry { pace, since: now, due: now, wait: pace.first };
        retry.again(now, rng);
        retry
    }

    /// Due very soon, whatever was before.
    pub(super) fn soon(now: u64, pace: Pace, rng: &mut ChaCha8Rng) -> Self {
        Retry { pace, since: now, due: now + rng.random_range(0..pace.spread.max(1)), wait: pace.first }
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
        self.wait = (self.wait * 2).min(self.pace.longest);
    }
}
