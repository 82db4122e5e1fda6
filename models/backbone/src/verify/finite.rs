//! Gradients against central differences of the loss.

use std::collections::HashMap;

use ndarray::{Array2, ArrayD, IxDyn};

use super::{Batch, Probes, VerifyError, norm};
use crate::backbone::{Backbone, Role};

/// A small batch of two rows, the second shorter by padding on the right; the cotangent is of an
/// output of this width.
pub(super) fn random_batch(backbone: &Backbone, width: usize) -> Batch {
    let (rows, length) = (2, 6);
    let mut noise = Noise::new(0x5eed);
    let vocabulary = backbone.vocabulary().unwrap_or(2).max(2);
    let ids = Array2::from_shape_fn((rows, length), |_| 1 + (noise.unit() * (vocabulary - 1) as f64) as i64);
    let mask = Array2::from_shape_fn((rows, length), |(row, column)| i64::from(row == 0 || column < length - 2));
    let positions = Array2::from_shape_fn((rows, length), |(_, column)| column as i64);
    let types = Array2::zeros((rows, length));
    let r = ArrayD::from_shape_fn(IxDyn(&[rows, length, width]), |_| noise.normal());
    let feeds =
        HashMap::from([(Role::Ids, ids), (Role::Mask, mask), (Role::Positions, positions), (Role::Types, types)]);
    Batch { feeds, r }
}

/// For each site the larger relative error of two directional derivatives: along the gradient itself, and along the
/// gradient with a random half of its elements left out. Steps are taken at two sizes and the better one counts, since
/// a small step drowns in rounding and a large one leaves the linear range.
pub(super) fn errors(probes: &mut Probes<'_>, batch: &Batch) -> Result<Vec<f64>, VerifyError> {
    let zeros = probes.zeros(batch);
    let gradients = probes.run(batch, &zeros)?.gradients;
    let mut noise = Noise::new(0xd1ff);
    let mut errors = Vec::new();
    for (at, gradient) in gradients.iter().enumerate() {
        let some = gradient.mapv(|g| if noise.unit() < 0.5 { g } else { 0.0 });
        let mut worst = 0f64;
        for direction in [gradient.clone(), some] {
            let length = norm(&direction);
            if length == 0.0 {
                continue;
            }
            let unit = direction.mapv(|g| (f64::from(g) / length) as f32);
            let slope: f64 = gradient.iter().zip(&unit).map(|(g, u)| f64::from(*g) * f64::from(*u)).sum();
            let mut best = f64::INFINITY;
            for step in [1e-1f32, 3e-2, 1e-2] {
                let mut moved = zeros.clone();
                moved[at] = &unit * step;
                let above = probes.run(batch, &moved)?.loss;
                moved[at] = &unit * -step;
                let below = probes.run(batch, &moved)?.loss;
                let measured = (above - below) / (2.0 * f64::from(step));
                best = best.min((measured - slope).abs() / slope.abs());
            }
            worst = worst.max(best);
        }
        errors.push(worst);
    }
    Ok(errors)
}

/// SplitMix64: probe noise that is the same everywhere.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Noise(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal, by the sum of twelve uniforms.
    pub(super) fn normal(&mut self) -> f32 {
        ((0..12).map(|_| self.unit()).sum::<f64>() - 6.0) as f32
    }
}
