//! Gradients against central differences of the loss.

use std::collections::HashMap;

use ndarray::{Array2, ArrayD, IxDyn};

use super::{Batch, Probes, Tolerance, VerifyError, norm};
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

/// By how much the elements of a probe are changed, in the order tried. Larger steps leave the linear range, smaller ones
/// drown in rounding, and where a graph has kinks (Relu) a small step crosses few.
const STEPS: [f32; 5] = [3e-3, 1e-3, 1e-2, 3e-4, 1e-4];
/// The same where activations, or the factors of products, have the 8 to 11 bits of half precision or TF32.
const HALF_STEPS: [f32; 3] = [3e-2, 1e-1, 1e-2];

/// For each site the largest error of three slopes of the loss, measured by central differences: in two random directions of
/// +-1, relative to the gradient's norm, and along the gradient itself, relative to its slope.
///
/// In a random direction an error of the gradient shows at about its own norm, whatever part of the gradient it is in; along the
/// gradient only its part in that direction shows, but clearer. Of steps of several sizes the best one counts. Where the gradient
/// is zero the slope has to be. `exact` says whether the engine computes in single precision throughout.
pub(super) fn errors(
    probes: &mut Probes<'_>,
    batch: &Batch,
    exact: bool,
    tolerance: &Tolerance,
) -> Result<Vec<f64>, VerifyError> {
    let steps: &[f32] = if exact { &STEPS } else { &HALF_STEPS };
    let zeros = probes.zeros(batch);
    let gradients = probes.run(batch, &zeros)?.gradients;
    // Rounding hides errors of gradients smaller than this.
    let least = (norm(&batch.r) * tolerance.finite_difference / 20.0).max(f64::MIN_POSITIVE);
    let mut noise = Noise::new(0xd1ff);
    let mut errors = Vec::new();
    for (at, gradient) in gradients.iter().enumerate() {
        let size = norm(gradient);
        // The loss is bent most along the gradient, and the slope there large: a shorter way will do.
        let length = 0.1 * (gradient.len() as f64).sqrt();
        let mut random = || gradient.mapv(|_| if noise.unit() < 0.5 { 1.0 } else { -1.0 });
        let mut directions = vec![(random(), size.max(least)), (random(), size.max(least))];
        if size > 0.0 {
            let along = gradient.mapv(|g| (f64::from(g) / size * length) as f32);
            directions.push((along, size.max(least) * length));
        }
        let mut worst = 0f64;
        for (direction, expected) in directions {
            let slope: f64 = gradient.iter().zip(&direction).map(|(g, u)| f64::from(*g) * f64::from(*u)).sum();
            let mut loss = |step: f32| -> Result<f64, VerifyError> {
                let mut moved = zeros.clone();
                moved[at] = &direction * step;
                probes.loss(batch, &moved)
            };
            let mut best = f64::INFINITY;
            for &step in steps {
                let measured = (loss(step)? - loss(-step)?) / (2.0 * f64::from(step));
                best = best.min((measured - slope).abs() / expected);
                if best < tolerance.finite_difference / 10.0 {
                    break;
                }
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
