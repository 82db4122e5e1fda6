//! The tensors of a run in their order, so that messages carry none of their names.

use fedtt_tt::{AdapterSet, Parameter, Role, TrainMask};
use half::bf16;
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use serde::{Deserialize, Serialize};

use crate::error::WireError;

/// Name and shape of one tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// The tensors of a run's global state, in the order of `AdapterSet::parameters`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Layout(pub Vec<Entry>);

impl Entry {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Layout {
    /// Of an adapter set's parameters.
    pub fn of(parameters: &[Parameter]) -> Self {
        Layout(parameters.iter().map(|p| Entry { name: p.name.clone(), shape: p.shape.clone() }).collect())
    }

    /// Number of values.
    pub fn values(&self) -> usize {
        self.0.iter().map(Entry::len).sum()
    }

    /// A limit for the decompressed size of any message about these tensors.
    pub fn limit(&self) -> usize {
        self.values() * 4 + self.0.len() * 64 + 64 * 1024
    }

    /// Zeros of these shapes.
    pub fn zeros(&self) -> Vec<ArrayD<f32>> {
        self.0.iter().map(|entry| ArrayD::zeros(IxDyn(&entry.shape))).collect()
    }

    /// Whether `values` have these shapes.
    ///
    /// # Errors
    /// When their number or a shape differs.
    pub fn check(&self, values: &[ArrayD<f32>]) -> Result<(), WireError> {
        if values.len() != self.0.len() {
            return Err(WireError::Count { expected: self.0.len(), found: values.len() });
        }
        match self.0.iter().zip(values).find(|(entry, value)| entry.shape != value.shape()) {
            Some((entry, value)) => Err(WireError::Tensor {
                name: entry.name.clone(),
                reason: format!("shape {:?}, expected {:?}", value.shape(), entry.shape),
            }),
            None => Ok(()),
        }
    }
}

/// Indices of the parameters that train under `mask`.
pub fn trained(parameters: &[Parameter], mask: &TrainMask) -> Vec<u32> {
    (0u32..).zip(parameters).filter(|(_, p)| mask.trains(p)).map(|(i, _)| i).collect()
}

/// The global values a run of fresh adapters begins with: rounded to bfloat16, which halves the first download; gains of
/// norms, which are the backbone's, as they are. A device that comes to the same values need not download them.
pub fn starting(fresh: &AdapterSet) -> Vec<ArrayD<f32>> {
    let round = |x: f32| bf16::from_f32(x).to_f32();
    let start = |(parameter, value): (Parameter, ArrayViewD<'_, f32>)| match parameter.role {
        Role::Extra => value.to_owned(),
        _ => value.mapv(round),
    };
    fresh.parameters().into_iter().zip(fresh.values()).map(start).collect()
}
