//! The optimiser: AdamW (Loshchilov and Hutter 2019), Muon for matrices that ask for it, a learning-rate schedule,
//! global-norm clipping and masks.

mod muon;
mod optimiser;
mod schedule;

pub use optimiser::{Group, Optimiser, OptimiserConfig, OptimiserState, Rule, StepReport};
pub use schedule::{Decay, Schedule};
