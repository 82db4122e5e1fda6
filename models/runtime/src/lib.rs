//! Engines that run ONNX graphs.
//!
//! An [`Engine`] turns a [`Model`] into a [`Session`]; a session runs it. Two engines exist: ONNX Runtime, loaded at
//! run time from a library found on the machine, and tract, which is always there.
#![forbid(unsafe_code)]

pub mod engine;
pub mod tensor;

pub use engine::{Engine, EngineError, Model, Session, SessionOptions};
pub use tensor::Tensor;
