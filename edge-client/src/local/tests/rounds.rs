//! Rounds in the embedded encoder, on the engine that is always there.

use std::cell::Cell;

use fedtt_runtime::{SessionOptions, TractEngine};
use fedtt_tt::{CoreSchedule, TrainMask};
use fedtt_wire::Plan;
use fedtt_wire::layout::trained;
use fedtt_wire::message::Goal;
use fedtt_wire::plan::{Coding, Encoding, EvaluationPlan, LocalPlan, ModelPlan, Moments, WirePlan};
use ndarray::ArrayD;

use super::super::{LocalData, LocalError, LocalMemory, LocalResult, PlanModel, RoundWork};
use super::device;
use crate::data::{Dataset, Labels};
use crate::source::{FieldSplit, Source, field_reports};

/// Reports cut to one length, so that one shape occurs.
fn reports(count: usize) -> Dataset {
    let mut reports = field_reports(FieldSplit::Train);
    reports.examples.retain(|e| e.text.split_whitespace().count() >= 14);
    reports.examples.truncate(count);
    reports
}

fn plan(source: &Source) -> Plan {
    let labels = Labels::collect(&field_reports(FieldSplit::Train)).unwrap().names().to_vec();
    let plain = Coding { encoding: Encoding::F32, shuffle: None, delta: false, feedback: false };
    Plan {
        seed: 3,
        model: ModelPlan { bundle: source.hash.clone(), labels, max_length: 16, ..ModelPlan::default() },
        local: LocalPlan { steps: 2, batch: 4, ..LocalPlan::default() },
        wire: WirePlan { uplink: plain, ..WirePlan::default() },
        evaluation: EvaluationPlan { every: 2, ..EvaluationPlan::default() },
        ..Plan::default()
    }
}

struct Bench {
    plan: Plan,
    model: PlanModel,
    data: LocalData,
    mask: TrainMask,
    globals: Vec<ArrayD<f32>>,
}

impl Bench {
    fn new() -> Self {
        let source = Source::open(None).unwrap();
        let plan = plan(&source);
        let options = SessionOptions { threads: 1, ..SessionOptions::default() };
        let model = PlanModel::load(&plan, &source, &TractEngine::new(1), &options).unwrap();
        let data = model.data(&plan, &reports(20)).unwrap();
        let globals = model.initial().to_vec();
        Bench { plan, model, data, mask: TrainMask::default(), globals }
    }

    fn round(&mut self, round: u32, goal: Goal, memory: &LocalMemory) -> Result<LocalResult, LocalError> {
        let name = device("site-1");
        let work = RoundWork { round, goal, mask: &self.mask, rate: 1.0, globals: &self.globals, device: &name };
        let mut result = self.model.train(&self.plan, &work, &self.data, memory, &|| false, &mut |_| {})?;
        assert!(result.seconds > 0.0);
        result.seconds = 0.0;
        Ok(result)
    }

    /// The values sent, by place.
    fn sent(&self, result: &LocalResult) -> Vec<(usize, ArrayD<f32>)> {
        let places = trained(self.model.parameters(), &self.mask);
        assert_eq!(places.len(), result.tensors.len());
        let decode = |(&place, tensor): (&u32, &fedtt_wire::tensor::EncodedTensor)| {
            let entry = &self.model.layout().0[place as usize];
            (place as usize, tensor.decode(&entry.name, &entry.shape).unwrap())
        };
        places.iter().zip(&result.tensors).map(decode).collect()
    }
}

#[test]
fn a_round_is_a_function_of_plan_state_data_and_memory() {
    let mut bench = Bench::new();
    let none = LocalMemory::default();
    assert_eq!(bench.data.train.rows.len(), 16);
    let first = bench.round(0, Goal::Train, &none).unwrap();
    assert_eq!((first.steps, first.examples), (2, 16));
    let measured = first.measured.clone().unwrap();
    assert_eq!((measured.examples, measured.metric.as_str()), (4, "accuracy"));
    // Eight classes, nothing learnt yet.
    assert!((measured.loss - 8f64.ln()).abs() < 0.5 && first.loss < 3.0, "{} {}", measured.loss, first.loss);
    let next = bench.round(1, Goal::Train, &none).unwrap();
    assert!(next.measured.is_none(), "every second round only");
    assert_ne!(next.tensors, first.tensors);
    assert_eq!(bench.round(0, Goal::Train, &none).unwrap(), first, "whatever was done in between");

    let sent = bench.sent(&first);
    assert_eq!(sent.len(), bench.globals.len());
    assert!(sent.iter().any(|(place, value)| *value != bench.globals[*place]));

    let only = bench.round(1, Goal::Measure, &none).unwrap();
    assert!(only.tensors.is_empty() && only.steps == 0);
    assert_eq!(only.measured.unwrap(), measured);
}

#[test]
fn frozen_parameters_keep_the_global_values_and_are_not_sent() {
    let mut bench = Bench::new();
    bench.mask = TrainMask { cores: CoreSchedule::One { round: 0 }, biases: false, head: true };
    bench.plan.wire.uplink = Coding { encoding: Encoding::Int8, shuffle: None, delta: true, feedback: true };
    bench.plan.local.moments = Moments::Carry;
    let result = bench.round(0, Goal::Train, &LocalMemory::default()).unwrap();
    let places = trained(bench.model.parameters(), &bench.mask);
    assert!(!places.is_empty() && places.len() * 3 < bench.globals.len());
    assert_eq!(result.tensors.len(), places.len());
    let values = bench.model.set.values();
    for (place, (value, global)) in values.iter().zip(&bench.globals).enumerate() {
        if !places.contains(&(place as u32)) {
            assert_eq!(value, global, "{}", bench.model.layout().0[place].name);
        }
    }
    let moments = result.memory.moments.clone().unwrap();
    let updates = |place: usize| moments.updates[place];
    assert!((0..bench.globals.len()).all(|p| updates(p) == if places.contains(&(p as u32)) { 2 } else { 0 }));
    // What is kept goes into the next round.
    let again = bench.round(1, Goal::Train, &LocalMemory::default()).unwrap();
    let carried = bench.round(1, Goal::Train, &result.memory).unwrap();
    assert_ne!(carried.tensors, again.tensors);
    assert_eq!(carried.memory.moments.unwrap().step, 4);
}

#[test]
fn the_proximal_term_holds_the_values_back() {
    let mut bench = Bench::new();
    bench.plan.local.steps = 4;
    let distance = |bench: &Bench, result: &LocalResult| -> f32 {
        let square = |(place, value): (usize, ArrayD<f32>)| (value - &bench.globals[place]).mapv(|d| d * d).sum();
        bench.sent(result).into_iter().map(square).sum::<f32>().sqrt()
    };
    let free = bench.round(1, Goal::Train, &LocalMemory::default()).unwrap();
    bench.plan.local.prox = 100.0;
    let held = bench.round(1, Goal::Train, &LocalMemory::default()).unwrap();
    let (free, held) = (distance(&bench, &free), distance(&bench, &held));
    assert!(held < 0.7 * free, "{held} against {free}");
}

/// A bench with but two examples of another class than the rest.
fn skewed() -> Bench {
    let mut bench = Bench::new();
    bench.plan.local.steps = 8;
    let classes = (0..bench.data.train.rows.len()).map(|i| usize::from(i < 2)).collect();
    bench.data.train.targets = crate::data::Targets::Classes(classes);
    bench
}

/// How much more a round has raised the frequent class's bias than the rare one's.
fn gap(bench: &mut Bench) -> f32 {
    let result = bench.round(1, Goal::Train, &LocalMemory::default()).unwrap();
    let place = bench.model.layout().0.iter().position(|entry| entry.name == "head.out.bias").unwrap();
    let bias = bench.sent(&result).into_iter().find(|(at, _)| *at == place).unwrap().1;
    bias[[0]] - bias[[1]]
}

#[test]
fn adjusted_logits_leave_a_device_its_mix_of_classes() {
    let mut bench = skewed();
    let plain = gap(&mut bench);
    bench.plan.local.logit_adjustment = 1.0;
    let adjusted = gap(&mut bench);
    // What only says that a class is frequent here goes into the bias; adjusted, the prior says it already.
    assert!(plain > 0.0 && adjusted < 0.75 * plain, "{plain} against {adjusted}");
}

#[test]
fn balanced_batches_hide_a_device_s_mix_of_classes() {
    let mut bench = skewed();
    let plain = gap(&mut bench);
    bench.plan.local.class_balance = 1.0;
    let balanced = gap(&mut bench);
    assert!(plain > 0.0 && balanced.abs() < 0.5 * plain, "{plain} against {balanced}");
}

#[test]
fn a_large_epsilon_holds_small_gradients_back() {
    let mut bench = skewed();
    let free = gap(&mut bench);
    bench.plan.local.epsilon = 1.0;
    let held = gap(&mut bench);
    assert!(held > 0.0 && held < 0.5 * free, "{free} against {held}");
}

#[test]
fn work_that_cannot_be_done_is_refused_with_its_reason() {
    let mut bench = Bench::new();
    let none = LocalMemory::default();
    let name = device("d");
    let asked = Cell::new(0);
    let work = RoundWork {
        round: 1,
        goal: Goal::Train,
        mask: &bench.mask.clone(),
        rate: 1.0,
        globals: &bench.globals.clone(),
        device: &name,
    };
    let stop = || asked.replace(asked.get() + 1) >= 1;
    let mut steps = Vec::new();
    let stopped = bench.model.train(&bench.plan, &work, &bench.data, &none, &stop, &mut |s| steps.push(s.step));
    assert!(matches!(stopped, Err(LocalError::Stopped)));
    assert_eq!(steps, [1]);

    let error =
        bench.model.train(&bench.plan, &RoundWork { rate: 0.0, ..work }, &bench.data, &none, &|| false, &mut |_| {});
    assert!(error.unwrap_err().to_string().contains("learning_rate"));
    let short = RoundWork { globals: &bench.globals[1..], ..work };
    let error = bench.model.train(&bench.plan, &short, &bench.data, &none, &|| false, &mut |_| {}).unwrap_err();
    assert!(error.to_string().starts_with("the global state: "), "{error}");
    let empty = LocalData { train: bench.data.train.select(&[]), ..bench.data.clone() };
    let error = bench.model.train(&bench.plan, &work, &empty, &none, &|| false, &mut |_| {});
    assert!(matches!(error, Err(LocalError::Empty)));

    let mut strange = reports(3);
    strange.examples[1].label = Some("meteorite".into());
    let error = bench.model.encode(&strange).unwrap_err().to_string();
    assert!(error.contains("label \"meteorite\" is none of the classes"), "{error}");
}

#[test]
fn a_plan_for_another_backbone_or_an_unknown_pooling_is_refused() {
    let source = Source::open(None).unwrap();
    let engine = TractEngine::new(1);
    let load =
        |plan: &Plan| PlanModel::load(plan, &source, &engine, &SessionOptions::default()).err().unwrap().to_string();
    let good = plan(&source);
    let mut other = good.clone();
    other.model.bundle = "0123".into();
    assert!(load(&other).starts_with("the plan is for backbone 0123, not for "));
    let mut odd = good;
    odd.model.pooling = Some("max".into());
    assert_eq!(load(&odd), "plan setting `model.pooling`: `max` is not mean, cls or last");
}
