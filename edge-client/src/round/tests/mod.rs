#![allow(clippy::unwrap_used, clippy::panic)]

mod protocol;
mod refusing;
mod surviving;
mod world;
