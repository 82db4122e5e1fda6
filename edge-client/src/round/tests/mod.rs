#![allow(clippy::unwrap_used, clippy::panic)]

mod admission;
mod fetching;
mod mending;
mod offline;
mod protocol;
mod refusing;
mod surviving;
mod world;
