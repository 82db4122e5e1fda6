//! From any ONNX export to a training graph.
//!
//! `import` reads a model into the [`ir`]; `sites` finds where adapters go; `graft` puts them there; `vjp`
//! differentiates the result; `bundle` keeps a prepared backbone on disk.
#![forbid(unsafe_code)]

pub mod backbone;
pub mod bundle;
mod causal;
pub mod export;
pub mod graft;
pub mod import;
pub mod ir;
pub mod merge;
mod positions;
pub mod prepare;
mod rows;
pub mod shape;
pub mod sites;
pub mod training;
mod unpack;
pub mod verify;
pub mod vjp;
