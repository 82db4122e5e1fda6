//! Options that decide how training goes and what an adapter is.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use fedtt_backbone::training::Pooling;
use fedtt_edge::task::TaskKind;
use fedtt_edge::train::{Decay, TrainSettings};
use fedtt_tt::AdapterConfig;
use fedtt_tt::config::{HeadKind, Init, Method, Rank, Sites};
use fedtt_tt::form::Activation;
use fedtt_tt::optim::Rule;
use serde::de::DeserializeOwned;

/// The schedule.
#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
pub(crate) struct ScheduleArgs {
    /// Passes over the data [default: as many as make about 300 steps, from 3 (lm: 1) to 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// Examples in a batch [default: 16; 8 below 1,000 examples, 32 from 20,000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: Option<u32>,
    /// Batches whose gradients make one step
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    accumulate: u32,
    /// Longest text, in tokens; longer ones are cut, for lm split [default: 128, or as many as the backbone has positions for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=65536))]
    max_length: Option<u32>,
    /// How the adapters' matrices are trained: adamw, or muon [default: adamw; tt-core muon]
    #[arg(long, value_name = "RULE", value_parser = word::<Rule>)]
    optimiser: Option<Rule>,
    /// Learning rate [default: tt 5e-3, on fewer than 2000 examples 2e-3; lora and ffa-lora 2e-3, tt-lora 1e-2,
    /// tt-core 1e-3, dense 1e-3]
    #[arg(long, value_name = "RATE", value_parser = positive)]
    lr: Option<f32>,
    /// Learning rate of the head
    #[arg(long, value_name = "RATE", default_value_t = 2e-2, value_parser = positive)]
    head_lr: f32,
    /// Share of the steps over which the rate rises to its full value
    #[arg(long, value_name = "SHARE", default_value_t = 0.06, value_parser = part)]
    warmup: f32,
    /// How the rate falls afterwards: linear, cosine or constant
    #[arg(long, value_name = "SHAPE", default_value = "linear", value_parser = word::<Decay>)]
    decay: Decay,
    /// Share of the rate left at the end
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = part)]
    floor: f32,
    /// Decoupled weight decay
    #[arg(long, value_name = "DECAY", default_value_t = 0.0, value_parser = not_negative)]
    weight_decay: f32,
    /// Largest global norm of a step's gradients; 0 for no limit
    #[arg(long, value_name = "NORM", default_value_t = 1.0, value_parser = not_negative)]
    clip: f32,
    /// Seeds initial values, order and held-out examples
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Held-out evaluations in an epoch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    evals: u32,
    /// Stop after this many evaluations in a row without a new best [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    patience: Option<u32>,
}

/// The adapter.
#[derive(Debug, Args)]
#[command(next_help_heading = "Adapter")]
pub(crate) struct AdapterArgs {
    /// TOML file with any adapter settings; the options below override it
    #[arg(long, value_name = "FILE")]
    adapter_config: Option<PathBuf>,
    /// tt (tensor trains), tt-lora (tensor trains beside query and value), tt-core (one core of each), lora, ffa-lora or
    /// dense [default: tt]
    #[arg(long, value_name = "METHOD", value_parser = word::<Method>)]
    adapter: Option<Method>,
    /// Rank, or a tensor train's inner ranks as in 5,5,8,5 [default: tt 5, tt-lora and lora 8, tt-core 44]
    #[arg(long, value_name = "R", value_parser = rank)]
    rank: Option<Rank>,
    /// Width between the two projections [default: 64]
    #[arg(long, value_name = "N")]
    bottleneck: Option<usize>,
    /// relu, gelu, silu, tanh or identity [default: relu]
    #[arg(long, value_name = "FUNCTION", value_parser = word::<Activation>)]
    activation: Option<Activation>,
    /// Factor on what an adapter adds [default: 1; lora, ffa-lora and tt-lora 16 / rank, tt-core 2]
    #[arg(long, value_name = "FACTOR")]
    scaling: Option<f32>,
    /// loretta, near (a tenth of it), or identity: an adapter that changes nothing at first [default: identity]
    #[arg(long, value_name = "START", value_parser = word::<Init>)]
    init: Option<Init>,
    /// Where in a block: attention, mlp or both [default: both]
    #[arg(long, value_name = "WHERE", value_parser = word::<Sites>)]
    sites: Option<Sites>,
    /// Adapt only the top N blocks [default: all]
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Adapters without biases
    #[arg(long)]
    no_bias: bool,
    /// Train the gains of the backbone's norms as well
    #[arg(long)]
    pub(crate) train_norms: bool,
    /// dense, or tt: a tensor train and tanh before the projection to the classes [default: dense]
    #[arg(long, value_name = "KIND", value_parser = word::<HeadKind>)]
    head: Option<HeadKind>,
    /// mean, cls (first token) or last (token) [default: as the bundle says]
    #[arg(long, value_name = "HOW", value_parser = word::<Pooling>)]
    pub(crate) pooling: Option<Pooling>,
}

impl ScheduleArgs {
    /// The settings for a data set of `examples`, and a backbone that takes texts of so many tokens, where that is limited.
    pub(crate) fn settings(
        &self,
        adapter: AdapterConfig,
        task: TaskKind,
        examples: usize,
        longest: Option<usize>,
    ) -> TrainSettings {
        let rate = match adapter.method {
            Method::Tt if examples < FEW_EXAMPLES => 2e-3,
            // Muon's steps are all of one length: the noise that a round's mean takes out of them stays in.
            Method::TtCore => 1e-3,
            _ => adapter.usual_rate(),
        };
        let batch = self.batch.map_or_else(|| usual_batch(examples), |batch| batch as usize);
        let steps = examples.div_ceil(batch).div_ceil(self.accumulate as usize).max(1);
        let fewest = if task == TaskKind::Lm { 1 } else { 3 };
        let epochs = USUAL_STEPS.div_ceil(steps).clamp(fewest, 50);
        TrainSettings {
            adapter,
            train_norms: false,
            epochs: self.epochs.map_or(epochs, |epochs| epochs as usize),
            batch,
            accumulate: self.accumulate as usize,
            max_length: self
                .max_length
                .map_or_else(|| longest.unwrap_or(USUAL_LENGTH).min(USUAL_LENGTH), |n| n as usize),
            optimiser: self.optimiser,
            rate: self.lr.unwrap_or(rate),
            head_rate: self.head_lr,
            warmup: self.warmup,
            decay: self.decay,
            floor: self.floor,
            weight_decay: self.weight_decay,
            clip: self.clip,
            seed: self.seed,
            evaluations: self.evals as usize,
            patience: self.patience.map(|p| p as usize),
            stop_after: None,
        }
    }
}

impl AdapterArgs {
    pub(crate) fn config(&self) -> anyhow::Result<AdapterConfig> {
        let mut config: AdapterConfig = match &self.adapter_config {
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                toml::from_str(&text).with_context(|| format!("{} holds no adapter settings", path.display()))?
            }
            None => AdapterConfig::default(),
        };
        config.method = self.adapter.unwrap_or(config.method);
        config.bottleneck = self.bottleneck.unwrap_or(config.bottleneck);
        config.activation = self.activation.unwrap_or(config.activation);
        config.init = self.init.unwrap_or(config.init);
        config.sites = self.sites.unwrap_or(config.sites);
        config.head.kind = self.head.unwrap_or(config.head.kind);
        config.rank = self.rank.clone().or(config.rank);
        config.scaling = self.scaling.or(config.scaling);
        config.depth = self.depth.or(config.depth);
        config.bias &= !self.no_bias;
        config.validate()?;
        Ok(config)
    }
}

/// Steps a run takes at least where neither epochs nor more data say otherwise.
const USUAL_STEPS: usize = 300;
/// Longest text where none is named.
const USUAL_LENGTH: usize = 128;

/// Below this many examples the full rate of tensor trains overfits: 71.6 % against 73.7 to 74.2 % at 2e-3 on the
/// embedded reports.
const FEW_EXAMPLES: usize = 2000;

/// Small batches make many steps of few examples; large ones spread a step's fixed cost over many.
fn usual_batch(examples: usize) -> usize {
    match examples {
        0..1_000 => 8,
        1_000..20_000 => 16,
        _ => 32,
    }
}

/// One of a setting's words, as they stand in configuration files.
fn word<T: DeserializeOwned>(word: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(word.to_string())).map_err(|e| e.to_string())
}

fn rank(word: &str) -> Result<Rank, String> {
    let ranks = word.split(',').map(|r| r.trim().parse::<usize>()).collect::<Result<Vec<_>, _>>();
    match ranks.map_err(|_| "expected a number, or numbers separated by commas".to_string())?.as_slice() {
        [rank] => Ok(Rank::Uniform(*rank)),
        ranks => Ok(Rank::PerBond(ranks.to_vec())),
    }
}

fn positive(word: &str) -> Result<f32, String> {
    let rate: f32 = word.parse().map_err(|_| "expected a number".to_string())?;
    if rate > 0.0 && rate.is_finite() { Ok(rate) } else { Err("expected a number above 0".to_string()) }
}

fn not_negative(word: &str) -> Result<f32, String> {
    let number: f32 = word.parse().map_err(|_| "expected a number".to_string())?;
    if number.is_finite() && number >= 0.0 { Ok(number) } else { Err("expected 0 or more".to_string()) }
}

fn part(word: &str) -> Result<f32, String> {
    let part = not_negative(word)?;
    if part <= 1.0 { Ok(part) } else { Err("expected a share from 0 to 1".to_string()) }
}
