//! Squared error and correlation.

use serde::{Deserialize, Serialize};

/// How well numbers were predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Regression {
    /// Mean squared error.
    pub mse: f64,
    /// Mean absolute error.
    pub mae: f64,
    /// Pearson correlation; 0 where one side is constant.
    pub pearson: f64,
}

impl Regression {
    /// From predicted and true values of equal length.
    pub fn of(predicted: &[f32], truth: &[f32]) -> Self {
        let n = truth.len().max(1) as f64;
        let pairs = || predicted.iter().zip(truth).map(|(&p, &t)| (f64::from(p), f64::from(t)));
        let mean = |f: &dyn Fn((f64, f64)) -> f64| pairs().map(f).sum::<f64>() / n;
        let (mp, mt) = (mean(&|(p, _)| p), mean(&|(_, t)| t));
        let covariance = mean(&|(p, t)| (p - mp) * (t - mt));
        let scale = (mean(&|(p, _)| (p - mp).powi(2)) * mean(&|(_, t)| (t - mt).powi(2))).sqrt();
        Regression {
            mse: mean(&|(p, t)| (p - t).powi(2)),
            mae: mean(&|(p, t)| (p - t).abs()),
            pearson: if scale > 0.0 { covariance / scale } else { 0.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Regression;

    #[test]
    fn by_hand() {
        let m = Regression::of(&[1.0, 2.0, 4.0], &[1.0, 3.0, 2.0]);
        assert!((m.mse - 5.0 / 3.0).abs() < 1e-12);
        assert!((m.mae - 1.0).abs() < 1e-12);
        // centred: (-4/3, -1/3, 5/3) and (-1, 1, 0): 1 / sqrt(42/9 * 2)
        assert!((m.pearson - 1.0 / (42.0f64 / 9.0 * 2.0).sqrt()).abs() < 1e-12);
        assert_eq!(Regression::of(&[1.0, 1.0], &[0.0, 2.0]).pearson, 0.0);
    }
}
