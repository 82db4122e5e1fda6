//! Which parameters train: FedTT+ trains part of the cores of each tensor train in a round.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::module::{Parameter, Role};

/// Which cores of each tensor train are trained. Rounds count from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "schedule")]
pub enum CoreSchedule {
    /// All (FedTT).
    #[default]
    All,
    /// The first, the last, and one of the inner cores in turn (FedTT+).
    EndsAndOne {
        /// round of the run
        round: u64,
    },
    /// One core in turn: the average over clients of that core averages the matrix exactly.
    One {
        /// round of the run
        round: u64,
    },
    /// The listed cores (from 0) of each listed layer (`{site}.down`, `head.hidden`); none of the layers not listed.
    Listed {
        /// layer -> cores
        cores: BTreeMap<String, Vec<usize>>,
    },
}

/// What trains in a round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainMask {
    /// cores of the adapters' and the head's tensor trains
    pub cores: CoreSchedule,
    /// biases of the adapters
    pub biases: bool,
    /// the head: its cores follow `cores`, the rest of it trains or not
    pub head: bool,
}

impl Default for TrainMask {
    fn default() -> Self {
        Self { cores: CoreSchedule::All, biases: true, head: true }
    }
}

impl CoreSchedule {
    /// Whether core `index` of `count` of `layer` is trained.
    pub fn trains(&self, layer: &str, index: usize, count: usize) -> bool {
        let turn = |round: u64, of: usize| (round % of as u64) as usize;
        match self {
            CoreSchedule::All => true,
            CoreSchedule::EndsAndOne { .. } if count <= 2 => true,
            CoreSchedule::EndsAndOne { round } => {
                index == 0 || index + 1 == count || index == 1 + turn(*round, count - 2)
            }
            CoreSchedule::One { round } => index == turn(*round, count),
            CoreSchedule::Listed { cores } => cores.get(layer).is_some_and(|listed| listed.contains(&index)),
        }
    }
}

impl TrainMask {
    /// Whether a parameter trains. Dense factors and extra tensors train unless their method freezes them.
    pub fn trains(&self, parameter: &Parameter) -> bool {
        let in_head = parameter.layer.starts_with("head.");
        if !parameter.trainable || (in_head && !self.head) {
            return false;
        }
        match parameter.role {
            Role::Core { index, count } => self.cores.trains(&parameter.layer, index, count),
            Role::Bias => in_head || self.biases,
            Role::Factor | Role::Extra => true,
        }
    }
}
