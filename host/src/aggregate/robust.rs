//! Rules that look at one coordinate over all clients: median and trimmed mean (Yin et al. 2018). Unweighted.
//!
//! All clients' values of a coordinate must be in memory at once, so the coordinates of a window are taken in blocks of
//! bounded size, with one walk over the contributions for each.

use std::ops::Range;

use ndarray::{ArrayD, IxDyn};

use super::drift::agreement;
use super::screen::{Kept, Screen};
use super::{AggregateError, Outcome, WindowRule};

/// Values held at once: 32 MiB of them.
const HELD: usize = 8 << 20;

/// Median of sorted values, of an even number the mean of the middle two; 0 of none.
pub(super) fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Mean of sorted values without the share `trim` at either end, rounded up to whole values but leaving one or two.
pub(super) fn trimmed_mean(sorted: &[f64], trim: f64) -> f64 {
    let n = sorted.len();
    // Short of the product by rounding noise only, so that 0.1 of 30 is 3.
    let cut = ((trim * n as f64 - 1e-9).ceil().max(0.0) as usize).min(n.saturating_sub(1) / 2);
    let kept = &sorted[cut..n - cut];
    kept.iter().sum::<f64>() / kept.len() as f64
}

/// A rule that takes each coordinate's values, sorted.
pub(super) struct Sorted<F> {
    rule: F,
    /// Most values in memory, though at least one coordinate's.
    held: usize,
}

impl<F: Fn(&[f64]) -> f64> Sorted<F> {
    pub(super) fn new(rule: F) -> Self {
        Sorted { rule, held: HELD }
    }

    #[cfg(test)]
    pub(super) fn holding(rule: F, held: usize) -> Self {
        Sorted { rule, held }
    }
}

impl<F: Fn(&[f64]) -> f64> WindowRule for Sorted<F> {
    fn aggregate(&mut self, screen: &Screen<'_>, window: Range<usize>) -> Result<Outcome, AggregateError> {
        let (count, parameters) = (screen.count(), &screen.parameters[window.clone()]);
        let lengths: Vec<usize> = parameters.iter().map(|p| p.len()).collect();
        let coordinates: usize = lengths.iter().sum();
        let block = (self.held / count).max(1);

        let mut result: Vec<f64> = Vec::with_capacity(coordinates);
        let mut squares: Vec<(f64, f64)> = Vec::with_capacity(coordinates.min(block));
        let mut by_parameter = vec![(0.0, 0.0); lengths.len()];
        let owners: Vec<usize> = lengths.iter().enumerate().flat_map(|(i, &n)| std::iter::repeat_n(i, n)).collect();
        let mut values: Vec<f32> = Vec::new();
        let mut column = vec![0.0f64; count];
        for start in (0..coordinates).step_by(block) {
            let width = block.min(coordinates - start);
            values.clear();
            screen.walk(window.clone(), |kept| {
                append(&mut values, &kept, start, width);
                Ok(())
            })?;
            squares.clear();
            for coordinate in 0..width {
                for (client, value) in column.iter_mut().enumerate() {
                    *value = f64::from(values[client * width + coordinate]);
                }
                let mean = column.iter().sum::<f64>() / count as f64;
                squares.push((mean * mean, column.iter().map(|x| x * x).sum::<f64>() / count as f64));
                column.sort_unstable_by(f64::total_cmp);
                result.push((self.rule)(&column));
            }
            for ((mean, square), &owner) in squares.iter().zip(&owners[start..]) {
                by_parameter[owner].0 += mean;
                by_parameter[owner].1 += square;
            }
        }

        let mut rest = result.into_iter();
        let change = parameters.iter().map(|p| ArrayD::from_shape_fn(IxDyn(&p.shape), |_| rest.next().unwrap_or(0.0)));
        let change = change.collect();
        let concentration = 1.0 / count as f64;
        let agreement = by_parameter.iter().map(|&(mean, square)| agreement(mean, square, concentration)).collect();
        Ok(Outcome { change, agreement })
    }
}

/// The values of coordinates `start..start + width`, counted over all tensors.
fn append(values: &mut Vec<f32>, kept: &Kept, start: usize, width: usize) {
    let mut first = 0;
    for tensor in &kept.change {
        let slice = tensor.as_slice().expect("screened tensors are contiguous");
        let (from, to) = (start.max(first), (start + width).min(first + slice.len()));
        if from < to {
            values.extend_from_slice(&slice[from - first..to - first]);
        }
        first += slice.len();
    }
}
