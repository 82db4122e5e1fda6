//! The commands.

pub(crate) mod broker;
pub(crate) mod data;
pub(crate) mod demo;
pub(crate) mod device;
mod host;
mod identity;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod simulate;
