//! The commands.

mod args;
mod context;
pub(crate) mod eval;
mod output;
pub(crate) mod predict;
mod progress;
pub(crate) mod run;
mod settings;
mod table;
pub(crate) mod train;

pub(crate) use output::Output;
