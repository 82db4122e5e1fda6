//! Energy: the power of the whole board, integrated.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::{Board, Rails};

/// Time between two looks at the rails. The monitors average over about as long themselves.
const PERIOD: Duration = Duration::from_millis(150);

/// Adds up, on a thread of its own, the energy the board takes until it is stopped.
pub struct Meter {
    stop: Sender<Told>,
    thread: JoinHandle<Option<f64>>,
}

enum Told {
    Pause,
    GoOn,
}

impl Meter {
    /// Starts to measure; `None` where the board's rails do not tell what it takes in all.
    pub fn start(board: &Board) -> Option<Self> {
        let rails = board.rails();
        if !rails.measure_all() {
            return None;
        }
        let (stop, told) = channel();
        let measure = move || {
            let mut sum = Integral::default();
            loop {
                sum.add(Instant::now(), rails.watts());
                let mut next = told.recv_timeout(PERIOD);
                while let Ok(Told::Pause) = next {
                    sum.add(Instant::now(), rails.watts());
                    sum.interrupt();
                    next = told.recv().map_err(|_| RecvTimeoutError::Disconnected);
                }
                if let Err(RecvTimeoutError::Disconnected) = next {
                    sum.add(Instant::now(), rails.watts());
                    return sum.joules();
                }
            }
        };
        let thread = Builder::new().name("energy".into()).stack_size(64 * 1024).spawn(measure).ok()?;
        Some(Meter { stop, thread })
    }

    /// Leaves out what is taken from now on.
    pub fn pause(&self) {
        // The thread is there until the meter is finished.
        let _ = self.stop.send(Told::Pause);
    }

    /// Counts again.
    pub fn go_on(&self) {
        let _ = self.stop.send(Told::GoOn);
    }

    /// The energy in joules since it was started, pauses left out; `None` if the rails could not be read.
    pub fn finish(self) -> Option<f64> {
        drop(self.stop);
        self.thread.join().ok().flatten()
    }
}

/// The integral of power over time, by the trapezoidal rule.
#[derive(Default)]
struct Integral {
    joules: f64,
    measured: bool,
    last: Option<(Instant, f64)>,
}

/// Over a longer time without a reading nothing is known.
const GAP: Duration = Duration::from_secs(10);

impl Integral {
    fn add(&mut self, now: Instant, watts: Option<f64>) {
        let Some(watts) = watts else { return };
        if let Some((then, before)) = self.last {
            let passed = now.saturating_duration_since(then);
            if passed <= GAP {
                self.joules += passed.as_secs_f64() * (watts + before) / 2.0;
                self.measured |= !passed.is_zero();
            }
        }
        self.last = Some((now, watts));
    }

    fn interrupt(&mut self) {
        self.last = None;
    }

    fn joules(&self) -> Option<f64> {
        self.measured.then_some(self.joules)
    }
}

impl Rails {
    /// The energy of power readings `(seconds, watts)`, in joules.
    #[cfg(test)]
    pub(super) fn integrate(readings: &[(f64, Option<f64>)]) -> Option<f64> {
        let begin = Instant::now();
        let mut sum = Integral::default();
        readings.iter().for_each(|(at, watts)| sum.add(begin + Duration::from_secs_f64(*at), *watts));
        sum.joules()
    }
}
