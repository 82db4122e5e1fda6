//! Steps along the matrix nearest to the momentum that has all singular values alike (Jordan et al. 2024, "Muon").
//!
//! AdamW moves every entry of a matrix by about the rate, so that the few directions its gradients agree on drown in the noise of
//! the others. The orthogonal factor of the momentum moves every direction by as much, and each once.

use ndarray::{Array2, ArrayView2};

/// Iterations. The singular values are between 0.7 and 1.2 then, which is as good as 1 for a step's direction.
const ITERATIONS: usize = 5;

/// Coefficients of the quintic that drives singular values to 1 fastest from below (Jordan et al. 2024).
const QUINTIC: [f32; 3] = [3.4445, -4.7750, 2.0315];

/// A step for a rate of 1: about the orthogonal factor of `momentum`, scaled to a root mean square of its entries of
/// m / (m + `epsilon`), m that of the momentum's. So rate and epsilon mean what they mean to AdamW: gradients far below epsilon
/// move values little.
pub(super) fn direction(momentum: ArrayView2<'_, f32>, epsilon: f32) -> Array2<f32> {
    if momentum.nrows() < momentum.ncols() {
        return direction(momentum.t(), epsilon).reversed_axes();
    }
    let norm = momentum.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if norm == 0.0 {
        return momentum.to_owned();
    }
    let mean_square = norm / (momentum.len() as f64).sqrt();
    let size = mean_square / (mean_square + f64::from(epsilon)) * (momentum.nrows() as f64).sqrt();
    let [linear, cubic, quintic] = QUINTIC;
    let mut x = momentum.mapv(|value| (f64::from(value) / norm) as f32);
    for _ in 0..ITERATIONS {
        let gram = x.t().dot(&x);
        let polynomial = &gram * cubic + gram.dot(&gram) * quintic;
        x = &x * linear + x.dot(&polynomial);
    }
    x * size as f32
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::linalg::svd;

    fn noise(rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(i, j)| ((i * 31 + j * 17 + i * j) % 23) as f32 - 11.0)
    }

    #[test]
    fn directions_keep_the_momentums_singular_vectors_and_even_out_its_values() {
        for (rows, columns) in [(12, 12), (40, 5), (5, 40)] {
            let momentum = noise(rows, columns) * 1e-3;
            let found = direction(momentum.view(), 1e-8);
            let scale = (rows.max(columns) as f32).sqrt();
            let of_momentum = svd(momentum.view());
            // U^T D V of the momentum's own vectors is diagonal, and about 1.
            let inner = of_momentum.u.t().dot(&found).dot(&of_momentum.vt.t()) / scale;
            for ((i, j), &value) in inner.indexed_iter() {
                let expected = if i == j { 0.65..1.25 } else { -1e-3..1e-3 };
                assert!(expected.contains(&value), "{rows} x {columns}, ({i}, {j}): {value}");
            }
        }
    }

    #[test]
    fn nothing_moves_without_a_momentum() {
        assert_eq!(direction(Array2::zeros((3, 4)).view(), 1e-8), Array2::<f32>::zeros((3, 4)));
    }

    #[test]
    fn a_momentum_as_small_as_epsilon_moves_half_as_far() {
        let momentum = noise(6, 6);
        let mean_square = (momentum.iter().map(|x| x * x).sum::<f32>() / 36.0).sqrt();
        let [whole, half] = [1e-8, mean_square].map(|epsilon| direction(momentum.view(), epsilon));
        assert!((whole - half * 2.0).iter().all(|x| x.abs() < 1e-5));
    }
}
