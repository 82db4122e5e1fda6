//! Local steps.

use std::time::Instant;

use fedtt_tt::optim::OptimiserConfig;
use fedtt_tt::{Optimiser, TrainMask};
use fedtt_wire::layout::trained;
use fedtt_wire::message::{Goal, Measurement, Update};
use fedtt_wire::plan::Moments;
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::{DeviceName, Digest, Plan, RunId};
use ndarray::{ArrayD, Zip};

use super::mix::{Deck, Mix};
use super::order::Batches;
use super::plan::rate;
use super::update::{Encoded, encode};
use super::{LocalData, LocalError, LocalMemory, PlanModel};

/// A round as a device sees it.
#[derive(Clone, Copy, Debug)]
pub struct RoundWork<'a> {
    /// From 0.
    pub round: u32,
    /// What is asked.
    pub goal: Goal,
    /// What trains.
    pub mask: &'a TrainMask,
    /// Fraction of the full learning rates.
    pub rate: f32,
    /// The global values, in the order of the layout.
    pub globals: &'a [ArrayD<f32>],
    /// Who trains: part of what seeds the order of its examples.
    pub device: &'a DeviceName,
}

/// What a device made of a round.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalResult {
    /// What is sent, in the order of the places that train.
    pub tensors: Vec<EncodedTensor>,
    /// Examples trained on.
    pub examples: u64,
    /// Steps done.
    pub steps: u32,
    /// Tokens in their examples, without padding.
    pub tokens: u64,
    /// Joules all took, where the board can tell.
    pub joules: Option<f64>,
    /// Their mean loss.
    pub loss: f64,
    /// Seconds all took.
    pub seconds: f64,
    /// The global values, measured.
    pub measured: Option<Measurement>,
    /// To be adopted if the update is counted.
    pub memory: LocalMemory,
}

impl LocalResult {
    /// What `device` says of it, for a round that began with `state` of a run that `began` then; it has sent and received so
    /// many bytes.
    pub fn update(
        &self,
        (run, began): (&RunId, u64),
        round: u32,
        state: Digest,
        device: &DeviceName,
        (sent, received): (u64, u64),
    ) -> Update {
        Update {
            run: run.clone(),
            began,
            round,
            state,
            device: device.clone(),
            examples: self.examples,
            steps: self.steps,
            tokens: self.tokens,
            loss: self.loss,
            seconds: self.seconds,
            joules: self.joules,
            measured: self.measured.clone(),
            sent,
            received,
            tensors: self.tensors.clone(),
        }
    }
}

/// A step was done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stepped {
    /// Steps done, this one included.
    pub step: u32,
    /// Of so many.
    pub steps: u32,
    /// Its loss.
    pub loss: f32,
}

/// Where local steps led.
struct Steps {
    count: u32,
    tokens: u64,
    loss: f64,
    moments: Option<fedtt_tt::OptimiserState>,
}

impl PlanModel {
    /// Measures the global values if it is time to, and does the local steps at the plan's rates times
    /// `round.rate`, on gradients clipped together with the proximal term, of a loss adjusted to the device's mix of
    /// classes. `stop` is asked before every step.
    ///
    /// # Errors
    /// When values or memory do not fit the plan, there are no examples, the engine fails, the loss or a value is not
    /// finite, or `stop` says so.
    pub fn train(
        &mut self,
        plan: &Plan,
        round: &RoundWork<'_>,
        data: &LocalData,
        memory: &LocalMemory,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Stepped),
    ) -> Result<LocalResult, LocalError> {
        let began = Instant::now();
        self.assign(round.globals)?;
        memory.check(&self.layout)?;
        let due = plan.evaluation.clients && round.round.is_multiple_of(plan.evaluation.every.max(1));
        let held_out = data.held_out.as_ref().filter(|_| due || round.goal == Goal::Measure);
        let measured = held_out.map(|examples| self.measure_assigned(examples)).transpose()?;
        let mut result = LocalResult {
            tensors: Vec::new(),
            examples: 0,
            steps: 0,
            tokens: 0,
            joules: None,
            loss: 0.0,
            seconds: 0.0,
            measured,
            memory: memory.clone(),
        };
        if round.goal == Goal::Train {
            let places = trained(&self.parameters, round.mask);
            let steps = self.steps(plan, round, data, memory, stop, progress)?;
            let residual = memory.residual.as_deref();
            let coding = &plan.wire.uplink;
            let Encoded { tensors, residual } =
                encode(&self.layout, &places, &self.set.values(), round.globals, residual, coding)?;
            result.tensors = tensors;
            result.memory = LocalMemory { residual, moments: steps.moments };
            (result.examples, result.steps, result.loss) = (data.train.rows.len() as u64, steps.count, steps.loss);
            result.tokens = steps.tokens;
        }
        result.seconds = began.elapsed().as_secs_f64();
        Ok(result)
    }

    fn steps(
        &mut self,
        plan: &Plan,
        round: &RoundWork<'_>,
        data: &LocalData,
        memory: &LocalMemory,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Stepped),
    ) -> Result<Steps, LocalError> {
        if data.train.rows.is_empty() {
            return Err(LocalError::Empty);
        }
        let full = rate(plan);
        let rule = plan.local.optimiser.unwrap_or(plan.adapter.usual_rule());
        let config = OptimiserConfig {
            learning_rate: full * round.rate,
            weight_decay: plan.local.weight_decay,
            epsilon: plan.local.epsilon,
            clip_norm: (plan.local.clip > 0.0).then_some(plan.local.clip),
            ..OptimiserConfig::default()
        };
        let mut optimiser = Optimiser::new(config, self.set.groups(plan.local.head_rate / full, rule))?;
        let carried = plan.local.moments == Moments::Carry;
        if let Some(moments) = memory.moments.clone().filter(|_| carried) {
            optimiser.restore(moments)?;
        }
        let mask = self.set.mask(round.mask);
        let lengths = data.train.lengths();
        let mix = Mix::new(&data.train.targets, plan.model.labels.len(), plan.local.class_balance);
        let shift = mix.as_ref().and_then(|mix| mix.logit_shift(plan.local.logit_adjustment));
        let whole = || vec![Deck { examples: (0..lengths.len()).collect(), share: 1.0 }];
        let decks = mix.filter(|_| plan.local.class_balance > 0.0).map_or_else(whole, Mix::decks);
        let mut batches = Batches::new(&lengths, decks, plan.local.batch, plan.seed, round.round, round.device);
        let steps = plan.local.steps_of(data.train.rows.len());
        let (mut sum, mut tokens) = (0.0, 0);
        for step in 0..steps {
            if stop() {
                return Err(LocalError::Stopped);
            }
            let examples = batches.next();
            let weight = 1.0 / data.train.mass(&examples).max(1) as f32;
            let batch = data.train.batch(&examples, self.shape, weight);
            let (loss, by_input) = self.model.step(&self.set, &batch, shift.as_ref())?;
            if !loss.is_finite() {
                return Err(LocalError::Diverged { loss, step });
            }
            let mut gradients = self.set.pullback(&by_input)?;
            let values = self.set.values();
            add_proximal(&mut gradients, plan.local.prox, &values, round.globals);
            drop(values);
            optimiser.step(&mut self.set.values_mut(), &gradients, &mask)?;
            sum += f64::from(loss);
            tokens += examples.iter().map(|&example| lengths[example] as u64).sum::<u64>();
            progress(Stepped { step: step + 1, steps, loss });
        }
        let moments = carried.then(|| optimiser.state().clone());
        Ok(Steps { count: steps, tokens, loss: sum / f64::from(steps), moments })
    }
}

/// Adds the gradient of `mu/2 |w - w_global|^2` (FedProx, Li et al. 2020).
pub(super) fn add_proximal(
    gradients: &mut [ArrayD<f32>],
    mu: f32,
    values: &[ndarray::ArrayViewD<'_, f32>],
    globals: &[ArrayD<f32>],
) {
    if mu == 0.0 {
        return;
    }
    for ((gradient, value), global) in gradients.iter_mut().zip(values).zip(globals) {
        Zip::from(gradient).and(value).and(global).for_each(|g, &w, &w0| *g += mu * (w - w0));
    }
}
