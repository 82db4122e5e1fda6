//! What comes in, and what is known of those it comes from.

use fedtt_wire::message::Presence;
use fedtt_wire::{DeviceName, RunId, Topic};

use crate::record::Measured;
use crate::run::Candidate;

/// What comes in.
#[derive(Debug)]
pub enum Input {
    /// A message from the broker.
    Message {
        /// Where it was published.
        topic: Topic,
        /// Its bytes; empty where something retained was cleared.
        payload: Vec<u8>,
    },
    /// A message that goes no further.
    Untrusted {
        /// In whose name it came.
        device: DeviceName,
        /// What is wrong with it.
        kind: Untrusted,
        /// The same, for people.
        reason: String,
    },
    /// A device was put out of the fleet.
    Gone {
        /// Which.
        device: DeviceName,
    },
    /// The host measured what a round ended with.
    Measured {
        /// The run.
        run: RunId,
        /// The round.
        round: u32,
        /// The values measured.
        values: Vec<ndarray::ArrayD<f32>>,
        /// What came of it.
        measured: Measured,
    },
    /// The host could not measure what a round ended with.
    Unmeasured {
        /// The run.
        run: RunId,
        /// The round.
        round: u32,
        /// Why.
        reason: String,
    },
}

/// Why a message that came in the name of a device is not looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untrusted {
    /// It is not signed by that device, or by one that is not trusted.
    Forged,
    /// It is, and was said before something that is known already.
    Replayed,
}

/// What is known of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// What it said of itself.
    pub presence: Presence,
    /// Unix milliseconds of its last message.
    pub last_seen: u64,
    /// Why it refused last, and which run.
    pub last_refusal: Option<(RunId, String)>,
}

impl Device {
    /// As one that could be asked to take part, if it is there and can.
    pub fn candidate(&self, name: &DeviceName) -> Option<Candidate> {
        let Presence { labels, bundles, fetches, .. } = &self.presence;
        (self.presence.online && self.presence.problem.is_none()).then(|| Candidate {
            name: name.clone(),
            labels: labels.clone(),
            bundles: bundles.clone(),
            fetches: *fetches,
        })
    }
}
