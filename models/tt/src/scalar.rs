//! The two float types: f32 to train, f64 to check and to round.

use ndarray::NdFloat;

/// f32 or f64.
pub trait Scalar: NdFloat {
    /// Nearest value to `x`.
    fn of(x: f64) -> Self;
    /// As f64, exactly.
    fn wide(self) -> f64;
}

impl Scalar for f32 {
    fn of(x: f64) -> Self {
        x as f32
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Scalar for f64 {
    fn of(x: f64) -> Self {
        x
    }
    fn wide(self) -> f64 {
        self
    }
}
