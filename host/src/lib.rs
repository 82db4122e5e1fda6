//! The host of a federation: what becomes of the updates devices send, and what a run leaves behind.
#![forbid(unsafe_code)]

pub mod aggregate;
pub mod coordinator;
pub mod model;
pub mod record;
pub mod run;
pub mod store;
