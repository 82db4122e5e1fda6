//! Engines that run ONNX graphs.
//!
//! An [`Engine`] turns a [`Model`] into a [`Session`]; a session runs it. Two engines exist: ONNX Runtime, loaded at
//! run time from a library found on the machine, and tract, which is always there. [`select()`] picks one.
#![forbid(unsafe_code)]

pub mod engine;
pub mod ort_engine;
pub mod rows;
pub mod select;
pub mod tensor;
pub mod tract_engine;

pub use engine::{CPU_MICRO_BATCH, Engine, EngineError, Model, Parts, Session, SessionOptions, Thrift};
pub use ort_engine::OrtEngine;
/// Encoding and decoding of [`proto`] messages (`prost::Message`).
pub use prost;
pub use select::{EngineChoice, EngineConfig, Expected, Provider, SelectError, expected, select};
pub use tensor::Tensor;
pub use tract_engine::{TractEngine, proto};
