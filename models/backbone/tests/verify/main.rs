//! What `verify` finds, and training in half precision, on small backbones made here.
#![allow(clippy::unwrap_used, clippy::panic)]

mod backbones;
mod differences;
#[path = "../engines/mod.rs"]
mod engines;
mod half;
