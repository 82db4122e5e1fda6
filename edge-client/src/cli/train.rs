//! `fedtt-edge train`

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use fedtt_edge::adapter_file::{AdapterFile, AdapterHeader};
use fedtt_edge::batch::{BatchShape, EncodedSet, hold_out};
use fedtt_edge::data::{Columns, Dataset, Labels, Targets};
use fedtt_edge::evaluate::{Evaluation, TargetScale, evaluate};
use fedtt_edge::flags::{EngineArgs, ReadArgs};
use fedtt_edge::model::{AdaptedModel, Use};
use fedtt_edge::prepare::Encoding;
use fedtt_edge::source::{FieldSplit, Source, field_reports};
use fedtt_edge::streams::StreamCache;
use fedtt_edge::task::TaskKind;
use fedtt_edge::tokenize::TextEncoder;
use fedtt_edge::train::{CheckpointPolicy, TrainSettings, Trained, TrainingData, train};
use fedtt_runtime::{Engine, select};
use serde::Serialize;

use super::args::{BackboneArgs, OutputArgs};
use super::interrupt::interrupted;
use super::output::Output;
use super::progress::Progress;
use super::settings::{AdapterArgs, ScheduleArgs};
use super::table;

const EXAMPLES: &str = "\
Examples:
  fedtt-edge train
  fedtt-edge train --bundle minilm --data TREC.train.all --encoding latin-1 -o trec.safetensors
  fedtt-edge train --bundle minilm --data train.tsv --text sentence --label label --epochs 1 -o sst2.safetensors
  fedtt-edge train --bundle stories --task lm --data speeches.jsonl --text speeches -o play.safetensors

The first trains the embedded encoder on the embedded field reports and measures it on their test split.
Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// At most this many examples are held out unless a file is given.
const HELD_OUT_LIMIT: usize = 1000;

/// Options of `train`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    backbone: BackboneArgs,
    /// File to learn from: tsv, csv, jsonl, labelled lines, or plain text for lm [default: the embedded field reports]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// File of held-out examples: watched while training; the adapter with the lowest loss on them is kept
    #[arg(long, value_name = "FILE")]
    dev: Option<PathBuf>,
    /// Without --dev, the share of the examples held out; at most 1000 examples
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, conflicts_with = "dev", value_parser = share)]
    dev_fraction: f64,
    /// What to learn: classify, regress or lm (the next token)
    #[arg(long, value_enum, default_value = "classify")]
    task: TaskKind,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    schedule: ScheduleArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Where the adapter goes
    #[arg(short, long = "out", visible_alias = "output", value_name = "FILE", default_value = "adapter.safetensors")]
    out: PathBuf,
    /// With --depth: keep what enters the adapted blocks in a file in this folder, so that the blocks below run once
    /// instead of every epoch (4 bytes for each token and unit of the hidden size)
    #[arg(long, value_name = "DIR", help_heading = "Training")]
    cache: Option<PathBuf>,
    /// Where the run's state is kept meanwhile, and when Ctrl-C or SIGTERM ends it [default: the adapter's name with
    /// .checkpoint; removed when done]
    #[arg(long, value_name = "FILE", help_heading = "Interruption")]
    checkpoint: Option<PathBuf>,
    /// Steps between two checkpoints
    #[arg(long, value_name = "N", default_value_t = 200, help_heading = "Interruption")]
    checkpoint_every: u64,
    /// Go on from the checkpoint, if there is one, to the very adapter an uninterrupted run would have made
    #[arg(long, help_heading = "Interruption")]
    resume: bool,
    /// Leave off after this many steps in all; --resume goes on
    #[arg(long, value_name = "N", help_heading = "Interruption")]
    stop_after: Option<u64>,
}

#[derive(Serialize)]
struct Report<'a> {
    /// The adapter's file; absent while the run is not finished.
    adapter: Option<&'a Path>,
    finished: bool,
    engine: &'a str,
    bundle: &'a str,
    task: TaskKind,
    labels: Option<&'a Labels>,
    trained_values: usize,
    examples: usize,
    held_out: usize,
    steps: u64,
    loss: f64,
    seconds: f64,
    history: Vec<Entry<'a>>,
    /// What the adapter reaches on the held-out examples.
    dev: Option<&'a Evaluation>,
    /// And on the embedded test split.
    test: Option<&'a Evaluation>,
}

#[derive(Serialize)]
struct Entry<'a> {
    epochs: f64,
    #[serde(flatten)]
    evaluation: &'a Evaluation,
}

/// Trains an adapter; false where a signal came before its end.
pub(crate) fn run(args: &TrainArgs, output: Output) -> anyhow::Result<bool> {
    let began = Instant::now();
    let mut progress = Progress::new(output.is_json());
    let source = Source::open(args.backbone.bundle.as_deref())?;
    let files = Files::read(args)?;
    let settings = settings(args, &source, files.train.examples.len())?;
    let encoder = source.encoder(settings.max_length)?;
    let header = header(args, &source, &files, settings)?;
    let data = training_data(args, &source, &encoder, &header, &files)?;

    let engine = select(&args.engine.config())?;
    let objective = header.objective(&source)?;
    let set = header.fresh(&source, &objective)?;
    let rows = header.training.batch.min(data.train.rows.len().max(1));
    let shape = BatchShape { rows, max_length: encoder.max_length(), pad_id: encoder.pad_id() };
    let purpose = purpose(args, &source, &data, shape, engine.as_ref(), header.training.adapter.depth)?;
    let options = args.engine.session();
    let mut model = AdaptedModel::load(&source.backbone, &set, &objective, engine.as_ref(), &options, purpose)
        .context("cannot load the training graph")?;
    progress.say(&format!("{} on {}, engine {}", task_line(&header), source.name, engine.name()));

    let checkpoint = args.checkpoint.clone().unwrap_or_else(|| args.out.with_extension("checkpoint"));
    if !args.resume {
        put_aside(&checkpoint, &progress)?;
    }
    let leave_off = interrupted("leaving off after this step, so that --resume can go on; once more ends at once")?;
    let policy = CheckpointPolicy { path: checkpoint, every: args.checkpoint_every, resume: args.resume, leave_off };
    let trained = train(&mut model, set, &data, shape, &header.training, Some(&policy), &mut progress)?;
    progress.finish();

    let test = match args.data {
        None if trained.finished => {
            let encoded = encoding(&source, &encoder, &header).labelled(&field_reports(FieldSplit::Test))?;
            if args.cache.is_some() {
                let set = &trained.set;
                model = AdaptedModel::load(&source.backbone, set, &objective, engine.as_ref(), &options, Use::Forward)?;
            }
            Some(evaluate(&mut model, &trained.set, &encoded, shape, header.scale)?)
        }
        _ => None,
    };
    let engine = engine.name();
    let examples = (data.train.rows.len(), data.dev.as_ref().map_or(0, |d| d.rows.len()));
    let summary = Summary { args, engine: &engine, examples, seconds: began.elapsed().as_secs_f64(), policy: &policy };
    let interrupted = !trained.finished && policy.leave_off.load(Ordering::Relaxed);
    summary.conclude(header, &trained, test.as_ref(), !interrupted, output)?;
    Ok(!interrupted)
}

/// A checkpoint that a run left is not overwritten by another that starts afresh.
fn put_aside(checkpoint: &Path, progress: &Progress) -> anyhow::Result<()> {
    if !checkpoint.exists() {
        return Ok(());
    }
    let mut aside = checkpoint.as_os_str().to_owned();
    aside.push(".previous");
    std::fs::rename(checkpoint, &aside).with_context(|| format!("cannot rename {}", checkpoint.display()))?;
    let aside = PathBuf::from(aside);
    progress.say(&format!("starting afresh; the checkpoint that was there is {} now", aside.display()));
    Ok(())
}

/// Whole training, or training of the adapted blocks alone from the stored output of those below.
fn purpose(
    args: &TrainArgs,
    source: &Source,
    data: &TrainingData,
    shape: BatchShape,
    engine: &dyn Engine,
    depth: Option<usize>,
) -> anyhow::Result<Use> {
    let blocks = source.backbone.anatomy.blocks();
    let lowest = blocks.saturating_sub(depth.unwrap_or(blocks));
    let Some(folder) = args.cache.as_deref().filter(|_| lowest > 0) else { return Ok(Use::Train) };
    let sets: Vec<&EncodedSet> = std::iter::once(&data.train).chain(&data.dev).collect();
    let options = args.engine.session();
    let streams = StreamCache::fill(&source.backbone, lowest, &sets, shape, engine, &options, folder)?;
    Ok(Use::TrainAbove(lowest, streams))
}

/// Training and held-out data as read.
struct Files {
    train: Dataset,
    dev: Option<Dataset>,
    columns: Columns,
}

impl Files {
    fn read(args: &TrainArgs) -> anyhow::Result<Self> {
        let options = args.read.options(&Columns::default(), args.task, true);
        let train = match &args.data {
            Some(path) => Dataset::read(path, &options)?,
            None => field_reports(FieldSplit::Train),
        };
        let dev = args.dev.as_deref().map(|path| Dataset::read(path, &options)).transpose()?;
        Ok(Files { train, dev, columns: options.columns })
    }
}

fn settings(args: &TrainArgs, source: &Source, examples: usize) -> anyhow::Result<TrainSettings> {
    let longest = source.backbone.longest();
    let mut settings = args.schedule.settings(args.adapter.config()?, args.task, examples, longest);
    settings.stop_after = args.stop_after;
    settings.train_norms = args.adapter.train_norms;
    Ok(settings)
}

fn header(args: &TrainArgs, source: &Source, files: &Files, training: TrainSettings) -> anyhow::Result<AdapterHeader> {
    let labels = (args.task == TaskKind::Classify).then(|| Labels::collect(&files.train)).transpose()?;
    let scale = match args.task {
        TaskKind::Regress => match Targets::values(&files.train)? {
            Targets::Values(values) => Some(TargetScale::of(&values)),
            _ => None,
        },
        _ => None,
    };
    Ok(AdapterHeader {
        format: AdapterFile::FORMAT,
        bundle: source.hash.clone(),
        task: args.task,
        labels,
        scale,
        pooling: args.adapter.pooling.unwrap_or(source.pooling),
        columns: files.columns.clone(),
        training,
        origin: None,
    })
}

fn encoding<'a>(source: &Source, encoder: &'a TextEncoder, header: &'a AdapterHeader) -> Encoding<'a> {
    Encoding {
        encoder,
        vocabulary: source.backbone.vocabulary(),
        task: header.task,
        labels: header.labels.as_ref(),
        scale: header.scale,
    }
}

fn training_data(
    args: &TrainArgs,
    source: &Source,
    encoder: &TextEncoder,
    header: &AdapterHeader,
    files: &Files,
) -> anyhow::Result<TrainingData> {
    let encoding = encoding(source, encoder, header);
    let whole = encoding.labelled(&files.train)?;
    let (train, dev): (EncodedSet, Option<EncodedSet>) = match &files.dev {
        Some(dev) => (whole, Some(encoding.labelled(dev)?)),
        None => {
            let (kept, out) = hold_out(whole.rows.len(), args.dev_fraction, HELD_OUT_LIMIT, header.training.seed);
            let dev = (!out.is_empty()).then(|| whole.select(&out));
            (whole.select(&kept), dev)
        }
    };
    let dev_print = dev.as_ref().map(EncodedSet::fingerprint).unwrap_or_default();
    // Also what is made of them: labels, pooling and the like.
    let kind = serde_json::to_string(header).context("the adapter's header has no JSON form")?;
    let fingerprint = [source.hash.as_str(), &train.fingerprint(), &dev_print, &kind].join("/");
    Ok(TrainingData { train, dev, scale: header.scale, fingerprint })
}

fn task_line(header: &AdapterHeader) -> String {
    match (&header.task, &header.labels) {
        (TaskKind::Classify, Some(labels)) => format!("telling {} classes apart", labels.names().len()),
        (TaskKind::Regress, _) => "predicting a number".to_string(),
        _ => "predicting the next token".to_string(),
    }
}

/// What is left to do once the steps are done.
struct Summary<'a> {
    args: &'a TrainArgs,
    engine: &'a str,
    examples: (usize, usize),
    seconds: f64,
    policy: &'a CheckpointPolicy,
}

impl Summary<'_> {
    fn conclude(
        &self,
        header: AdapterHeader,
        trained: &Trained,
        test: Option<&Evaluation>,
        ok: bool,
        output: Output,
    ) -> anyhow::Result<()> {
        let dev = trained.best.and_then(|best| trained.history.get(best)).map(|(_, evaluation)| evaluation);
        let file = AdapterFile { header, set: trained.set.clone() };
        if trained.finished {
            file.write(&self.args.out)?;
            std::fs::remove_file(&self.policy.path)
                .with_context(|| format!("cannot remove {}", self.policy.path.display()))?;
        }
        let header = &file.header;
        let report = Report {
            adapter: trained.finished.then_some(self.args.out.as_path()),
            finished: trained.finished,
            engine: self.engine,
            bundle: &header.bundle,
            task: header.task,
            labels: header.labels.as_ref(),
            trained_values: file.set.count(&fedtt_tt::TrainMask::default()),
            examples: self.examples.0,
            held_out: self.examples.1,
            steps: trained.steps,
            loss: trained.loss,
            seconds: self.seconds,
            history: trained.history.iter().map(|(epochs, evaluation)| Entry { epochs: *epochs, evaluation }).collect(),
            dev,
            test,
        };
        output.judged(ok, &report, &self.text(header, trained, dev, test))
    }

    fn text(
        &self,
        header: &AdapterHeader,
        trained: &Trained,
        dev: Option<&Evaluation>,
        test: Option<&Evaluation>,
    ) -> String {
        let shown = |title: &str, evaluation: Option<&Evaluation>| {
            evaluation
                .map_or_else(String::new, |e| format!("\n{title}\n{}", table::evaluation(e, header.labels.as_ref())))
        };
        let end = if trained.finished {
            let adapter = self.args.out.display();
            format!("{} steps in {:.0} s; adapter in {adapter}\n", trained.steps, self.seconds)
        } else {
            format!("left off after {} steps; repeat with --resume to go on\n", trained.steps)
        };
        // The test split says what the held-out examples, by which the best was chosen, flatter.
        let shown = if test.is_some() { shown("Test split:", test) } else { shown("Held out:", dev) };
        end + &shown
    }
}

fn share(word: &str) -> Result<f64, String> {
    let share: f64 = word.parse().map_err(|_| "expected a number".to_string())?;
    if (0.0..1.0).contains(&share) { Ok(share) } else { Err("expected a share from 0 to below 1".to_string()) }
}
