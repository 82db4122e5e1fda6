//! The federations that are shown side by side.

use fedtt_tt::config::{Method as Adapter, Rank};
use fedtt_wire::Plan;
use fedtt_wire::plan::{Bounds, CoreRule, Encoding, Task};

/// A federation to show.
#[derive(Clone, Debug)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// Its plan, but for the backbone and the number of devices.
    pub plan: Plan,
}

/// FedTT, FedTT+ and `tt-core` as they are meant to be used, LoRA and dense adapters as they are usually sent: whole, in
/// float32. All with the same rounds, local steps and examples.
pub fn methods(task: Task, labels: &[String], rounds: u32, steps: u32) -> Vec<Method> {
    let plan = |name: &str, adapter: Adapter, rate: f32| {
        let mut plan = Plan { name: name.into(), rounds, ..Plan::default() };
        plan.model.task = task;
        plan.model.labels = labels.to_vec();
        plan.adapter.method = adapter;
        plan.local.steps = steps;
        plan.local.batch = 8;
        plan.local.rate = Some(rate);
        plan.local.head_rate = 2e-2;
        plan.local.decay = fedtt_tt::optim::Decay::Cosine;
        plan.collection.time = Bounds { min: Some(120), max: Some(120) };
        plan.evaluation.clients = false;
        plan
    };
    let usual = |mut plan: Plan| {
        plan.wire.uplink.encoding = Encoding::F32;
        plan.wire.uplink.feedback = false;
        plan.wire.downlink = Encoding::F32;
        plan
    };
    let mut plus = plan("FedTT+", Adapter::Tt, 5e-3);
    plus.schedule.cores = CoreRule::EndsAndOne;
    let mut core = plan("TT core", Adapter::TtCore, 1e-2);
    core.adapter.rank = Some(Rank::Uniform(22));
    let all = [
        plan("FedTT", Adapter::Tt, 5e-3),
        plus,
        core,
        usual(plan("LoRA r=8", Adapter::Lora, 2e-3)),
        usual(plan("dense 64", Adapter::Dense, 1e-3)),
    ];
    all.into_iter().map(|plan| Method { name: plan.name.clone(), plan }).collect()
}
