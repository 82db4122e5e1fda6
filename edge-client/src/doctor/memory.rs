//! Memory: what training will take against what is free.

use std::sync::Arc;

use fedtt_runtime::Engine;
use fedtt_wire::Plan;
use fedtt_wire::plan::{ModelPlan, Task};

use super::{Check, size};
use crate::board::Board;
use crate::daemon::Settings;
use crate::need::{Holder, Need};
use crate::source::Source;

/// Classes of the plan that stands for those to come.
const CLASSES: usize = 8;

/// By the batch and length that plans have by default, and the shape of adapter.
pub(super) fn check(
    sources: &[Arc<Source>],
    engine: Option<&dyn Engine>,
    settings: &Settings,
    board: &Board,
) -> Vec<Check> {
    let Some(engine) = engine else { return Vec::new() };
    let Some(memory) = board.read().memory else {
        return vec![Check::warn("memory", "the system does not tell how much is free", "see that /proc is there")];
    };
    let one = |source: &Arc<Source>| {
        let plan = usual(source);
        let need = match Need::of_plan(&plan, source, Holder::of(engine), engine.thrift()) {
            Ok(need) => need,
            Err(error) => {
                return Check::fail("memory", format!("{}: {error}", source.name), "prepare the bundle again");
            }
        };
        let wanted = need.bytes() + (settings.limits.min_free_memory << 20);
        let shape = format!("{} x {} tokens", plan.local.batch, plan.model.max_length);
        let finding = format!(
            "training {} at {shape} takes about {}; {} of {} are free",
            source.name,
            size(need.bytes()),
            size(memory.available),
            size(memory.total)
        );
        let left = settings.limits.min_free_memory;
        if memory.total < wanted {
            let advice = format!("use a smaller bundle, or plans of smaller batches; {left} MiB are left to others");
            Check::fail("memory", finding, advice)
        } else if memory.available < wanted {
            let advice = format!("stop other programs: rounds wait until {} are free", size(wanted));
            Check::warn("memory", finding, advice)
        } else {
            Check::ok("memory", finding)
        }
    };
    sources.iter().map(one).collect()
}

/// A plan with all defaults for a backbone.
fn usual(source: &Source) -> Plan {
    let labels = (0..CLASSES).map(|class| class.to_string()).collect();
    let task = if source.backbone.anatomy.logits.is_some() { Task::Lm } else { Task::Classify };
    let labels = if task == Task::Classify { labels } else { Vec::new() };
    Plan { model: ModelPlan { bundle: source.hash.clone(), task, labels, ..ModelPlan::default() }, ..Plan::default() }
}
