//! What a rule is given and what it gives back.

use crate::ir::{Builder, Node};

/// A node to be differentiated.
pub struct Call<'a> {
    /// The node.
    pub node: &'a Node,
    /// The cotangent of each output; `None` where no gradient arrives.
    pub cotangents: &'a [Option<String>],
    /// For each input, whether its cotangent is needed.
    pub wanted: &'a [bool],
}

/// Appends the nodes that compute the inputs' cotangents; one entry per input, `None` where not wanted.
pub type Rule = fn(&mut Builder, &Call<'_>) -> Result<Vec<Option<String>>, VjpError>;

/// What a [`Rule`] returns.
pub(crate) type Grads = Result<Vec<Option<String>>, VjpError>;

/// Why a graph could not be differentiated.
#[derive(Debug, thiserror::Error)]
#[error("cannot differentiate node `{node}` ({op}): {message}")]
pub struct VjpError {
    /// The node's label.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// What is the matter and what to do.
    pub message: String,
}

impl VjpError {
    pub(crate) fn at(node: &Node, message: impl Into<String>) -> Self {
        VjpError { node: node.label().to_string(), op: node.op_name(), message: message.into() }
    }
}

impl<'a> Call<'a> {
    /// The i-th input's name.
    pub(crate) fn x(&self, i: usize) -> Result<&'a str, VjpError> {
        self.node.input(i).ok_or_else(|| self.error(format!("input {i} is missing; the model is malformed")))
    }

    /// The i-th output's name.
    pub(crate) fn y(&self, i: usize) -> Result<&'a str, VjpError> {
        self.node.output(i).ok_or_else(|| self.error(format!("output {i} is missing; the model is malformed")))
    }

    /// The cotangent of the first output.
    pub(crate) fn dy(&self) -> Result<&'a str, VjpError> {
        let cotangent = self.cotangents.first().and_then(Option::as_deref);
        cotangent.ok_or_else(|| self.error("the gradient arrives at a secondary output, which has no rule"))
    }

    /// Whether the i-th input's cotangent is needed.
    pub(crate) fn wants(&self, i: usize) -> bool {
        self.wanted.get(i).copied().unwrap_or(false)
    }

    /// A refusal naming this node.
    pub(crate) fn error(&self, message: impl Into<String>) -> VjpError {
        VjpError::at(self.node, message)
    }

    /// The rank of `value`, which the rule cannot do without.
    pub(crate) fn rank(&self, b: &Builder, value: &str) -> Result<usize, VjpError> {
        let message = || {
            self.error(format!(
                "the rank of `{value}` cannot be inferred; give the model's inputs fixed ranks and re-export"
            ))
        };
        b.facts.rank(value).ok_or_else(message)
    }

    /// An axis attribute counted from the front.
    pub(crate) fn axis(&self, axis: i64, rank: usize) -> Result<usize, VjpError> {
        let from_front = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(from_front)
            .ok()
            .filter(|&a| a <= rank)
            .ok_or_else(|| self.error(format!("axis {axis} is outside rank {rank}; the model is malformed")))
    }

    /// The gradient of the first input alone, if wanted; nothing for the others.
    pub(crate) fn first(&self, grad: String) -> Grads {
        let mut grads = vec![None; self.node.inputs.len()];
        grads[0] = Some(grad);
        Ok(grads)
    }
}
