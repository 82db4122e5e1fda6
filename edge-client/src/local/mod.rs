//! A device's part of a federated round: local training from the global values to an encoded update.
//!
//! [`PlanModel`] holds what a plan's adapters need on this machine and nothing of a client, so that virtual clients can share
//! one. What a client keeps between rounds is its [`LocalData`] and its [`LocalMemory`]. A [`LocalResult`] is a pure function
//! of plan, round, data and memory, times aside.

mod data;
mod error;
mod memory;
mod mix;
mod model;
mod order;
mod plan;
mod stored;
#[cfg(test)]
mod tests;
mod train;
mod update;

pub use data::LocalData;
pub use error::LocalError;
pub use memory::LocalMemory;
pub use model::PlanModel;
pub use plan::{adapter_header, rate};
pub(crate) use stored::{Stored, StoredMemory};
pub use train::{LocalResult, RoundWork, Stepped};
