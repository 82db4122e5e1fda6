//! The embedded engine, and the only place that names tract.

/// The ONNX protobuf messages.
pub use tract_onnx::pb as proto;
