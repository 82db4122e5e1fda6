//! Examples that change between rounds.

use std::fs;
use std::sync::Arc;

use fedtt_runtime::{EngineChoice, EngineConfig};
use fedtt_wire::message::RunPlan;
use fedtt_wire::plan::ModelPlan;
use fedtt_wire::{Plan, RunId};

use crate::daemon::worker::{Training, Worker as _};
use crate::daemon::workshop::Place;
use crate::daemon::{EdgeConfig, Settings};

#[test]
fn rows_that_were_added_are_trained_on_from_the_next_round_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reports.tsv");
    let given = ["name=d1".into(), format!("data.files=['{}']", file.display())];
    let plain = EdgeConfig::read(None, &given).unwrap().settings().unwrap();
    let engine = EngineConfig { choice: EngineChoice::Tract, threads: 1, ..EngineConfig::default() };
    let settings = Settings { state: folder.path().join("state"), engine, ..plain };
    let labels = ["lamp", "pump"].map(String::from).to_vec();
    let bundle = settings.sources[0].hash.clone();
    let plan = Plan { model: ModelPlan { bundle, labels, max_length: 16, ..ModelPlan::default() }, ..Plan::default() };
    let plan = Arc::new(RunPlan { run: RunId::new("r1").unwrap(), began: 1, plan, layout: Default::default() });
    let rows = "text\tlabel\nthe pump hums\tpump\nthe lamp is out\tlamp\n";
    fs::write(&file, rows).unwrap();
    let mut training = Training::new(Place::of(&settings));
    assert_eq!(training.prepare(&plan).unwrap().examples, 2);
    fs::write(&file, format!("{rows}the pump leaks\tpump\n")).unwrap();
    assert_eq!(training.prepare(&plan).unwrap().examples, 3);
    fs::write(&file, format!("{rows}the fan\tfan\n")).unwrap();
    let error = training.prepare(&plan).unwrap_err().to_string();
    assert!(error.contains("fan"), "{error}");
}
