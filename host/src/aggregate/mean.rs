//! The weighted mean of every value, summed in f64 as contributions pass.

use std::ops::Range;

use fedtt_tt::Parameter;
use ndarray::{ArrayD, IxDyn};

use super::drift::agreement;
use super::screen::{Kept, Screen, squares};
use super::{AggregateError, Outcome, WindowRule};

/// Sums of what has passed.
pub(super) struct Mean {
    sums: Vec<ArrayD<f64>>,
    /// by parameter: sum of weight times squared norm
    squares: Vec<f64>,
    total: f64,
    squared_weights: f64,
}

impl Mean {
    pub(super) fn new(parameters: &[Parameter]) -> Self {
        Mean {
            sums: parameters.iter().map(|p| ArrayD::zeros(IxDyn(&p.shape))).collect(),
            squares: vec![0.0; parameters.len()],
            total: 0.0,
            squared_weights: 0.0,
        }
    }

    pub(super) fn add(&mut self, kept: &Kept) {
        let weight = kept.weight;
        self.total += weight;
        self.squared_weights += weight * weight;
        for ((sum, square), change) in self.sums.iter_mut().zip(&mut self.squares).zip(&kept.change) {
            sum.zip_mut_with(change, |sum, &x| *sum += weight * f64::from(x));
            *square += weight * squares(change.as_slice().expect("what the screen lets through is contiguous"));
        }
    }

    /// The mean and, by parameter, the agreement on it.
    pub(super) fn finish(mut self) -> Outcome {
        let concentration = self.squared_weights / (self.total * self.total);
        let agreements = self.sums.iter_mut().zip(&self.squares).map(|(sum, square)| {
            sum.mapv_inplace(|x| x / self.total);
            agreement(sum.iter().map(|x| x * x).sum(), square / self.total, concentration)
        });
        let agreement = agreements.collect();
        Outcome { change: self.sums, agreement }
    }
}

/// The rule `mean`.
pub(super) struct Plain;

impl WindowRule for Plain {
    fn aggregate(&mut self, screen: &Screen<'_>, window: Range<usize>) -> Result<Outcome, AggregateError> {
        let mut mean = Mean::new(&screen.parameters[window.clone()]);
        screen.walk(window, |kept| {
            mean.add(&kept);
            Ok(())
        })?;
        Ok(mean.finish())
    }
}
