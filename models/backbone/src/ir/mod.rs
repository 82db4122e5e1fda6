//! The graph as the rest of the crate sees it: one opset (21), no `Constant` nodes, no model-local functions.

mod build;
mod graph;
mod weight;

pub use build::Builder;
pub use graph::{Attr, Graph, Node, Port, PortDim};
pub use weight::{DType, Data, Weight};

/// The opset every imported graph is brought to and every derived graph is written in.
pub const OPSET: i64 = 21;
