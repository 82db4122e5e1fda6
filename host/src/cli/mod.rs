//! The commands.

pub(crate) mod data;
pub(crate) mod simulate;
