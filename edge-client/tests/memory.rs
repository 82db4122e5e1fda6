//! Memory that training takes, predicted and measured: each case trains a few steps in a fresh process, as a daemon does.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;
use std::process::Command;

use fedtt_edge::board::peak;
use fedtt_edge::daemon::ARENAS;
use fedtt_edge::local::PlanModel;
use fedtt_edge::need::{Holder, Need};
use fedtt_edge::source::{FieldSplit, Source, field_reports};
use fedtt_runtime::{EngineChoice, EngineConfig, SessionOptions, expected, select};
use fedtt_tt::TrainMask;
use fedtt_wire::message::Goal;
use fedtt_wire::plan::{LocalPlan, ModelPlan};
use fedtt_wire::{DeviceName, Plan};

const CASE: &str = "FEDTT_MEMORY_CASE";

/// Tolerance of the prediction.
const TOLERANCE: f64 = 0.15;

/// A bundle, an engine and its threads, rows and their length: megabytes foreseen and measured.
fn case(bundle: &str, engine: &str, threads: usize, batch: usize, length: usize) -> Option<(f64, f64)> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["measure", "--exact", "--ignored", "--nocapture"])
        .env(CASE, format!("{bundle}|{engine}|{threads}|{batch}|{length}"))
        .env(ARENAS.0, ARENAS.1)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let figures = said.lines().find_map(|line| line.strip_prefix("memory "))?;
    eprintln!("{bundle:30} {engine:6} on {threads} {batch:3} x {length:4}  {figures}");
    let figures: Vec<f64> = figures.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    Some((figures[0], figures[1]))
}

#[test]
#[ignore = "a process of the other tests"]
fn measure() {
    let Ok(case) = std::env::var(CASE) else { return };
    let case: Vec<&str> = case.split('|').collect();
    let (bundle, engine) = (PathBuf::from(case[0]), case[1].parse::<EngineChoice>().unwrap());
    let [threads, batch, length] = [2, 3, 4].map(|i| case[i].parse::<usize>().unwrap());
    let config = EngineConfig { choice: engine, threads, ..EngineConfig::default() };
    let source = Source::open((case[0] != "embedded").then_some(bundle.as_path())).unwrap();
    let data = field_reports(FieldSplit::Train);
    let labels = fedtt_edge::data::Labels::collect(&data).unwrap().names().to_vec();
    let plan = Plan {
        model: ModelPlan { bundle: source.hash.clone(), labels, max_length: length, ..ModelPlan::default() },
        local: LocalPlan { steps: 3, batch, ..LocalPlan::default() },
        ..Plan::default()
    };
    let text = data.examples.iter().map(|e| e.text.as_str()).collect::<Vec<_>>().join(" ");
    // Every row as long as can be.
    let mut data = data;
    data.examples.truncate(2 * batch);
    data.examples.iter_mut().for_each(|example| example.text = text.clone());
    let (_, before) = peak().unwrap();
    let expected = expected(&config).unwrap();
    let need = Need::of_plan(&plan, &source, Holder::expected(&expected), expected.thrift).unwrap();
    let chosen = select(&config).unwrap();
    let mut model =
        PlanModel::load(&plan, &source, chosen.as_ref(), &SessionOptions { threads, ..SessionOptions::default() })
            .unwrap();
    drop(source);
    let local = model.data(&plan, &data).unwrap();
    drop(data);
    let globals = model.initial().to_vec();
    let device = DeviceName::new("d").unwrap();
    let mask = TrainMask::default();
    let round = fedtt_edge::local::RoundWork {
        round: 0,
        goal: Goal::Train,
        mask: &mask,
        rate: 1.0,
        globals: &globals,
        device: &device,
    };
    model.train(&plan, &round, &local, &Default::default(), &|| false, &mut |_| {}).unwrap();
    let (most, _) = peak().unwrap();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("\nmemory {:.1} {:.1} before {:.1} {need:?}", mib(before + need.bytes()), mib(most), mib(before));
}

#[test]
fn what_training_needs_is_foreseen() {
    // tract computes as many parts at the same time as it has threads.
    let mut engines = vec![("tract", 1), ("tract", 2), ("tract", 4)];
    // Where the library is, as on the boards.
    if std::env::var_os("ORT_DYLIB_PATH").is_some() {
        engines.push(("ort", 1));
    }
    // Prepared bundles, such as MiniLM's, separated by colons.
    let more = std::env::var("FEDTT_MEMORY_BUNDLES").unwrap_or_default();
    let bundles = ["embedded"].into_iter().chain(more.split(':').filter(|bundle| !bundle.is_empty()));
    let cases = bundles.flat_map(|bundle| {
        let shapes = engines.iter().flat_map(|engine| [(8, 32), (16, 64), (16, 128)].map(|shape| (*engine, shape)));
        shapes.map(move |(engine, shape)| (bundle, engine, shape))
    });
    let mut wrong = Vec::new();
    for (bundle, (engine, threads), (batch, length)) in cases {
        let (foreseen, measured) = case(bundle, engine, threads, batch, length).unwrap();
        let off = (foreseen - measured) / measured;
        if off.abs() > TOLERANCE {
            wrong.push(format!(
                "{bundle} on {engine}, {threads} threads, {batch} x {length}: {foreseen} MiB foreseen, {measured} measured"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
