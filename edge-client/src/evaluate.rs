//! A data set through a model, and what is measured on it.

use fedtt_tt::AdapterSet;
use ndarray::Axis;
use serde::{Deserialize, Serialize};

use crate::batch::{BatchShape, EncodedSet, evaluation_order};
use crate::data::Targets;
use crate::metrics::{Classification, Language, Regression};
use crate::model::{AdaptedModel, ModelError};

/// What was measured, by task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Metrics {
    /// Classes.
    Classify(Classification),
    /// Numbers.
    Regress(Regression),
    /// The next token.
    Lm(Language),
}

/// Metrics with the loss they came with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Examples seen.
    pub examples: usize,
    /// Mean loss: cross-entropy in nats per example or token, or squared error of the scaled target.
    pub loss: f64,
    /// The figures of the task.
    #[serde(flatten)]
    pub metrics: Metrics,
}

/// How the numbers a regression head learns relate to those in the data: `value = mean + deviation * learnt`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetScale {
    /// Mean of the training targets.
    pub mean: f32,
    /// Their standard deviation; 1 where they are constant.
    pub deviation: f32,
}

/// What a model makes of each example of a data set, in the set's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// Per example its logits or predicted values; for language modelling the summed loss of its tokens, in nats.
    pub rows: Vec<Vec<f32>>,
    /// The sum of all losses.
    pub loss: f64,
}

impl TargetScale {
    /// Mean and deviation of `values`.
    pub fn of(values: &[f32]) -> Self {
        let n = values.len().max(1) as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        let deviation = if variance > 0.0 { variance.sqrt() as f32 } else { 1.0 };
        TargetScale { mean: mean as f32, deviation }
    }

    /// From the data's numbers to those that are learnt.
    pub fn scale(&self, value: f32) -> f32 {
        (value - self.mean) / self.deviation
    }

    /// Back.
    pub fn unscale(&self, value: f32) -> f32 {
        self.mean + self.deviation * value
    }
}

impl Evaluation {
    /// The figure people look at first, with its name.
    pub fn headline(&self) -> (&'static str, f64) {
        match &self.metrics {
            Metrics::Classify(m) => ("accuracy", m.accuracy),
            Metrics::Regress(m) => ("Pearson r", m.pearson),
            Metrics::Lm(m) => ("nats per token", m.nats_per_token),
        }
    }
}

/// Runs every example through the model, like lengths together.
///
/// # Errors
/// When the engine fails.
pub fn predict(
    model: &mut AdaptedModel,
    set: &AdapterSet,
    data: &EncodedSet,
    shape: BatchShape,
) -> Result<Predictions, ModelError> {
    let mut rows = vec![Vec::new(); data.rows.len()];
    let mut loss = 0.0;
    for examples in evaluation_order(&data.lengths(), shape.rows) {
        let batch = data.batch(&examples, shape, 1.0);
        let outcome = model.forward(set, &batch)?;
        for (row, &example) in outcome.result.axis_iter(Axis(0)).zip(&examples) {
            rows[example] = match data.targets {
                Targets::Text => {
                    let predicted = data.rows[example].ids.len() - 1;
                    vec![row.iter().take(predicted).sum()]
                }
                _ => row.iter().copied().collect(),
            };
        }
        loss += match data.targets {
            // Summed here, in double precision: a float32 sum over many thousand tokens loses digits.
            Targets::Text => examples.iter().map(|&e| f64::from(rows[e][0])).sum(),
            _ => f64::from(outcome.loss),
        };
    }
    Ok(Predictions { rows, loss })
}

/// [`predict`] and the task's metrics.
///
/// # Errors
/// When the engine fails.
pub fn evaluate(
    model: &mut AdaptedModel,
    set: &AdapterSet,
    data: &EncodedSet,
    shape: BatchShape,
    scale: Option<TargetScale>,
) -> Result<Evaluation, ModelError> {
    let predictions = predict(model, set, data, shape)?;
    let all: Vec<usize> = (0..data.rows.len()).collect();
    let mass = data.mass(&all);
    let metrics = match &data.targets {
        Targets::Classes(truth) => {
            let classes = predictions.rows.first().map_or(0, Vec::len);
            let predicted: Vec<usize> = predictions.rows.iter().map(|row| argmax(row)).collect();
            Metrics::Classify(Classification::of(&predicted, truth, classes))
        }
        Targets::Values(truth) => {
            let unscale = |v: f32| scale.map_or(v, |s| s.unscale(v));
            let predicted: Vec<f32> = predictions.rows.iter().map(|row| unscale(row[0])).collect();
            let truth: Vec<f32> = truth.iter().map(|&v| unscale(v)).collect();
            Metrics::Regress(Regression::of(&predicted, &truth))
        }
        Targets::Text => Metrics::Lm(Language::of(predictions.loss, mass)),
    };
    Ok(Evaluation { examples: data.rows.len(), loss: predictions.loss / mass.max(1) as f64, metrics })
}

/// The index of the largest entry; the first of equals.
pub fn argmax(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (i, &v)| if v > row[best] { i } else { best })
}

/// Probabilities of the classes, from logits.
pub fn softmax(row: &[f32]) -> Vec<f32> {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let terms: Vec<f32> = row.iter().map(|v| (v - largest).exp()).collect();
    let sum: f32 = terms.iter().sum();
    terms.into_iter().map(|term| term / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_and_argmax_by_hand() {
        let p = softmax(&[1000.0, 1000.0 + 3f32.ln()]);
        assert!((p[0] - 0.25).abs() < 1e-4 && (p[1] - 0.75).abs() < 1e-4, "{p:?}");
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
    }

    #[test]
    fn targets_are_scaled_and_back() {
        let scale = TargetScale::of(&[1.0, 3.0]);
        assert_eq!((scale.mean, scale.deviation), (2.0, 1.0));
        assert_eq!(scale.unscale(scale.scale(7.5)), 7.5);
        assert_eq!(TargetScale::of(&[4.0, 4.0]).deviation, 1.0);
    }
}
