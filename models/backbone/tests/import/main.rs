//! ONNX in and out: opsets, functions, constants, refusals, bundles, and every fixture.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod build;
mod bundles;
mod constants;
mod fixtures;
mod functions;
mod graphs;
mod masks;
mod opsets;
mod tables;
