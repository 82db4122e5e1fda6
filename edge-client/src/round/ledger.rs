//! What a device must not be told twice: how far each run was followed, and which are over. It outlives the runs' files, so
//! that what a host said long ago, signature and all, makes nobody train again.

use std::collections::BTreeMap;

use fedtt_wire::{RunId, WireError, frame};
use serde::{Deserialize, Serialize};

/// Kind of frame, beyond those of messages and of other files.
const LEDGER: u8 = 103;

/// Most runs remembered.
const MOST: usize = 512;

/// How far the runs of a device were followed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// Runs that began up to then and are not among those below were forgotten, and are over.
    floor: u64,
    runs: BTreeMap<RunId, Followed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Followed {
    /// Which run of its name.
    began: u64,
    /// The last manifest that asked for something.
    issued: u64,
    ended: bool,
}

impl Ledger {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (found, body) = frame::open(bytes, bytes.len())?;
        if found != LEDGER {
            return Err(WireError::Kind(found));
        }
        frame::body("ledger", &body)
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, WireError> {
        frame::encode(LEDGER, self, 0)
    }

    /// Why a run is not followed, if it is not: it is over, or an earlier one of its name.
    pub(super) fn objection(&self, run: &RunId, began: u64) -> Option<&'static str> {
        match self.runs.get(run) {
            Some(known) if began < known.began => Some("an earlier run of this name"),
            Some(known) if began == known.began && known.ended => Some("this run is over"),
            None if began <= self.floor => Some("a run of long ago"),
            _ => None,
        }
    }

    /// The least number a manifest of a run may have.
    pub(super) fn issued(&self, run: &RunId, began: u64) -> u64 {
        self.runs.get(run).filter(|known| known.began == began).map_or(0, |known| known.issued)
    }

    /// A manifest asked for something. Returns whether that is new.
    pub(super) fn asked(&mut self, run: &RunId, began: u64, issued: u64) -> bool {
        if self.objection(run, began).is_some() || (self.issued(run, began) >= issued && self.runs.contains_key(run)) {
            return false;
        }
        self.enter(run, Followed { began, issued, ended: false });
        true
    }

    /// A run is over. Returns whether that is new.
    pub(super) fn ended(&mut self, run: &RunId, began: u64) -> bool {
        if self.objection(run, began).is_some() {
            return false;
        }
        let issued = self.issued(run, began);
        self.enter(run, Followed { began, issued, ended: true });
        true
    }

    fn enter(&mut self, run: &RunId, followed: Followed) {
        self.runs.insert(run.clone(), followed);
        while self.runs.len() > MOST {
            // Those that are over first.
            let oldest = self.runs.iter().min_by_key(|(_, known)| (!known.ended, known.began));
            let Some((oldest, began)) = oldest.map(|(run, known)| (run.clone(), known.began)) else { return };
            self.runs.remove(&oldest);
            self.floor = self.floor.max(began);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run(n: u64) -> RunId {
        RunId::new(format!("r{n}")).unwrap()
    }

    #[test]
    fn what_was_said_counts_once_also_after_a_restart() {
        let mut ledger = Ledger::default();
        assert!(ledger.asked(&run(1), 100, 7) && !ledger.asked(&run(1), 100, 7) && ledger.asked(&run(1), 100, 9));
        let mut ledger = Ledger::decode(&ledger.encode().unwrap()).unwrap();
        assert_eq!((ledger.issued(&run(1), 100), ledger.issued(&run(1), 101)), (9, 0));
        assert!(ledger.objection(&run(1), 99).is_some() && ledger.objection(&run(1), 101).is_none());
        assert!(ledger.ended(&run(1), 100) && !ledger.ended(&run(1), 100));
        assert!(!ledger.asked(&run(1), 100, 11), "it is over");
        assert_eq!(ledger.objection(&run(1), 100), Some("this run is over"));
        assert!(ledger.asked(&run(1), 200, 1), "another of its name");
        assert!(Ledger::decode(b"FT").is_err());
    }

    #[test]
    fn its_size_is_bounded_and_what_is_forgotten_stays_over() {
        let mut ledger = Ledger::default();
        assert!(ledger.asked(&run(0), 5, 1));
        for n in 1..=2 * MOST as u64 {
            assert!(ledger.ended(&run(n), 10 + n));
        }
        assert_eq!(ledger.runs.len(), MOST);
        assert!(ledger.objection(&run(0), 5).is_none(), "it goes on");
        assert!(ledger.objection(&run(1), 11).is_some() && ledger.objection(&run(5000), 5000).is_none());
        assert!(ledger.encode().unwrap().len() < 64 * MOST);
    }
}
