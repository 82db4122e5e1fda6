use std::sync::Arc;

use fedtt_runtime::{SessionOptions, TractEngine};
use fedtt_wire::message::RunPlan;
use fedtt_wire::{Digest, Plan, RunId};
use ndarray::ArrayD;

use crate::adapter_file::AdapterFile;
use crate::adapters::Adapters;
use crate::daemon::adopting::{Adopted, adopt};
use crate::local::{LocalData, PlanModel};
use crate::round::Adoption;
use crate::source::{FieldSplit, Source, field_reports};

/// A run's model, with examples held out, on a device that keeps its adapters in a folder.
struct Bench {
    folder: tempfile::TempDir,
    source: Source,
    plan: Arc<RunPlan>,
    model: PlanModel,
    data: LocalData,
    last: Option<Adopted>,
}

impl Bench {
    fn new() -> Self {
        let source = Source::open(None).unwrap();
        let mut plan: Plan = toml::from_str(
            "[model]\nlabels = ['x', 'y']\nmax_length = 16\n[adapter]\nbottleneck = 8\nrank = 2\n[evaluation]\nholdout = 0.5\n",
        )
        .unwrap();
        plan.model.bundle.clone_from(&source.hash);
        let (engine, options) = (TractEngine::new(1), SessionOptions::default());
        let model = PlanModel::load(&plan, &source, &engine, &options).unwrap();
        let mut reports = field_reports(FieldSplit::Train);
        reports.examples.truncate(40);
        reports.examples.iter_mut().for_each(|e| e.label = Some("x".into()));
        let data = model.data(&plan, &reports).unwrap();
        assert!(data.held_out.is_some());
        let layout = model.layout().clone();
        let plan = Arc::new(RunPlan { run: RunId::new("r-1").unwrap(), began: 1, plan, layout });
        Bench { folder: tempfile::tempdir().unwrap(), source, plan, model, data, last: None }
    }

    /// The run's initial values with the head's bias for the first class at `bias`.
    fn values(&self, bias: f32) -> Vec<ArrayD<f32>> {
        let mut values = self.model.initial().to_vec();
        let place = self.plan.layout.0.iter().position(|entry| entry.name == "head.out.bias").unwrap();
        values[place][0] = bias;
        values
    }

    fn adopt(&mut self, round: u32, values: Vec<ArrayD<f32>>) -> Result<(), String> {
        let digest = Digest::of_values(&values);
        let adoption = Adoption { plan: self.plan.clone(), round, digest, values: Arc::new(values) };
        let adapters = Adapters::of(self.folder.path());
        let outcome = adopt(&adapters, &adoption, &mut self.model, &self.data, self.last.as_ref());
        self.last = Some(outcome.map_err(|e| e.to_string())?);
        Ok(())
    }

    fn current(&self) -> (u32, AdapterFile) {
        let file = AdapterFile::read(&Adapters::of(self.folder.path()).current(&self.plan.run), &self.source).unwrap();
        (file.header.origin.as_ref().unwrap().round, file)
    }
}

#[test]
fn what_is_better_or_little_worse_is_used_and_what_is_bad_is_not() {
    let mut bench = Bench::new();
    let run = bench.plan.run.clone();
    let adapters = Adapters::of(bench.folder.path());
    bench.adopt(1, bench.values(0.5)).unwrap();
    bench.adopt(2, bench.values(2.0)).unwrap();
    bench.adopt(3, bench.values(1.9)).unwrap();
    let (round, file) = bench.current();
    assert_eq!(round, 3);
    assert_eq!(file.header.origin.unwrap().digest, Digest::of_values(&bench.values(1.9)).to_string());
    assert!(adapters.previous(&run).exists());

    // All wrong, and sure of it.
    let error = bench.adopt(4, bench.values(-9.0)).unwrap_err();
    assert!(error.contains("held out"), "{error}");
    assert_eq!(bench.current().0, 3);
    let error = bench.adopt(5, bench.values(f32::NAN)).unwrap_err();
    assert!(error.contains("finite") && error.contains("candidate.safetensors"), "{error}");
    let error = bench.adopt(6, bench.values(3e38)).map(drop);
    // Sure beyond measure, but right: that is no fault.
    assert!(error.is_ok(), "{error:?}");
    let error = bench.adopt(7, bench.values(-3e38)).unwrap_err();
    assert!(error.contains("loss"), "{error}");
    assert_eq!(bench.current().0, 6);
    assert!(bench.adopt(8, bench.values(0.0)[1..].to_vec()).unwrap_err().contains("global state"));

    // Another process compares with what is on the disk; what is damaged there is nothing to compare with.
    bench.last = None;
    assert!(bench.adopt(9, bench.values(-9.0)).is_err());
    std::fs::write(adapters.current(&run), b"damaged").unwrap();
    bench.adopt(10, bench.values(-9.0)).unwrap();
    assert_eq!(bench.current().0, 10);
}
