//! What happens in a run, for its log, for `watch` and for the live page.

use serde::{Deserialize, Serialize};

use crate::record::{Measured, Status};

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The run was started.
    Started,
    /// Taken up again by a host that was restarted.
    Restored,
    /// Too few devices to begin a round.
    Waiting {
        /// Those that could take part.
        present: usize,
        /// Those needed.
        needed: usize,
    },
    /// A round began.
    RoundBegan {
        /// Times it was begun before.
        attempt: u32,
        /// Devices asked.
        cohort: usize,
        /// Values that train.
        trained: u64,
    },
    /// An update counts.
    Accepted {
        /// From whom.
        device: String,
        /// So many of the round are in.
        received: usize,
        /// So many are waited for.
        expected: usize,
    },
    /// A device gets the run's bundle before it can take part.
    Fetching {
        /// Which.
        device: String,
    },
    /// A message does not count.
    Refused {
        /// From whom.
        device: String,
        /// late, duplicate, foreign, malformed or outlying.
        kind: String,
        /// Why.
        reason: String,
    },
    /// A device does not take part.
    Declined {
        /// Which.
        device: String,
        /// Why.
        reason: String,
    },
    /// A round failed and is begun again.
    RoundFailed {
        /// Why.
        reason: String,
    },
    /// A round is over.
    RoundEnded {
        /// Updates aggregated.
        updates: usize,
        /// Seconds it took.
        seconds: f64,
        /// What the adapter it began with measured on devices.
        before: Option<Measured>,
    },
    /// The host measured the adapter a round ended with; the event's round is how many rounds that had.
    Measured {
        /// What it measured.
        after: Measured,
    },
    /// The run's status changed.
    Status {
        /// To what.
        status: Status,
        /// Why, where that needs saying.
        reason: Option<String>,
    },
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunEvent {
    /// Unix milliseconds.
    pub time: u64,
    /// In which run.
    pub run: String,
    /// In which round.
    pub round: u32,
    /// What.
    #[serde(flatten)]
    pub what: What,
}
