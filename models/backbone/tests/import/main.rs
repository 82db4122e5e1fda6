//! ONNX in and out: opsets, functions, constants, refusals, bundles, and every fixture.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod build;
mod bundles;
mod constants;
#[path = "../engines/mod.rs"]
mod engines;
mod fixtures;
mod functions;
mod graphs;
mod masks;
mod newer;
mod opsets;
mod tables;
