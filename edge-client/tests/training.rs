//! Runs of the embedded encoder on part of the field reports, on the engine that is always there.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use fedtt_edge::adapter_file::{AdapterFile, AdapterHeader};
use fedtt_edge::batch::{BatchShape, EncodedSet};
use fedtt_edge::data::{Columns, Labels};
use fedtt_edge::model::{AdaptedModel, Gradients, Use};
use fedtt_edge::need::{Holder, Need};
use fedtt_edge::prepare::Encoding;
use fedtt_edge::source::{FieldSplit, Source, field_reports};
use fedtt_edge::task::TaskKind;
use fedtt_edge::train::{CheckpointPolicy, TrainError, TrainSettings, Trained, TrainingData, train};
use fedtt_runtime::{SessionOptions, Thrift, TractEngine};
use fedtt_tt::AdapterSet;
use fedtt_tt::config::{Init, Rank};
use fedtt_wire::Plan;
use fedtt_wire::plan::ModelPlan;

struct Bench {
    source: Source,
    header: AdapterHeader,
    data: TrainingData,
    shape: BatchShape,
}

impl Bench {
    /// Every report cut to one length, so that one shape occurs.
    fn new(settings: TrainSettings, examples: usize, held_out: usize) -> Self {
        let source = Source::open(None).unwrap();
        let encoder = source.encoder(settings.max_length).unwrap();
        let mut reports = field_reports(FieldSplit::Train);
        reports.examples.retain(|e| e.text.split_whitespace().count() >= 14);
        let labels = Labels::collect(&reports).unwrap();
        let encoding = Encoding {
            encoder: &encoder,
            vocabulary: source.backbone.vocabulary(),
            task: TaskKind::Classify,
            labels: Some(&labels),
            scale: None,
        };
        let all = encoding.labelled(&reports).unwrap();
        let part = |from: usize, n: usize| -> EncodedSet {
            let spread: Vec<usize> = (from..from + n).map(|i| i * 7 % all.rows.len()).collect();
            all.select(&spread)
        };
        let dev = (held_out > 0).then(|| part(examples, held_out));
        let train = part(0, examples);
        let data = TrainingData { fingerprint: train.fingerprint(), train, dev, scale: None };
        let shape = BatchShape { rows: settings.batch, max_length: encoder.max_length(), pad_id: encoder.pad_id() };
        let header = AdapterHeader {
            format: AdapterFile::FORMAT,
            bundle: source.hash.clone(),
            task: TaskKind::Classify,
            labels: Some(labels),
            scale: None,
            pooling: source.pooling,
            columns: Columns::default(),
            training: settings,
            origin: None,
        };
        Bench { source, header, data, shape }
    }

    /// A run's plan for the same model.
    fn plan(&self) -> Plan {
        let labels = self.header.labels.as_ref().unwrap().names().to_vec();
        Plan {
            model: ModelPlan { bundle: self.source.hash.clone(), labels, ..ModelPlan::default() },
            ..Plan::default()
        }
    }

    /// The untrained adapters, and the model whose steps save memory so.
    fn model(&self, thrift: Thrift) -> (AdapterSet, AdaptedModel) {
        self.model_on(1, thrift)
    }

    /// The same on so many threads.
    fn model_on(&self, threads: usize, thrift: Thrift) -> (AdapterSet, AdaptedModel) {
        let objective = self.header.objective(&self.source).unwrap();
        let set = self.header.fresh(&self.source, &objective).unwrap();
        let engine = TractEngine::new(threads).with_thrift(thrift);
        let options = SessionOptions { threads, ..SessionOptions::default() };
        let model = AdaptedModel::load(&self.source.backbone, &set, &objective, &engine, &options, Use::Train).unwrap();
        (set, model)
    }

    fn run(&self, stop_after: Option<u64>, policy: Option<&CheckpointPolicy>) -> Result<Trained, TrainError> {
        let (set, mut model) = self.model(Thrift::default());
        let settings = TrainSettings { stop_after, ..self.header.training.clone() };
        train(&mut model, set, &self.data, self.shape, &settings, policy, &mut ())
    }
}

fn settings() -> TrainSettings {
    TrainSettings { epochs: 2, batch: 8, max_length: 16, ..TrainSettings::default() }
}

fn policy(path: &Path, resume: bool) -> CheckpointPolicy {
    CheckpointPolicy { path: path.to_path_buf(), every: 2, resume, leave_off: Arc::default() }
}

#[test]
fn the_same_seed_gives_the_same_adapter_also_through_an_interruption() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("run.checkpoint");
    let bench = Bench::new(TrainSettings { train_norms: true, ..settings() }, 40, 16);
    let whole = bench.run(None, None).unwrap();
    assert!(whole.finished);
    assert_eq!(whole.steps, 10);

    let broken = bench.run(Some(3), Some(&policy(&checkpoint, false))).unwrap();
    assert!(!broken.finished);
    let asked = CheckpointPolicy { leave_off: Arc::new(true.into()), ..policy(&checkpoint, true) };
    let asked = bench.run(None, Some(&asked)).unwrap();
    assert_eq!((asked.finished, asked.steps), (false, 3), "it leaves off when asked to");
    assert_eq!(broken.steps, 3);
    let broken = bench.run(Some(7), Some(&policy(&checkpoint, true))).unwrap();
    assert_eq!(broken.steps, 7);
    let resumed = bench.run(None, Some(&policy(&checkpoint, true))).unwrap();
    assert_eq!(resumed.set.tensors(), whole.set.tensors());
    assert_eq!(resumed.history.len(), whole.history.len());
    assert_eq!(resumed.best, whole.best);
    assert_eq!(resumed.loss.to_bits(), whole.loss.to_bits());

    let other = Bench::new(TrainSettings { seed: 1, train_norms: true, ..settings() }, 40, 16);
    assert_ne!(other.run(None, None).unwrap().set.tensors(), whole.set.tensors());
    let error = other.run(None, Some(&policy(&checkpoint, true))).unwrap_err().to_string();
    assert!(error.contains("belongs to a run with other settings"), "{error}");
}

#[test]
fn training_raises_held_out_accuracy() {
    let bench = Bench::new(TrainSettings { epochs: 6, ..settings() }, 160, 60);
    let trained = bench.run(None, None).unwrap();
    let score = |i: usize| trained.history[i].1.headline().1;
    let best = trained.best.unwrap();
    assert!(score(best) > score(0) + 0.25, "{} after {}", score(best), score(0));
}

#[test]
fn two_small_batches_make_the_step_of_a_large_one() {
    let once = TrainSettings { epochs: 1, batch: 16, ..settings() };
    let large = Bench::new(once.clone(), 16, 0).run(None, None).unwrap();
    let small = Bench::new(TrainSettings { batch: 8, accumulate: 2, ..once }, 16, 0).run(None, None).unwrap();
    assert_eq!((large.steps, small.steps), (1, 1));
    assert!((large.loss - small.loss).abs() < 1e-5);
}

#[test]
fn parts_of_a_batch_make_its_step_and_its_results() {
    let bench = Bench::new(settings(), 16, 0);
    // Five examples and three fillers, whole and in parts of two rows.
    let batch = bench.data.train.batch(&[3, 1, 4, 2, 5], bench.shape, 0.2);
    let [(set, mut whole), (_, mut parts)] =
        [usize::MAX, 32].map(|micro_batch| bench.model(Thrift { micro_batch, ..Thrift::default() }));
    let [a, b] = [&mut whole, &mut parts].map(|model| model.forward(&set, &batch).unwrap());
    assert!((a.loss - b.loss).abs() < 1e-5, "{} {}", a.loss, b.loss);
    assert_eq!(b.result.shape()[0], 6, "three parts");
    assert!(
        a.result.rows().into_iter().zip(b.result.rows()).take(5).all(|(a, b)| (&a - &b).iter().all(|d| d.abs() < 1e-5))
    );
    let thrift = Thrift { micro_batch: 64, ..Thrift::default() };
    let mut abreast = bench.model_on(2, thrift).1;
    let at_once = abreast.forward(&set, &batch).unwrap();
    assert_eq!((at_once.loss, at_once.result), (b.loss, b.result), "the same parts, two at the same time");
    let [a, b, c] = [whole, parts, abreast].map(|mut model| model.step(&set, &batch, None).unwrap());
    assert_eq!(b.1, c.1);
    alike(a, b);
}

#[test]
fn values_computed_again_make_the_same_step_in_less_memory() {
    let bench = Bench::new(settings(), 16, 0);
    let batch = bench.data.train.batch(&[3, 1, 4, 2, 5], bench.shape, 0.2);
    let models = [false, true].map(|recompute| bench.model(Thrift { recompute, ..Thrift::default() }));
    let [kept, again] = models.map(|(set, mut model)| model.step(&set, &batch, None).unwrap());
    alike(kept, again);

    let counted = |recompute| {
        let thrift = Thrift { micro_batch: 2048, recompute, ..Thrift::default() };
        Need::of_plan(&bench.plan(), &bench.source, Holder::Ort, thrift).unwrap().counted
    };
    let (kept, again) = (counted(false), counted(true));
    assert_eq!(kept.forward, again.forward);
    assert!(again.branched < kept.branched, "{} of {}", again.branched, kept.branched);
    assert!(again.step < kept.step, "{} of {}", again.step, kept.step);
}

#[test]
fn fused_operators_make_the_same_step_of_fewer_nodes() {
    let bench = Bench::new(settings(), 16, 0);
    let batch = bench.data.train.batch(&[3, 1, 4, 2, 5], bench.shape, 0.2);
    let models = [false, true].map(|fuse| bench.model(Thrift { fuse, ..Thrift::default() }));
    let [plain, fused] = models.map(|(set, mut model)| model.step(&set, &batch, None).unwrap());
    alike(plain, fused);

    let counted = |fuse| {
        let thrift = Thrift { fuse, ..Thrift::default() };
        Need::of_plan(&bench.plan(), &bench.source, Holder::Tract, thrift).unwrap().counted
    };
    let (plain, fused) = (counted(false), counted(true));
    assert!(2 * fused.nodes < plain.nodes + plain.nodes / 2, "{} of {} nodes", fused.nodes, plain.nodes);
    assert!(fused.step <= plain.step, "{} of {} bytes", fused.step, plain.step);
}

/// Losses and gradients are the same up to rounding.
fn alike((a_loss, a): (f32, Gradients), (b_loss, b): (f32, Gradients)) {
    assert!((a_loss - b_loss).abs() < 1e-5);
    assert_eq!(a.len(), b.len());
    for (name, gradient) in a {
        let size = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
        let off = (&gradient - &b[&name]).iter().map(|g| g * g).sum::<f32>().sqrt();
        assert!(off <= 1e-5 * size.max(1e-3), "{name}: {off} of {size}");
    }
}

#[test]
fn training_stops_when_nothing_improves() {
    let settings = TrainSettings { epochs: 20, patience: Some(2), rate: 1e-9, head_rate: 1e-9, ..settings() };
    let trained = Bench::new(settings, 16, 16).run(None, None).unwrap();
    assert!(trained.finished);
    assert!(trained.steps < 40, "{} steps", trained.steps);
}

#[test]
fn an_adapter_is_read_back_as_it_was_and_refused_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.safetensors");
    let mut tuned = settings();
    tuned.adapter.rank = Some(Rank::Uniform(3));
    tuned.adapter.init = Init::Identity;
    let mut bench = Bench::new(tuned, 16, 0);
    let objective = bench.header.objective(&bench.source).unwrap();
    let set = bench.header.fresh(&bench.source, &objective).unwrap();
    let file = AdapterFile { header: bench.header.clone(), set };
    file.write(&path).unwrap();
    let read = AdapterFile::read(&path, &bench.source).unwrap();
    assert_eq!(read.header, file.header);
    assert_eq!(read.set.tensors(), file.set.tensors());

    bench.source.hash = "another".into();
    let error = AdapterFile::read(&path, &bench.source).unwrap_err().to_string();
    assert!(error.contains("was trained in backbone") && error.contains("another"), "{error}");
}
