//! Why a model was refused.

use std::path::PathBuf;

/// Why a model cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not an ONNX model, or is cut short.
    #[error("{} is not a whole ONNX model: {message}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Where the reader stopped.
        message: String,
    },
    /// The model as a whole uses something that is not supported.
    #[error("{0}")]
    Model(String),
    /// A constant's declaration does not fit its data, or its type is not supported.
    #[error("tensor `{name}`: {message}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// A node is malformed or its operator cannot be brought to opset 21.
    #[error("node `{node}` ({op}): {message}")]
    Node {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// Names and edges do not form a graph.
    #[error("graph `{graph}`: {message}")]
    Graph {
        /// The graph.
        graph: String,
        /// What is wrong.
        message: String,
    },
}

impl ImportError {
    pub(super) fn model(message: impl Into<String>) -> Self {
        ImportError::Model(message.into())
    }

    pub(super) fn tensor(name: &str, message: impl Into<String>) -> Self {
        ImportError::Tensor { name: name.to_string(), message: message.into() }
    }

    pub(super) fn graph(graph: &str, message: impl Into<String>) -> Self {
        ImportError::Graph { graph: graph.to_string(), message: message.into() }
    }

    pub(super) fn node(node: &crate::ir::Node, message: impl Into<String>) -> Self {
        ImportError::Node { node: node.label().to_string(), op: node.op_name(), message: message.into() }
    }
}
