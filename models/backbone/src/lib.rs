//! From any ONNX export to a training graph.
//!
//! `import` reads a model into the [`ir`]; `sites` finds where adapters go; `graft` puts them there; `vjp`
//! differentiates the result; `bundle` keeps a prepared backbone on disk.
#![forbid(unsafe_code)]

pub mod export;
pub mod import;
pub mod ir;
pub mod shape;
pub mod vjp;
