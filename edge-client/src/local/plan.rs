//! A run's plan in the terms of local training.

use fedtt_backbone::training::Pooling;
use fedtt_wire::Plan;

use super::LocalError;
use crate::adapter_file::{AdapterFile, AdapterHeader};
use crate::data::{Columns, Labels};
use crate::evaluate::TargetScale;
use crate::source::Source;
use crate::task::TaskKind;
use crate::train::TrainSettings;

/// The header of an adapter trained by `plan` in the backbone of `source`: what it is for and what shape it has.
///
/// # Errors
/// When the plan is for another backbone or names a pooling that does not exist.
pub fn adapter_header(plan: &Plan, source: &Source) -> Result<AdapterHeader, LocalError> {
    if plan.model.bundle != source.hash {
        return Err(LocalError::OtherBackbone {
            wanted: plan.model.bundle.clone(),
            found: source.hash.clone(),
            name: source.name.clone(),
        });
    }
    let task = TaskKind::from(plan.model.task);
    Ok(AdapterHeader {
        format: AdapterFile::FORMAT,
        bundle: source.hash.clone(),
        task,
        labels: (task == TaskKind::Classify).then(|| Labels::new(plan.model.labels.clone())),
        scale: scale(plan),
        pooling: plan.model.pooling.as_deref().map_or(Ok(source.pooling), pooling)?,
        columns: Columns::default(),
        training: TrainSettings {
            adapter: plan.adapter.clone(),
            train_norms: plan.model.train_norms,
            batch: plan.local.batch,
            max_length: plan.model.max_length,
            optimiser: plan.local.optimiser,
            rate: rate(plan),
            head_rate: plan.local.head_rate,
            weight_decay: plan.local.weight_decay,
            clip: plan.local.clip,
            seed: plan.seed,
            ..TrainSettings::default()
        },
        origin: None,
    })
}

/// The full learning rate of the plan's adapters: as it says, or by their method.
pub fn rate(plan: &Plan) -> f32 {
    plan.local.rate.unwrap_or_else(|| plan.adapter.usual_rate())
}

pub(super) fn scale(plan: &Plan) -> Option<TargetScale> {
    plan.model.scale.map(|(mean, deviation)| TargetScale { mean, deviation })
}

fn pooling(word: &str) -> Result<Pooling, LocalError> {
    match word {
        "mean" => Ok(Pooling::Mean),
        "cls" => Ok(Pooling::Cls),
        "last" => Ok(Pooling::Last),
        _ => Err(LocalError::Setting { field: "model.pooling", reason: format!("`{word}` is not mean, cls or last") }),
    }
}
