//! Values and memory as bytes, to the bit: for files of this device, and for the process that trains.

use fedtt_tt::OptimiserState;
use fedtt_wire::WireError;
use fedtt_wire::plan::Encoding;
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::tensor::packed::Packed;
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use super::LocalMemory;

/// Tensors with their shapes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored(Vec<Vec<usize>>, Packed);

/// What a device keeps between rounds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredMemory {
    residual: Option<Stored>,
    moments: Option<StoredMoments>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredMoments {
    step: u64,
    updates: Vec<u64>,
    first: Stored,
    second: Stored,
}

impl Stored {
    pub(crate) fn of(values: &[ArrayD<f32>]) -> Self {
        let encode = |v: &ArrayD<f32>| EncodedTensor::encode(v.view(), Encoding::F32, Some(false));
        let shapes = values.iter().map(|v| v.shape().to_vec()).collect();
        Stored(shapes, Packed(values.iter().map(encode).collect()))
    }

    pub(crate) fn load(&self) -> Result<Vec<ArrayD<f32>>, WireError> {
        let Stored(shapes, Packed(tensors)) = self;
        if shapes.len() != tensors.len() {
            return Err(WireError::Count { expected: shapes.len(), found: tensors.len() });
        }
        shapes.iter().zip(tensors).map(|(shape, tensor)| tensor.decode("stored", shape)).collect()
    }
}

impl StoredMemory {
    pub(crate) fn of(memory: &LocalMemory) -> Self {
        let moments = |m: &OptimiserState| StoredMoments {
            step: m.step,
            updates: m.updates.clone(),
            first: Stored::of(&m.first),
            second: Stored::of(&m.second),
        };
        StoredMemory {
            residual: memory.residual.as_deref().map(Stored::of),
            moments: memory.moments.as_ref().map(moments),
        }
    }

    pub(crate) fn load(&self) -> Result<LocalMemory, WireError> {
        let moments = |m: &StoredMoments| {
            let (first, second) = (m.first.load()?, m.second.load()?);
            Ok(OptimiserState { step: m.step, updates: m.updates.clone(), first, second })
        };
        Ok(LocalMemory {
            residual: self.residual.as_ref().map(Stored::load).transpose()?,
            moments: self.moments.as_ref().map(moments).transpose()?,
        })
    }
}
