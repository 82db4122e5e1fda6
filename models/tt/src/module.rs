//! What adapters and heads have in common: named trainable tensors behind plain graph inputs.

use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD};

use crate::Scalar;

/// What a parameter is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Core `index` (from 0) of a tensor train of `count` cores.
    Core {
        /// position in the train
        index: usize,
        /// cores in the train
        count: usize,
    },
    /// A dense matrix.
    Factor,
    /// A bias.
    Bias,
    /// A tensor of the backbone that is trained as it is (a normalisation's gain).
    Extra,
}

/// Description of one trainable tensor; its values are in [`Module::values`] at the same position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// `{layer}.core.{i}`, `{layer}.{i}` or `{layer}.bias`
    pub name: String,
    /// the layer it belongs to, a prefix of its name
    pub layer: String,
    /// dimensions
    pub shape: Vec<usize>,
    /// what it is
    pub role: Role,
    /// false where the method itself freezes it (A of FFA-LoRA, the outer cores of TT-core)
    pub trainable: bool,
}

impl Parameter {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same parameter seen from one level up: names gain `prefix.`.
    pub(crate) fn within(mut self, prefix: &str) -> Self {
        self.name = format!("{prefix}.{}", self.name);
        self.layer = format!("{prefix}.{}", self.layer);
        self
    }
}

/// Parameters on one side, plain matrices for the graph on the other. All lists of one side have the same order.
pub trait Module<T: Scalar = f32>: Send + Sync {
    /// The parameters, named relative to the module.
    fn parameters(&self) -> Vec<Parameter>;

    /// Values in the order of [`Module::parameters`].
    fn values(&self) -> Vec<ArrayViewD<'_, T>>;

    /// Values to write, in the order of [`Module::parameters`].
    fn values_mut(&mut self) -> Vec<ArrayViewMutD<'_, T>>;

    /// Graph inputs in the order of the form's `tensors()`: cores contracted to L and R, biases as they are.
    fn graph_inputs(&self) -> Vec<ArrayD<T>>;

    /// Gradients of the parameters, given those of the graph inputs (in their order and shapes). Linear in its
    /// argument, so gradients of micro-batches may be summed before.
    fn pullback(&self, graph_gradients: &[ArrayViewD<'_, T>]) -> Vec<ArrayD<T>>;
}
