//! What a run tells whoever watches.

use crate::evaluate::Evaluation;

/// A run, as it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Training examples.
    pub examples: usize,
    /// Examples held out.
    pub held_out: usize,
    /// Optimiser steps planned.
    pub steps: u64,
    /// Of these, done before an interruption.
    pub done: u64,
    /// Values that train.
    pub trained_values: usize,
}

/// One optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepEvent {
    /// Steps done, this one included.
    pub step: u64,
    /// Steps planned.
    pub steps: u64,
    /// Epochs done, with the fraction of the current one.
    pub epoch: f64,
    /// Mean loss over the step's examples.
    pub loss: f32,
    /// Learning rate of the step.
    pub rate: f32,
    /// Tokens in the step, without padding.
    pub tokens: usize,
    /// Time it took.
    pub seconds: f64,
}

/// Someone who watches a run.
pub trait Observer {
    /// The run begins.
    fn started(&mut self, _plan: &Plan) {}
    /// A step was done.
    fn stepped(&mut self, _event: &StepEvent) {}
    /// `epochs` are done; `loss` is the mean training loss since the last such call, absent before the first step;
    /// `dev` what the held-out examples say, and whether it is the best so far.
    fn evaluated(&mut self, _epochs: f64, _loss: Option<f64>, _dev: Option<&Evaluation>, _best: bool) {}
}

/// Nobody.
impl Observer for () {}
