#![allow(clippy::unwrap_used, clippy::panic)]

mod fetching;
mod protocol;
mod refusing;
mod surviving;
mod world;
