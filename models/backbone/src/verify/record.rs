//! A reference of what this machine's engine computes, for another machine to be held against.

use std::collections::HashMap;
use std::path::Path;

use fedtt_runtime::{Engine, SessionOptions};
use ndarray::ArrayD;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};

use super::finite::{Noise, random_batch};
use super::{Probes, Reference, VerifyError};
use crate::backbone::{Backbone, Role};

/// Size of the non-zero probes, next to hidden states of about 1.
const PROBE: f32 = 0.05;

impl Reference {
    /// Outputs and gradients on a small random batch, with zero and with non-zero probes.
    ///
    /// # Errors
    /// When no training graph can be made, or the engine fails.
    pub fn record(backbone: &Backbone, engine: &dyn Engine, options: &SessionOptions) -> Result<Self, VerifyError> {
        let output = backbone.last_output();
        let mut probes = Probes::load(backbone, output, engine, options)?;
        let batch = random_batch(backbone, output.width);
        let sites: Vec<String> = backbone.anatomy.sites.iter().map(|site| site.id.clone()).collect();
        let mut floats = HashMap::from([("R".to_string(), batch.r.clone())]);
        let mut noise = Noise::new(0x9e0b);
        let mut values = probes.zeros(&batch);
        for set in ["zero", "nonzero"] {
            if set == "nonzero" {
                for (value, site) in values.iter_mut().zip(&sites) {
                    value.mapv_inplace(|_| PROBE * noise.normal());
                    floats.insert(format!("nonzero.probe.{site}"), value.clone());
                }
            }
            let outcome = probes.run(&batch, &values)?;
            floats.insert(format!("{set}.last_hidden_state"), outcome.output);
            let gradients = sites.iter().map(|site| format!("{set}.grad.{site}")).zip(outcome.gradients);
            floats.extend(gradients);
        }
        let named = |(role, ids): (Role, ndarray::Array2<i64>)| (super::reference::input(role).into(), ids.into_dyn());
        let integers = batch.feeds.into_iter().map(named).collect();
        Ok(Reference { path: "what was recorded".into(), floats, integers })
    }

    /// Writes it as [`Reference::read`] reads it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), SafeTensorError> {
        fn bytes<T: Copy, const N: usize>(values: &ArrayD<T>, encode: impl Fn(T) -> [u8; N]) -> Vec<u8> {
            values.iter().flat_map(|&value| encode(value)).collect()
        }
        let floats = self.floats.iter().map(|(name, v)| (name, Dtype::F32, v.shape(), bytes(v, f32::to_le_bytes)));
        let integers = self.integers.iter().map(|(name, v)| (name, Dtype::I64, v.shape(), bytes(v, i64::to_le_bytes)));
        let all: Vec<_> = floats.chain(integers).collect();
        let views: Result<Vec<_>, SafeTensorError> = all
            .iter()
            .map(|(name, kind, shape, data)| Ok((*name, TensorView::new(*kind, shape.to_vec(), data)?)))
            .collect();
        safetensors::serialize_to_file(views?, None, path)
    }
}
