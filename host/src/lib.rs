//! The host of a federation: what becomes of the updates devices send, and what a run leaves behind.
#![forbid(unsafe_code)]

pub mod aggregate;
pub mod artefacts;
pub mod control;
pub mod coordinator;
pub mod daemon;
pub mod demo;
pub mod examples;
mod files;
pub mod fleet;
pub mod model;
pub mod record;
pub mod report;
pub mod run;
pub mod simulate;
pub mod store;
pub mod web;
