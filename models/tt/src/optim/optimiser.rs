//! The optimiser and its state.

use ndarray::{ArrayD, ArrayView2, ArrayViewMutD, IxDyn};
use serde::{Deserialize, Serialize};

use super::{Schedule, muon};
use crate::error::{Error, Result};

/// Settings of [`Optimiser`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimiserConfig {
    /// full learning rate, after the warm-up
    pub learning_rate: f32,
    /// decay of the first moment
    pub beta1: f32,
    /// decay of the second moment
    pub beta2: f32,
    /// added to the root of the second moment, by Muon to the root mean square of the first
    pub epsilon: f32,
    /// decoupled: the values shrink by `rate * weight_decay` in a step, biases and gains excepted
    pub weight_decay: f32,
    /// largest global norm of the gradients that train; larger ones are scaled down to it
    pub clip_norm: Option<f32>,
    /// the rate over the steps
    pub schedule: Schedule,
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self {
            learning_rate: 5e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip_norm: Some(1.0),
            schedule: Schedule::default(),
        }
    }
}

impl OptimiserConfig {
    /// Checks the settings; errors name the field.
    pub fn validate(&self) -> Result<()> {
        let positive = |field: &str, x: f32| {
            let good = x.is_finite() && x > 0.0;
            good.then_some(()).ok_or_else(|| Error::config(field, format!("{x} is not a finite number above 0")))
        };
        positive("learning_rate", self.learning_rate)?;
        positive("epsilon", self.epsilon)?;
        if let Some(norm) = self.clip_norm {
            positive("clip_norm", norm)?;
        }
        for (field, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::config(field, format!("{beta} is not within 0..1")));
            }
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return Err(Error::config(
                "weight_decay",
                format!("{} is not a finite number, 0 or above", self.weight_decay),
            ));
        }
        self.schedule.validate()
    }
}

/// How a tensor's step follows from its gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// By entry: the first moment over the root of the second (Loshchilov and Hutter 2019).
    #[default]
    AdamW,
    /// By matrix: the orthogonal factor of the first moment (Jordan et al. 2024); the second stays zero. A core of a tensor
    /// train is taken for the squarer of its two unfoldings.
    Muon,
}

/// One tensor under the optimiser.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// for messages
    pub name: String,
    /// dimensions
    pub shape: Vec<usize>,
    /// whether weight decay applies
    pub decay: bool,
    /// multiplies the learning rate
    pub rate: f32,
    /// how it moves
    pub rule: Rule,
}

/// All that a resumed run needs beside the values: with the same state, values and gradients the next step is the same,
/// bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimiserState {
    /// steps done, on which the schedule depends
    pub step: u64,
    /// updates each tensor has had, on which its bias correction depends; fewer than `step` where it was masked
    pub updates: Vec<u64>,
    /// first moments
    pub first: Vec<ArrayD<f32>>,
    /// second moments
    pub second: Vec<ArrayD<f32>>,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// learning rate of the step
    pub learning_rate: f32,
    /// global norm of the gradients that train, before clipping
    pub gradient_norm: f32,
    /// whether they were scaled down
    pub clipped: bool,
}

/// AdamW and Muon over a fixed list of tensors.
#[derive(Clone, Debug)]
pub struct Optimiser {
    config: OptimiserConfig,
    groups: Vec<Group>,
    state: OptimiserState,
}

impl Optimiser {
    /// A fresh optimiser for tensors of these groups.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn new(config: OptimiserConfig, groups: Vec<Group>) -> Result<Self> {
        config.validate()?;
        let zeros = || groups.iter().map(|g| ArrayD::zeros(IxDyn(&g.shape))).collect::<Vec<_>>();
        let state = OptimiserState { step: 0, updates: vec![0; groups.len()], first: zeros(), second: zeros() };
        Ok(Self { config, groups, state })
    }

    /// The settings.
    pub fn config(&self) -> &OptimiserConfig {
        &self.config
    }

    /// The state, for a checkpoint.
    pub fn state(&self) -> &OptimiserState {
        &self.state
    }

    /// Continues from a checkpoint's state.
    ///
    /// # Errors
    /// A state of other tensors than this optimiser's.
    pub fn restore(&mut self, state: OptimiserState) -> Result<()> {
        for found in [state.updates.len(), state.first.len(), state.second.len()] {
            expect_count("optimiser state", self.groups.len(), found)?;
        }
        for (group, moments) in self.groups.iter().zip(state.first.iter().zip(&state.second)) {
            for moment in [moments.0, moments.1] {
                expect_shape(group, moment.shape())?;
            }
        }
        let contiguous =
            |moments: Vec<ArrayD<f32>>| moments.iter().map(|m| m.as_standard_layout().into_owned()).collect();
        self.state = OptimiserState { first: contiguous(state.first), second: contiguous(state.second), ..state };
        Ok(())
    }

    /// One step on the tensors that `mask` trains. The others keep value and moments.
    ///
    /// # Errors
    /// Lists that do not fit the groups; a gradient that is not finite. Nothing has changed then.
    pub fn step(
        &mut self,
        values: &mut [ArrayViewMutD<'_, f32>],
        gradients: &[ArrayD<f32>],
        mask: &[bool],
    ) -> Result<StepReport> {
        expect_count("values of the optimiser", self.groups.len(), values.len())?;
        expect_count("gradients of the optimiser", self.groups.len(), gradients.len())?;
        expect_count("mask of the optimiser", self.groups.len(), mask.len())?;
        let mut squares = 0.0;
        for (i, group) in self.groups.iter().enumerate() {
            expect_shape(group, values[i].shape())?;
            expect_shape(group, gradients[i].shape())?;
            if mask[i] {
                let square: f64 = gradients[i].iter().map(|&g| f64::from(g) * f64::from(g)).sum();
                if !square.is_finite() {
                    return Err(Error::NotFinite { name: format!("gradient of {}", group.name) });
                }
                squares += square;
            }
        }
        let norm = squares.sqrt();
        let clip = self.config.clip_norm.map_or(1.0, |limit| (f64::from(limit) / norm.max(f64::MIN_POSITIVE)).min(1.0));
        let rate = f64::from(self.config.learning_rate) * self.config.schedule.factor(self.state.step);
        for i in (0..mask.len()).filter(|&i| mask[i]) {
            self.update(i, &mut values[i], &gradients[i], clip as f32, rate);
        }
        self.state.step += 1;
        Ok(StepReport { learning_rate: rate as f32, gradient_norm: norm as f32, clipped: clip < 1.0 })
    }

    fn update(&mut self, i: usize, value: &mut ArrayViewMutD<'_, f32>, gradient: &ArrayD<f32>, clip: f32, rate: f64) {
        let OptimiserConfig { beta1, beta2, epsilon, weight_decay, .. } = self.config;
        let group = &self.groups[i];
        self.state.updates[i] += 1;
        let power = |beta: f32| f64::from(beta).powf(self.state.updates[i] as f64);
        let rate = rate * f64::from(group.rate);
        let keep = if group.decay { (1.0 - rate * f64::from(weight_decay)) as f32 } else { 1.0 };
        // Over slices, which the compiler vectorises; over n-dimensional iterators it does not.
        let gradient = gradient.as_standard_layout();
        let gradient = gradient.as_slice().expect("standard layout is contiguous");
        let first = self.state.first[i].as_slice_mut().expect("moments are contiguous");
        if group.rule == Rule::Muon {
            for (first, &gradient) in first.iter_mut().zip(gradient) {
                *first = beta1 * *first + (1.0 - beta1) * gradient * clip;
            }
            let momentum =
                ArrayView2::from_shape(unfolding(&group.shape), first).expect("an unfolding holds all values");
            let corrected = (1.0 / (1.0 - power(beta1))) as f32;
            let direction = muon::direction(momentum.mapv(|first| first * corrected).view(), epsilon);
            let steps = direction.as_standard_layout();
            let steps = steps.as_slice().expect("standard layout is contiguous");
            let rate = rate as f32;
            return over_slice(value, |values| {
                values.iter_mut().zip(steps).for_each(|(value, step)| *value = *value * keep - rate * step);
            });
        }
        let size = (rate / (1.0 - power(beta1))) as f32;
        let root = (1.0 / (1.0 - power(beta2)).sqrt()) as f32;
        let second = self.state.second[i].as_slice_mut().expect("moments are contiguous");
        over_slice(value, |values| {
            for (((value, &gradient), first), second) in values.iter_mut().zip(gradient).zip(first).zip(second) {
                let gradient = gradient * clip;
                *first = beta1 * *first + (1.0 - beta1) * gradient;
                *second = beta2 * *second + (1.0 - beta2) * gradient * gradient;
                *value = *value * keep - size * *first / (second.sqrt() * root + epsilon);
            }
        });
    }
}

/// The squarer of the matrices that a tensor's first axes by its last ones are.
fn unfolding(shape: &[usize]) -> (usize, usize) {
    let at = |cut: usize| (shape[..cut].iter().product::<usize>(), shape[cut..].iter().product::<usize>());
    let cuts = (1..shape.len()).map(at);
    cuts.min_by_key(|&(rows, columns)| rows.max(columns)).unwrap_or((1, shape.iter().product()))
}

/// Works on the values in a row, wherever they lie.
fn over_slice(value: &mut ArrayViewMutD<'_, f32>, work: impl FnOnce(&mut [f32])) {
    match value.as_slice_mut() {
        Some(values) => work(values),
        None => {
            let mut copy: Vec<f32> = value.iter().copied().collect();
            work(&mut copy);
            value.iter_mut().zip(copy).for_each(|(value, new)| *value = new);
        }
    }
}

fn expect_count(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::Count { what, expected, found }) }
}

fn expect_shape(group: &Group, found: &[usize]) -> Result<()> {
    if group.shape == found {
        return Ok(());
    }
    Err(Error::Shape { name: group.name.clone(), expected: group.shape.clone(), found: found.to_vec() })
}
