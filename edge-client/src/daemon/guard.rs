//! The board, watched by the training thread: before work, and between its steps.

use std::time::{Duration, Instant};

use crate::board::{Board, Gate, Limits, Meter, Objection};

/// Time between two looks at the board while it trains, or waits to go on.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Work that waits for memory is given up after this: holding still frees none.
const MEMORY_PATIENCE: Duration = Duration::from_secs(60);

/// A board with its owner's limits.
pub(super) struct Guard {
    board: Board,
    gate: Gate,
    limited: bool,
    looked: Option<Instant>,
    pace: GuardPace,
}

/// How often a board is looked at, and how long is waited for memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct GuardPace {
    pub(super) look_every: Duration,
    pub(super) memory_patience: Duration,
}

impl Default for GuardPace {
    fn default() -> Self {
        GuardPace { look_every: LOOK_EVERY, memory_patience: MEMORY_PATIENCE }
    }
}

/// What becomes of work that the board objects to.
pub(super) enum Hold<'a> {
    /// It waits: why, once; nothing once it goes on.
    Told(Option<&'a str>),
    /// It waits, up to this long until the board is looked at again; returns whether it is to stop.
    Wait(Duration),
}

impl Guard {
    pub(super) fn new(board: Board, limits: Limits) -> Self {
        let limited = limits != Limits::none();
        Guard { board, gate: Gate::new(limits), limited, looked: None, pace: GuardPace::default() }
    }

    /// The same at another pace.
    #[cfg(test)]
    pub(super) fn paced(self, pace: GuardPace) -> Self {
        Guard { pace, ..self }
    }

    /// Why work that takes `need` more bytes may not begin now, if it may not.
    pub(super) fn objection(&mut self, need: u64) -> Option<Objection> {
        if !self.limited {
            return None;
        }
        let readings = self.board.read_limited(self.gate.limits());
        self.gate.objection(&readings, need)
    }

    /// What measures the energy of work, if the board can tell it.
    pub(super) fn meter(&self) -> Option<Meter> {
        Meter::start(&self.board)
    }

    /// To be called between steps: looks at the board every second and, while it objects, waits. `hold` is told, and waits.
    ///
    /// # Errors
    /// Why the work is given up.
    pub(super) fn pass(&mut self, hold: &mut dyn FnMut(Hold<'_>) -> bool) -> Result<(), String> {
        if !self.limited || self.looked.is_some_and(|looked| looked.elapsed() < self.pace.look_every) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let Some(mut objection) = self.objection(0) else { return Ok(()) };
        hold(Hold::Told(Some(&objection.to_string())));
        let began = Instant::now();
        loop {
            if objection.is_ours() && began.elapsed() >= self.pace.memory_patience {
                return Err(objection.to_string());
            }
            if hold(Hold::Wait(self.pace.look_every)) {
                // Whoever stops it has no use for a word that it goes on.
                return Ok(());
            }
            match self.objection(0) {
                Some(still) => objection = still,
                None => {
                    self.looked = Some(Instant::now());
                    hold(Hold::Told(None));
                    return Ok(());
                }
            }
        }
    }
}
