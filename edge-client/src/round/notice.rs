//! What a participant tells people.

use std::fmt;

use fedtt_wire::RunId;
use fedtt_wire::message::Goal;
use serde::Serialize;

/// What happened, for a log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Notice {
    /// The run it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The broker is reached.
    Connected,
    /// A run is announced.
    Announced {
        /// Its plan's name.
        name: String,
        /// Values of its global state.
        values: usize,
    },
    /// A run is over.
    Over,
    /// A plan's model is being loaded.
    Preparing,
    /// A bundle is coming in.
    FetchingBundle {
        /// Its hash.
        bundle: String,
        /// Bytes that are here.
        have: u64,
        /// Of so many; 0 as long as that is not known.
        bytes: u64,
    },
    /// A bundle is here.
    FetchedBundle {
        /// Its hash.
        bundle: String,
    },
    /// The global adapter is in use on this device.
    Adopted {
        /// Rounds that led to it.
        round: u32,
    },
    /// The global adapter is not used on this device; the one before it stays in use.
    NotAdopted {
        /// Rounds that led to it.
        round: u32,
        /// Why.
        reason: String,
    },
    /// The global state is asked for.
    Fetching {
        /// The round it is for.
        round: u32,
    },
    /// Local work waits for the board before it begins.
    Held {
        /// The round.
        round: u32,
        /// What it waits for.
        reason: String,
    },
    /// Local work waits for the board.
    Paused {
        /// The round.
        round: u32,
        /// What it waits for.
        reason: String,
    },
    /// Local work goes on.
    Resumed {
        /// The round.
        round: u32,
    },
    /// Local work begins.
    Training {
        /// The round.
        round: u32,
        /// What is asked.
        goal: Goal,
    },
    /// Local work is done and its update is on its way.
    Trained {
        /// The round.
        round: u32,
        /// Steps done.
        steps: u32,
        /// Their mean loss.
        loss: f64,
        /// Seconds it took.
        seconds: f64,
        /// Bytes of the update.
        bytes: usize,
    },
    /// Local work was stopped: the round is over.
    Stopped {
        /// The round.
        round: u32,
    },
    /// What became of an update.
    Delivered {
        /// The round.
        round: u32,
        /// counted, late or rejected.
        outcome: &'static str,
        /// Why, if rejected.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The device does not take part.
    Refused {
        /// The round.
        round: u32,
        /// Why.
        reason: String,
    },
    /// A message is of no use.
    Ignored {
        /// Which and why.
        reason: String,
    },
    /// A file is of no use and is put aside.
    SetAside {
        /// Which and why.
        reason: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(run) = &self.run {
            write!(f, "{run}: ")?;
        }
        match &self.what {
            What::Connected => write!(f, "connected"),
            What::Announced { name, values } => write!(f, "announced: {name}, {values} values"),
            What::Over => write!(f, "over"),
            What::Preparing => write!(f, "loading the model"),
            What::FetchingBundle { bundle, bytes: 0, .. } => write!(f, "fetching bundle {bundle}"),
            What::FetchingBundle { bundle, have, bytes } => {
                write!(f, "fetching bundle {bundle}: {have} of {bytes} bytes")
            }
            What::FetchedBundle { bundle } => write!(f, "bundle {bundle} is here"),
            What::Adopted { round } => write!(f, "the adapter after {round} rounds is in use"),
            What::NotAdopted { round, reason } => {
                write!(f, "the adapter after {round} rounds is not used, the one before it is: {reason}")
            }
            What::Fetching { round } => write!(f, "round {round}: asking for the global state"),
            What::Held { round, reason } => write!(f, "round {round}: waiting: {reason}"),
            What::Paused { round, reason } => write!(f, "round {round}: pausing: {reason}"),
            What::Resumed { round } => write!(f, "round {round}: going on"),
            What::Training { round, goal: Goal::Measure } => write!(f, "round {round}: measuring"),
            What::Training { round, .. } => write!(f, "round {round}: training"),
            What::Trained { round, steps: 0, bytes, seconds, .. } => {
                write!(f, "round {round}: measured in {seconds:.1} s, {bytes} bytes to send")
            }
            What::Trained { round, steps, loss, seconds, bytes } => {
                write!(f, "round {round}: {steps} steps in {seconds:.1} s, loss {loss:.3}, {bytes} bytes to send")
            }
            What::Stopped { round } => write!(f, "round {round}: over before its work was done"),
            What::Delivered { round, outcome, reason: None } => write!(f, "round {round}: update {outcome}"),
            What::Delivered { round, outcome, reason: Some(why) } => {
                write!(f, "round {round}: update {outcome}: {why}")
            }
            What::Refused { round, reason } => write!(f, "round {round}: not taking part: {reason}"),
            What::Ignored { reason } => write!(f, "ignored: {reason}"),
            What::SetAside { reason } => write!(f, "put aside: {reason}"),
        }
    }
}
