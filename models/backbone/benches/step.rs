//! One training step in units of a forward pass, per engine: `cargo bench -p fedtt-backbone --bench step`.
//!
//! ```text
//! cargo bench -p fedtt-backbone --bench step -- [MODEL.onnx] [--engine ort|tract] [--threads N] [--batch B]
//!     [--length S] [--micro-batch TOKENS] [--recompute] [--plain] [--repeats N] [--task classify|lm]
//!     [--json] [--save FOLDER]
//! ```
//! A batch goes through in parts of at most so many tokens, as in training: by default of those the engine says; 0 for whole batches.
//! `--plain` runs every operator by itself; `--save` writes the step's graph as it is given to the engine.
//! Without a model, MiniLM beside the repository is taken (`../shared/models`), and nothing is measured where that is
//! absent. Times are medians; memory is the process's peak over its start, so run one engine at a time to compare it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use fedtt_backbone::backbone::{Backbone, Role};
use fedtt_backbone::bundle::{self, Bundle, Draft, Origin, Precision, Settings};
use fedtt_backbone::prepare::prepare;
use fedtt_backbone::training::{LOSS, Pooling, TRAIN, Task, TrainingGraph, TrainingSpec, gradient_of};
use fedtt_runtime::{EngineChoice, EngineConfig, Model, Parts, SessionOptions, Tensor, Thrift, select};
use fedtt_tt::config::AdapterConfig;
use fedtt_tt::model::{AdapterSet, HeadSize};
use ndarray::{ArrayD, IxDyn};

struct Args {
    model: Option<PathBuf>,
    options: HashMap<String, String>,
}

impl Args {
    fn parse() -> Self {
        let (mut model, mut options) = (None, HashMap::new());
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                Some(flag @ ("json" | "recompute" | "plain")) => drop(options.insert(flag.into(), String::new())),
                Some(name) => drop(options.insert(name.to_string(), words.next().unwrap_or_default())),
                None => model = Some(word.into()),
            }
        }
        Args { model, options }
    }

    fn number(&self, name: &str, default: usize) -> usize {
        self.options.get(name).map_or(default, |value| value.parse().unwrap())
    }
}

fn main() {
    let args = Args::parse();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let shared = std::env::var_os("FEDTT_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from);
    let model = args.model.clone().unwrap_or_else(|| shared.join("models/minilm-l6/model_int8.onnx"));
    if !model.is_file() {
        println!("nothing measured: {} is absent (name a model)", model.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let bundle = into_bundle(&model, &folder.path().join("bundle"));
    let backbone = Backbone::open(&bundle).unwrap();
    let engines = match args.options.get("engine") {
        Some(name) => vec![name.parse().unwrap()],
        None => vec![EngineChoice::Ort, EngineChoice::Tract],
    };
    for choice in engines {
        let micro_batch = args.options.get("micro-batch").map(|tokens| tokens.parse().unwrap());
        let recompute = args.options.contains_key("recompute");
        let threads = args.number("threads", 1);
        match select(&EngineConfig { choice, threads, micro_batch, recompute, ..EngineConfig::default() }) {
            Ok(engine) => measure(&args, &model, &backbone, engine.as_ref()),
            Err(error) => println!("{choice}: not measured: {error}"),
        }
    }
}

fn into_bundle(model: &std::path::Path, folder: &std::path::Path) -> Bundle {
    let backbone = prepare(model, None).unwrap();
    let settings = Settings {
        source: Origin { file: String::new(), sha256: String::new() },
        vocabulary: backbone.vocabulary(),
        precision: Precision::of(&backbone.graph),
        pooling: Pooling::Mean,
        labels: Vec::new(),
        licence: None,
        anatomy: backbone.anatomy.clone(),
    };
    bundle::write(folder, Draft { graph: backbone.kept_graph(), settings, tokenizer: None, licence: None }).unwrap()
}

fn measure(args: &Args, model: &std::path::Path, backbone: &Backbone, engine: &dyn fedtt_runtime::Engine) {
    let (batch, length) = (args.number("batch", 16), args.number("length", 64));
    let thrift = engine.thrift();
    let Parts { rows, abreast } = thrift.parts(batch, length);
    let parts = batch.div_ceil(rows);
    let repeats = args.number("repeats", 7);
    let start = memory("VmRSS");
    let options = SessionOptions { threads: args.number("threads", 1), ..SessionOptions::default() };
    let language = args.options.get("task").is_some_and(|task| task == "lm");
    let task = if language { Task::CausalLm } else { Task::Classify { classes: 6 } };
    let head = (!language).then_some(HeadSize { input: backbone.anatomy.hidden, outputs: 6 });
    let set = AdapterSet::new(&AdapterConfig::default(), &backbone.adapter_sites(), head, 1).unwrap();
    let spec = TrainingSpec {
        adapters: set.forms().into_iter().map(|(site, form)| (site.id, form)).collect(),
        head: set.head_form(),
        task,
        pooling: Pooling::Mean,
        from_block: None,
        norms: Vec::new(),
        frozen: Vec::new(),
    };
    let fuse = thrift.fuse && !args.options.contains_key("plain");
    let graph = TrainingGraph::build(backbone, &spec).unwrap().with(Thrift { fuse, ..thrift });
    if let Some(folder) = args.options.get("save") {
        let step = graph.step(backbone).unwrap();
        std::fs::write(PathBuf::from(folder).join("step.onnx"), &step.bytes).unwrap();
    }
    let feeds = feeds(backbone, &graph, &set, rows, length, language);
    let gradients: Vec<String> = graph.factors.iter().map(|name| gradient_of(name)).collect();
    let forward_outputs = vec![LOSS, graph.result];
    let step_outputs: Vec<&str> = forward_outputs.iter().copied().chain(gradients.iter().map(String::as_str)).collect();

    let time = |model: &Model, train: Option<bool>, outputs: &[&str]| {
        let loading = Instant::now();
        let mut session = engine.load(model, &options).unwrap();
        let switch = train.map(|on| Tensor::Bool(ArrayD::from_elem(IxDyn(&[]), on)));
        let mut inputs: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        inputs.extend(switch.as_ref().map(|switch| (TRAIN, switch)));
        session.run(&inputs, outputs).unwrap();
        let load = loading.elapsed().as_secs_f64();
        let mut times: Vec<f64> = (0..repeats)
            .map(|_| {
                let begin = Instant::now();
                for first in (0..parts).step_by(abreast) {
                    let turn = vec![Vec::new(); abreast.min(parts - first)];
                    session.run_parts(&inputs, &turn, outputs).unwrap();
                }
                begin.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], load)
    };
    let only = args.options.get("only").map(String::as_str);
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let mut found: Vec<(&str, f64, f64)> = Vec::new();
    let mut row = |name: &'static str, result: (f64, f64)| found.push((name, result.0, result.1));
    if wanted("forward") {
        row("forward", time(&graph.forward(backbone).unwrap(), None, &forward_outputs));
    }
    if wanted("step") {
        row("step", time(&graph.step(backbone).unwrap(), None, &step_outputs));
    }
    if engine.name().starts_with("ort") {
        let shared = graph.shared(backbone).unwrap();
        if wanted("shared-step") {
            row("shared-step", time(&shared, Some(true), &step_outputs));
        }
        if wanted("shared-evaluation") {
            row("shared-evaluation", time(&shared, Some(false), &forward_outputs));
        }
    }
    let peak = (memory("VmHWM") - start) / 1e6;
    let base = found.first().map_or(1.0, |row| row.1);
    if args.options.contains_key("json") {
        let times: Vec<String> = found
            .iter()
            .map(|(name, s, load)| format!("\"{name}\":{{\"ms\":{:.2},\"load_s\":{load:.2}}}", s * 1e3))
            .collect();
        println!(
            "{{\"engine\":\"{}\",\"threads\":{},\"peak_mb\":{peak:.0},{}}}",
            engine.name(),
            options.threads,
            times.join(",")
        );
        return;
    }
    println!(
        "{} on {}: {batch} x {length} in {parts} parts, {abreast} at a time, {} threads, peak {peak:.0} MB over start",
        model.display(),
        engine.name(),
        options.threads
    );
    for (name, seconds, load) in &found {
        println!(
            "  {name:<18}{:>9.1} ms  {:>5.2} x {}  (ready in {load:.1} s)",
            seconds * 1e3,
            seconds / base,
            found[0].0
        );
    }
}

fn feeds(
    backbone: &Backbone,
    graph: &TrainingGraph,
    set: &AdapterSet,
    batch: usize,
    length: usize,
    language: bool,
) -> Vec<(String, Tensor)> {
    let vocabulary = backbone.vocabulary().unwrap_or(100) as i64;
    let integers = |shape: &[usize], f: &dyn Fn(usize) -> i64| {
        let n = shape.iter().product();
        ArrayD::from_shape_vec(IxDyn(shape), (0..n).map(f).collect()).unwrap()
    };
    let mut feeds: Vec<(String, Tensor)> = Vec::new();
    for (role, name) in &graph.feeds {
        let values = integers(&[batch, length], &|i| match role {
            Role::Ids => 1 + (i as i64 * 7919) % (vocabulary - 1),
            Role::Mask => 1,
            Role::Types => 0,
            Role::Positions => (i % length) as i64,
        });
        feeds.push((name.clone(), backbone.feed(name, values)));
    }
    feeds.extend(set.graph_inputs().into_iter().map(|(name, values)| (name, Tensor::F32(values))));
    let (shape, classes) = if language { (vec![batch, length], vocabulary) } else { (vec![batch], 6) };
    let count: usize = shape.iter().product();
    feeds.push(("labels".into(), Tensor::I64(integers(&shape, &|i| i as i64 % classes))));
    feeds.push(("weights".into(), Tensor::F32(ArrayD::from_elem(IxDyn(&shape), 1.0 / count as f32))));
    feeds
}

/// A figure of `/proc/self/status` in bytes; 0 where there is none.
fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}
