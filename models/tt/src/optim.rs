//! AdamW (Loshchilov and Hutter 2019) with a learning-rate schedule, global-norm clipping and masks.

mod adamw;
mod schedule;

pub use adamw::{AdamW, AdamWConfig, AdamWState, Group, StepReport};
pub use schedule::{Decay, Schedule};
