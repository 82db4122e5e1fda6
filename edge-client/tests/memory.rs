//! Memory that training takes, predicted and measured: each case trains a few steps in a fresh process.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;
use std::process::Command;

use fedtt_edge::board::peak;
use fedtt_edge::local::PlanModel;
use fedtt_edge::need::{Holder, Need};
use fedtt_edge::source::{FieldSplit, Source, field_reports};
use fedtt_runtime::{EngineChoice, EngineConfig, SessionOptions, select};
use fedtt_tt::TrainMask;
use fedtt_wire::message::Goal;
use fedtt_wire::plan::{LocalPlan, ModelPlan};
use fedtt_wire::{DeviceName, Plan};

const CASE: &str = "FEDTT_MEMORY_CASE";

/// Tolerance of the prediction.
const TOLERANCE: f64 = 0.15;

/// A bundle, an engine, rows and their length.
fn case(bundle: &str, engine: &str, batch: usize, length: usize) -> Option<(f64, f64)> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["measure", "--exact", "--ignored", "--nocapture"])
        .env(CASE, format!("{bundle}|{engine}|{batch}|{length}"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let figures = said.lines().find_map(|line| line.strip_prefix("memory "))?;
    eprintln!("{bundle:30} {engine:6} {batch:3} x {length:4}  {figures}");
    let figures: Vec<f64> = figures.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    Some((figures[0], figures[1]))
}

#[test]
#[ignore = "a process of the other tests"]
fn measure() {
    let Ok(case) = std::env::var(CASE) else { return };
    let case: Vec<&str> = case.split('|').collect();
    let (bundle, engine) = (PathBuf::from(case[0]), case[1].parse::<EngineChoice>().unwrap());
    let (batch, length) = (case[2].parse::<usize>().unwrap(), case[3].parse::<usize>().unwrap());
    let config = EngineConfig { choice: engine, threads: 1, ..EngineConfig::default() };
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
    let holder = if engine == EngineChoice::Ort { Holder::Ort } else { Holder::Tract };
    let need = Need::of_plan(&plan, &source, holder, config.thrift()).unwrap();
    let chosen = select(&config).unwrap();
    let mut model =
        PlanModel::load(&plan, &source, chosen.as_ref(), &SessionOptions { threads: 1, ..SessionOptions::default() })
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
    let mut engines = vec!["tract"];
    // Where the library is, as on the boards.
    if std::env::var_os("ORT_DYLIB_PATH").is_some() {
        engines.push("ort");
    }
    let mut cases = Vec::new();
    for engine in engines {
        cases.extend([(8, 32), (16, 64), (16, 128)].map(|(b, l)| ("embedded".to_string(), engine, b, l)));
        // Prepared bundles, such as MiniLM's, separated by colons.
        let more = std::env::var("FEDTT_MEMORY_BUNDLES").unwrap_or_default();
        for bundle in more.split(':').filter(|bundle| !bundle.is_empty()) {
            cases.extend([(8, 32), (16, 64), (16, 128)].map(|(b, l)| (bundle.to_string(), engine, b, l)));
        }
    }
    let mut wrong = Vec::new();
    for (bundle, engine, batch, length) in cases {
        let (foreseen, measured) = case(&bundle, engine, batch, length).unwrap();
        let off = (foreseen - measured) / measured;
        if off.abs() > TOLERANCE {
            wrong.push(format!(
                "{bundle} on {engine}, {batch} x {length}: {foreseen} MiB foreseen, {measured} measured"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
