//! What a device trains and measures on.

use fedtt_wire::Plan;

use super::plan::scale;
use crate::batch::{EncodedSet, hold_out};
use crate::evaluate::TargetScale;

/// At most this many examples are held out.
const HELD_OUT_LIMIT: usize = 1000;

/// A device's examples, encoded for one plan.
#[derive(Clone, Debug)]
pub struct LocalData {
    /// What it trains on.
    pub train: EncodedSet,
    /// What it measures the global state on.
    pub held_out: Option<EncodedSet>,
    /// How regression targets are scaled.
    pub scale: Option<TargetScale>,
}

impl LocalData {
    /// Holds out the plan's share of `examples` if devices are to measure, the same in every round; nothing of fewer than
    /// twenty, at most 1000.
    pub fn split(plan: &Plan, examples: EncodedSet) -> Self {
        let share = if plan.evaluation.clients { plan.evaluation.holdout } else { 0.0 };
        let (kept, out) = hold_out(examples.rows.len(), share, HELD_OUT_LIMIT, plan.seed);
        let scale = scale(plan);
        if out.is_empty() {
            return LocalData { train: examples, held_out: None, scale };
        }
        LocalData { train: examples.select(&kept), held_out: Some(examples.select(&out)), scale }
    }
}
