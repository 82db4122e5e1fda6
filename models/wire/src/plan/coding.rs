//! How tensors are encoded.

use serde::{Deserialize, Serialize};

use super::PlanError;

/// The number format of a tensor's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// IEEE 754 binary32: lossless.
    F32,
    /// The upper half of binary32, rounded to nearest even.
    Bf16,
    /// IEEE 754 binary16.
    F16,
    /// Signed bytes times one scale per tensor.
    #[default]
    Int8,
}

/// How the tensors of a message are encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Coding {
    /// The number format.
    pub encoding: Encoding,
    /// Whether bytes are grouped by significance before compression: helps dense wide values, hurts sparse ones. By
    /// default whichever is smaller, tensor by tensor.
    pub shuffle: Option<bool>,
    /// Whether the difference to the round's global state is sent instead of the values.
    pub delta: bool,
    /// Whether what the encoding lost is added to the next message.
    pub feedback: bool,
}

/// Largest chunk a plan may ask for: the message it comes in has room within what peers take of any.
const LARGEST_CHUNK: usize = 4 << 20;

/// How tensors are encoded, either way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WirePlan {
    /// From devices to the host.
    pub uplink: Coding,
    /// From the host to devices; always the difference to the state before, losses always fed back.
    pub downlink: Encoding,
    /// zstd level.
    pub level: i32,
    /// Largest chunk of a message, in bytes; the broker has to take it in one packet.
    pub chunk: usize,
}

impl Default for Coding {
    fn default() -> Self {
        Coding { encoding: Encoding::Int8, shuffle: None, delta: true, feedback: true }
    }
}

impl Default for WirePlan {
    fn default() -> Self {
        WirePlan { uplink: Coding::default(), downlink: Encoding::Int8, level: 3, chunk: 96 * 1024 }
    }
}

impl WirePlan {
    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        if !(1..=22).contains(&self.level) {
            return Err(PlanError::new("wire.level", format!("{} is not within 1..=22", self.level)));
        }
        if !(1024..=LARGEST_CHUNK).contains(&self.chunk) {
            return Err(PlanError::new("wire.chunk", format!("{} is not within 1 KiB to 4 MiB", self.chunk)));
        }
        if self.uplink.encoding == Encoding::Int8 && !self.uplink.delta {
            let reason = "int8 is too coarse for whole values; send differences (delta = true) or a wider format";
            return Err(PlanError::new("wire.uplink.delta", reason));
        }
        if self.uplink.feedback && !self.uplink.delta {
            let reason = "only differences can carry what was lost before; set delta = true or feedback = false";
            return Err(PlanError::new("wire.uplink.feedback", reason));
        }
        Ok(())
    }
}
