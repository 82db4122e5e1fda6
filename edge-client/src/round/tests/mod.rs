#![allow(clippy::unwrap_used, clippy::panic)]

mod admission;
mod fetching;
mod protocol;
mod refusing;
mod surviving;
mod world;
