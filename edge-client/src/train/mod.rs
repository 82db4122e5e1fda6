//! The training loop.
//!
//! Cores are contracted to plain matrices and fed to the training graph; its gradients are pulled back to the cores,
//! clipped and applied. Everything random derives from the seed and the epoch's number, so a run that was interrupted
//! continues from its checkpoint to the same adapter, bit for bit.

mod checkpoint;
mod exact;
mod progress;
mod settings;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fedtt_tt::{AdapterSet, Optimiser, TrainMask};
use serde::{Deserialize, Serialize};

use crate::batch::{BatchShape, EncodedSet, training_order};
use crate::evaluate::{Evaluation, TargetScale, evaluate};
use crate::model::{AdaptedModel, Gradients, ModelError, add};

pub use checkpoint::{Checkpoint, CheckpointError};
pub use progress::{Observer, Plan, StepEvent};
pub use settings::{Decay, TrainSettings};

/// Where a run's state is kept, so that it can be continued.
#[derive(Clone, Debug)]
pub struct CheckpointPolicy {
    /// The file.
    pub path: PathBuf,
    /// Steps between two; every evaluation is followed by one as well.
    pub every: u64,
    /// Continue from the file if it is there.
    pub resume: bool,
    /// Once this is set the run leaves off before its next step.
    pub leave_off: Arc<AtomicBool>,
}

/// What a run trains on.
pub struct TrainingData {
    /// The examples.
    pub train: EncodedSet,
    /// Held out, to watch the progress and keep the best.
    pub dev: Option<EncodedSet>,
    /// How regression targets were scaled.
    pub scale: Option<TargetScale>,
    /// Hash of whatever the examples came from; a checkpoint of other data is refused.
    pub fingerprint: String,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The best adapter on the held-out examples; the last one where there are none.
    pub set: AdapterSet,
    /// Steps done, counting those before an interruption.
    pub steps: u64,
    /// Held-out evaluations, each with the epochs done by then.
    pub history: Vec<(f64, Evaluation)>,
    /// Index into `history` of the adapter returned.
    pub best: Option<usize>,
    /// Mean training loss since the last evaluation, or of the stretch before it.
    pub loss: f64,
    /// Whether every planned step was done or training stopped early for good; false after `stop_after` or `leave_off`.
    pub finished: bool,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Adapter or optimiser refused.
    #[error(transparent)]
    Adapter(#[from] fedtt_tt::Error),
    /// The checkpoint could not be read, written or continued from.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// There is nothing to train on.
    #[error("no training examples are left after holding some out; give more data or --dev-fraction 0")]
    Empty,
    /// The loss is not a number.
    #[error("the loss became {loss} at step {step}; lower the learning rate (--lr)")]
    Diverged {
        /// What it became.
        loss: f32,
        /// Steps done before.
        step: u64,
    },
}

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Epochs completed.
    epoch: usize,
    /// Optimiser steps done in the current epoch.
    step: usize,
    /// Held-out evaluations so far.
    history: Vec<(f64, Evaluation)>,
    /// Which of them was best: the one with the lowest loss. Accuracy on a few held-out examples moves in steps too
    /// coarse to choose by.
    best: Option<usize>,
    /// Its loss.
    #[serde(with = "exact")]
    best_loss: [f64; 1],
    /// Sum of step losses since the last evaluation, their number, and the mean of the last completed stretch.
    #[serde(with = "exact")]
    losses: [f64; 3],
}

/// Trains `set` in `model`.
///
/// # Errors
/// When the engine fails, the loss diverges, or a checkpoint cannot be written or does not fit.
pub fn train(
    model: &mut AdaptedModel,
    set: AdapterSet,
    data: &TrainingData,
    shape: BatchShape,
    settings: &TrainSettings,
    policy: Option<&CheckpointPolicy>,
    observer: &mut dyn Observer,
) -> Result<Trained, TrainError> {
    if data.train.rows.is_empty() {
        return Err(TrainError::Empty);
    }
    Run::new(set, data, shape, settings, policy)?.run_to_end(model, observer)
}

struct Run<'a> {
    set: AdapterSet,
    best_set: Option<AdapterSet>,
    optimiser: Optimiser,
    mask: Vec<bool>,
    position: Position,
    lengths: Vec<usize>,
    steps_per_epoch: usize,
    data: &'a TrainingData,
    shape: BatchShape,
    settings: &'a TrainSettings,
    policy: Option<&'a CheckpointPolicy>,
    identity: String,
}

impl<'a> Run<'a> {
    fn new(
        set: AdapterSet,
        data: &'a TrainingData,
        shape: BatchShape,
        settings: &'a TrainSettings,
        policy: Option<&'a CheckpointPolicy>,
    ) -> Result<Self, TrainError> {
        let lengths = data.train.lengths();
        let steps_per_epoch = lengths.len().div_ceil(shape.rows).div_ceil(settings.accumulate);
        let config = settings.optimiser(steps_per_epoch as u64);
        let rule = settings.optimiser.unwrap_or(settings.adapter.usual_rule());
        let mut optimiser = Optimiser::new(config, set.groups(settings.head_rate / settings.rate, rule))?;
        let mask = set.mask(&TrainMask::default());
        let identity = settings.identity(&data.fingerprint);
        let (mut set, mut best_set, mut position) = (set, None, Position::default());
        if let Some(policy) = policy.filter(|p| p.resume && p.path.exists()) {
            let saved = Checkpoint::read(&policy.path)?;
            saved.check(&policy.path, &identity)?;
            set.load(&saved.values)?;
            if !saved.best.is_empty() {
                let mut best = set.clone();
                best.load(&saved.best)?;
                best_set = Some(best);
            }
            optimiser.restore(saved.optimiser)?;
            position = saved.position;
        }
        Ok(Run {
            set,
            best_set,
            optimiser,
            mask,
            position,
            lengths,
            steps_per_epoch,
            data,
            shape,
            settings,
            policy,
            identity,
        })
    }

    fn run_to_end(mut self, model: &mut AdaptedModel, observer: &mut dyn Observer) -> Result<Trained, TrainError> {
        let total = (self.steps_per_epoch * self.settings.epochs) as u64;
        observer.started(&Plan {
            examples: self.lengths.len(),
            held_out: self.data.dev.as_ref().map_or(0, |d| d.rows.len()),
            steps: total,
            done: self.optimiser.state().step,
            trained_values: self.set.count(&TrainMask::default()),
        });
        if self.position.history.is_empty() && self.optimiser.state().step == 0 {
            self.evaluate(model, observer)?;
        }
        let mut finished = true;
        'run: while self.position.epoch < self.settings.epochs && !self.out_of_patience() {
            let order = training_order(&self.lengths, self.shape.rows, self.settings.seed, self.position.epoch);
            let groups: Vec<&[Vec<usize>]> = order.chunks(self.settings.accumulate).collect();
            while self.position.step < groups.len() {
                if self.leaves_off() {
                    finished = false;
                    break 'run;
                }
                self.step(model, groups[self.position.step], total, observer)?;
                if self.at_evaluation() {
                    self.evaluate(model, observer)?;
                    if self.out_of_patience() {
                        break 'run;
                    }
                } else if self.policy.is_some_and(|p| self.optimiser.state().step.is_multiple_of(p.every.max(1))) {
                    self.save()?;
                }
            }
            self.position.epoch += 1;
            self.position.step = 0;
        }
        self.save()?;
        let Run { set, best_set, position, optimiser, .. } = self;
        Ok(Trained {
            set: best_set.unwrap_or(set),
            steps: optimiser.state().step,
            history: position.history,
            best: position.best,
            loss: match position.losses {
                [_, 0.0, last] => last,
                [sum, count, _] => sum / count,
            },
            finished,
        })
    }

    fn leaves_off(&self) -> bool {
        self.settings.stop_after.is_some_and(|limit| self.optimiser.state().step >= limit)
            || self.policy.is_some_and(|policy| policy.leave_off.load(Ordering::Relaxed))
    }

    /// One optimiser step on the batches of `group`, weighted so that the loss is the mean over all their examples.
    fn step(
        &mut self,
        model: &mut AdaptedModel,
        group: &[Vec<usize>],
        total: u64,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let began = Instant::now();
        let data = &self.data.train;
        let mass: usize = group.iter().map(|examples| data.mass(examples)).sum();
        let weight = 1.0 / mass.max(1) as f32;
        let mut loss = 0.0;
        let mut summed = Gradients::new();
        for examples in group {
            let (part, gradients) = model.step(&self.set, &data.batch(examples, self.shape, weight), None)?;
            loss += part;
            add(&mut summed, gradients);
        }
        if !loss.is_finite() {
            return Err(TrainError::Diverged { loss, step: self.optimiser.state().step });
        }
        let gradients = self.set.pullback(&summed)?;
        let report = self.optimiser.step(&mut self.set.values_mut(), &gradients, &self.mask)?;
        self.position.step += 1;
        self.position.losses[0] += f64::from(loss);
        self.position.losses[1] += 1.0;
        observer.stepped(&StepEvent {
            step: self.optimiser.state().step,
            steps: total,
            epoch: self.epochs_done(),
            loss,
            rate: report.learning_rate,
            tokens: group.iter().map(|examples| data.tokens(examples)).sum(),
            seconds: began.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    fn epochs_done(&self) -> f64 {
        self.position.epoch as f64 + self.position.step as f64 / self.steps_per_epoch as f64
    }

    /// At the end of each of an epoch's equal parts.
    fn at_evaluation(&self) -> bool {
        let (step, steps, parts) = (self.position.step, self.steps_per_epoch, self.settings.evaluations.max(1));
        step * parts / steps > (step - 1) * parts / steps
    }

    fn evaluate(&mut self, model: &mut AdaptedModel, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let [sum, count, _] = self.position.losses;
        let stepped = count > 0.0;
        if stepped {
            self.position.losses = [0.0, 0.0, sum / count];
        }
        let (epochs, loss) = (self.epochs_done(), stepped.then_some(self.position.losses[2]));
        if let Some(dev) = &self.data.dev {
            let evaluation = evaluate(model, &self.set, dev, self.shape, self.data.scale)?;
            let better = self.position.best.is_none() || evaluation.loss < self.position.best_loss[0];
            observer.evaluated(epochs, loss, Some(&evaluation), better);
            if better {
                self.position.best = Some(self.position.history.len());
                self.position.best_loss = [evaluation.loss];
                self.best_set = Some(self.set.clone());
            }
            self.position.history.push((epochs, evaluation));
        } else if stepped {
            observer.evaluated(epochs, loss, None, true);
        }
        self.save()
    }

    /// Whether too many evaluations in a row brought nothing.
    fn out_of_patience(&self) -> bool {
        let since = self.position.best.map_or(0, |best| self.position.history.len().saturating_sub(best + 1));
        self.settings.patience.is_some_and(|patience| since >= patience)
    }

    fn save(&self) -> Result<(), TrainError> {
        let Some(policy) = self.policy else { return Ok(()) };
        let checkpoint = Checkpoint {
            identity: self.identity.clone(),
            values: self.set.tensors(),
            best: self.best_set.as_ref().map(AdapterSet::tensors).unwrap_or_default(),
            optimiser: self.optimiser.state().clone(),
            position: self.position.clone(),
        };
        Ok(checkpoint.write(&policy.path)?)
    }
}
