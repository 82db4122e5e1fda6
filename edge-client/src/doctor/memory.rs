//! Memory: what training will take against what is free.

use std::sync::Arc;

use fedtt_runtime::Engine;
use fedtt_wire::Plan;
use fedtt_wire::plan::{ModelPlan, Task};

use super::{Check, size};
use crate::board::{Board, Memory};
use crate::daemon::Settings;
use crate::need::{Holder, Need};
use crate::source::Source;

/// Classes of the plan that stands for those to come.
const CLASSES: usize = 8;

/// The package's service.
const SERVICE: &str = "fedtt-edge.service";

/// The memory there is for the device, which is another's than that of who examines it.
pub(super) struct Bounds {
    memory: Option<Memory>,
    /// Whose it is, if it is told.
    whose: &'static str,
}

impl Bounds {
    /// Of the device that runs as `process`; else of the service that will; else of a process like this one.
    pub(super) fn of(settings: &Settings, board: &Board, process: Option<u32>) -> Self {
        let running = || Some((board.memory_of(process?)?, " to the device that runs here"));
        let service = || {
            let state = std::path::absolute(&settings.state).ok()?;
            let memory = board.memory_of_service(SERVICE, &state)?;
            Some((memory, " to fedtt-edge.service"))
        };
        match running().or_else(service) {
            Some((memory, whose)) => Bounds { memory: Some(memory), whose: if memory.limited { whose } else { "" } },
            None => Bounds { memory: board.read().memory, whose: "" },
        }
    }
}

/// By the batch and length that plans have by default, and the shape of adapter.
pub(super) fn check(
    sources: &[Arc<Source>],
    engine: Option<&dyn Engine>,
    settings: &Settings,
    bounds: &Bounds,
) -> Vec<Check> {
    let Some(engine) = engine else { return Vec::new() };
    let Some(memory) = bounds.memory else {
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
        let wanted = need.bytes().saturating_add(settings.limits.min_free_memory.saturating_mul(1 << 20));
        let shape = format!("{} x {} tokens", plan.local.batch, plan.model.max_length);
        let finding = format!(
            "training {} at {shape} takes about {}; {} of {} are free{}",
            source.name,
            size(need.bytes()),
            size(memory.available),
            size(memory.total),
            bounds.whose
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Bounds;
    use crate::board::tests::Fake;
    use crate::daemon::{EdgeConfig, Settings};

    #[test]
    fn memory_is_the_devices_and_not_that_of_who_looks() {
        let fake = Fake::orin_nx();
        fake.set("proc/self/cgroup", "0::/user.slice\n");
        let plain = EdgeConfig::read(None, &["name=d1".into()]).unwrap().settings().unwrap();
        let service = Settings { state: "/var/lib/fedtt".into(), ..plain.clone() };
        let bounds = |settings: &Settings, process| {
            let bounds = Bounds::of(settings, &fake.board(), process);
            (bounds.memory.unwrap().total, bounds.whose)
        };
        let all = 16_000_000 << 10;
        assert_eq!(bounds(&service, None), (all, ""));
        fake.set("usr/lib/systemd/system/fedtt-edge.service", "[Service]\nStateDirectory=fedtt\nMemoryMax=2G\n");
        assert_eq!(bounds(&service, None), (2 << 30, " to fedtt-edge.service"));
        assert_eq!(bounds(&plain, None), (all, ""), "its state is elsewhere");
        fake.set("proc/77/cgroup", "0::/system.slice/x.service\n");
        fake.set("sys/fs/cgroup/system.slice/x.service/memory.max", "1073741824\n");
        fake.set("sys/fs/cgroup/system.slice/x.service/memory.current", "0\n");
        assert_eq!(bounds(&plain, Some(77)), (1 << 30, " to the device that runs here"));
    }
}
