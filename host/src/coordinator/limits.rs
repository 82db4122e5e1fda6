//! What the broker takes, and whether a run keeps to it: a packet beyond ends the host's connection, again and again, and of what is
//! retained beyond nobody ever hears.

use fedtt_wire::plan::PlanError;

use crate::run::{Effect, Run};

/// Bytes of a chunk's message beside the chunk: frame, names, digest, seal, MQTT header.
const BESIDE: usize = 1024;

/// What the broker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a packet.
    pub packet: usize,
    /// Retained messages that a run's state may take, as many again being for its changes.
    pub chunks: u32,
}

impl Default for Limits {
    /// None at all, as among virtual devices.
    fn default() -> Self {
        Limits { packet: usize::MAX, chunks: u32::MAX }
    }
}

impl Limits {
    /// Whether a run that was just started, with what it has to say, keeps to them.
    pub(super) fn check(self, run: &Run, effects: &[Effect]) -> Result<(), PlanError> {
        let wrong = |field: &str, reason| Err(PlanError { field: field.into(), reason });
        let Limits { packet, chunks: most } = self;
        let chunk = run.plan().wire.chunk;
        if chunk.saturating_add(BESIDE) > packet {
            let reason = format!(
                "{chunk} bytes, and up to {BESIDE} beside them, are more than the broker takes in a packet, {packet} bytes; \
                 the default, 98304, suits nearly all brokers (or raise `max_packet`, of the broker and in host.toml)"
            );
            return wrong("wire.chunk", reason);
        }
        for effect in effects {
            match effect {
                Effect::Publish { payload, .. } if payload.len().saturating_add(BESIDE) > packet => {
                    let reason = format!(
                        "the plan's announcement has {} bytes, more than the broker takes in a packet, {packet} bytes: there are \
                         too many labels, or layers",
                        payload.len()
                    );
                    return wrong("model", reason);
                }
                Effect::Broadcast(broadcast) if broadcast.chunks() > most => {
                    let least = broadcast.bytes().div_ceil(most as usize).next_multiple_of(1024);
                    let reason = format!(
                        "at {chunk} bytes the state is {} messages, and more than {most} are not kept by every broker: it has to be \
                         {least} at least",
                        broadcast.chunks()
                    );
                    return wrong("wire.chunk", reason);
                }
                _ => {}
            }
        }
        Ok(())
    }
}
