//! The commands.

mod args;
mod context;
pub(crate) mod doctor;
pub(crate) mod enroll;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod fetch;
mod found;
mod interrupt;
mod journal;
mod output;
pub(crate) mod predict;
mod progress;
pub(crate) mod run;
pub(crate) mod serve_local;
mod settings;
mod table;
pub(crate) mod train;
pub(crate) mod verify;
pub(crate) mod workshop;

pub(crate) use output::Output;
