//! What a graph needs to know of an adapter: plain matrices and how they combine.
//!
//! A tensor-train matrix cut at `in|out` is exactly a product `L R`; a dense matrix is a product of one factor. So
//! every adapter and head is described here by the shapes of its factors, and the graph never sees a core.

use serde::{Deserialize, Serialize};

/// Elementwise non-linearity between the two projections of a bottleneck or a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// x Phi(x), the error-function form
    Gelu,
    /// x sigmoid(x)
    Silu,
    /// tanh(x)
    Tanh,
    /// x
    Identity,
}

/// `y = x F1 .. Fk + b`: a linear map as a product of factors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearForm {
    /// (rows, columns) of each factor, in the order they multiply `x` from the right.
    pub factors: Vec<(usize, usize)>,
    /// Whether a bias of the last factor's column count is added.
    pub bias: bool,
}

/// How an adapter changes the backbone at its site.
#[derive(Clone, Debug, PartialEq)]
pub enum AdapterForm {
    /// `h + scaling * up(activation(down(h)))` on the site's tensor `h`.
    Bottleneck {
        /// hidden -> bottleneck
        down: LinearForm,
        /// between the two
        activation: Activation,
        /// bottleneck -> hidden
        up: LinearForm,
        /// factor on the adapter's output
        scaling: f32,
    },
    /// `linear(x) + scaling * map(x)`, beside a frozen projection (LoRA).
    Branch {
        /// the projection's in -> out
        map: LinearForm,
        /// factor on the branch
        scaling: f32,
    },
}

/// What turns the pooled hidden state into the task's outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadForm {
    /// A first layer with its activation, if any.
    pub hidden: Option<(LinearForm, Activation)>,
    /// The projection to classes or targets.
    pub out: LinearForm,
}

impl LinearForm {
    /// Graph inputs, in order: `0`, `1`, .. for the factors, then `bias`; each with its shape.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let factors = self.factors.iter().enumerate().map(|(i, &(rows, columns))| (i.to_string(), vec![rows, columns]));
        let bias = self.bias.then(|| ("bias".to_string(), vec![self.columns()]));
        factors.chain(bias).collect()
    }

    /// Output width.
    pub fn columns(&self) -> usize {
        self.factors.last().map_or(0, |f| f.1)
    }
}

fn prefixed(prefix: &str, form: &LinearForm) -> Vec<(String, Vec<usize>)> {
    form.tensors().into_iter().map(|(name, shape)| (format!("{prefix}.{name}"), shape)).collect()
}

impl AdapterForm {
    /// Graph inputs, in order, each named relative to the adapter (`down.0`, `up.bias`, `map.1`) with its shape.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        match self {
            AdapterForm::Bottleneck { down, up, .. } => [prefixed("down", down), prefixed("up", up)].concat(),
            AdapterForm::Branch { map, .. } => prefixed("map", map),
        }
    }
}

impl HeadForm {
    /// Graph inputs, in order, each named relative to the head (`hidden.0`, `out.bias`) with its shape.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let hidden = self.hidden.as_ref().map(|(form, _)| prefixed("hidden", form)).unwrap_or_default();
        [hidden, prefixed("out", &self.out)].concat()
    }
}
