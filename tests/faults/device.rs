//! A device whose work is made up: `fedtt-edge`'s daemon as a process of its own, which can be killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fedtt_edge::daemon::{self, Data, Labour, Settings, Told, Worker};
use fedtt_edge::data::Dataset;
use fedtt_edge::local::{LocalError, LocalMemory, LocalResult, Stepped};
use fedtt_edge::round::{Job, LocalPolicy, Pace, Prepared};
use fedtt_link::Retry;
use fedtt_wire::message::{Goal, Presence, RunPlan};
use fedtt_wire::plan::Encoding;
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::{DeviceName, FleetName, RunId};
use ndarray::ArrayD;
use serde_json::{Value, json};

/// What a process of this program that is to be a device is told.
const VARIABLE: &str = "FEDTT_TEST_DEVICE";

/// Starts a device; what it has to say goes to `{name}.log` in `folder`.
pub(crate) fn start(folder: &Path, name: &str, bundle: &str, broker: &str, work: Duration) -> Child {
    let log = folder.join(format!("{name}.log"));
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let told = json!({
        "name": name, "bundle": bundle, "broker": broker, "state": folder.join(name), "work": work.as_millis() as u64,
    });
    Command::new(std::env::current_exe().unwrap())
        .args(["device::process", "--exact", "--ignored", "--nocapture"])
        .env(VARIABLE, told.to_string())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "a device of the other tests"]
fn process() {
    let Ok(told) = std::env::var(VARIABLE) else { return };
    let told: Value = serde_json::from_str(&told).unwrap();
    let text = |key: &str| told[key].as_str().unwrap().to_string();
    let name = DeviceName::new(text("name")).unwrap();
    let settings = Settings {
        broker: text("broker").parse().unwrap(),
        tls: None,
        host_key: None,
        fleet: FleetName::new("fedtt").unwrap(),
        name: name.clone(),
        labels: Vec::new(),
        state: text("state").into(),
        bundles: Vec::new(),
        sources: Vec::new(),
        data: Data::Given(Arc::new(Dataset { name: String::new(), examples: Vec::new() })),
        policy: LocalPolicy::default(),
        board: None,
        limits: Default::default(),
        engine: Default::default(),
        workshop: None,
        fetch: Default::default(),
    };
    let labour = Labour {
        presence: Presence {
            online: true,
            version: "0".into(),
            labels: Vec::new(),
            engine: "made up".into(),
            bundles: vec![text("bundle")],
            examples: 9,
            ..Presence::default()
        },
        worker: Box::new(MadeUp { device: name, work: Duration::from_millis(told["work"].as_u64().unwrap()) }),
        pace: Pace { first: 150, longest: 600, spread: 30, listen: 500 },
        retry: Retry { min: Duration::from_millis(20), max: Duration::from_millis(100) },
    };
    let tell = |told: Told| eprintln!("{told:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(daemon::work(settings, labour, std::future::pending(), tell)).unwrap();
}

/// Makes updates up, each unlike any other.
struct MadeUp {
    device: DeviceName,
    work: Duration,
}

impl Worker for MadeUp {
    fn prepare(&mut self, plan: &Arc<RunPlan>) -> Result<Prepared, LocalError> {
        // Not what the run begins with: the global state has to be downloaded.
        Ok(Prepared { layout: plan.layout.clone(), initial: plan.layout.zeros(), examples: 9 })
    }

    fn train(
        &mut self,
        job: &Job,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Stepped),
    ) -> Result<LocalResult, LocalError> {
        let until = Instant::now() + self.work;
        while Instant::now() < until {
            if stop() {
                return Err(LocalError::Stopped);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        progress(Stepped { step: 1, steps: 1, loss: 1.0 });
        Ok(result(&self.device, job))
    }

    fn forget(&mut self, _run: Option<&RunId>) {}
}

/// A function of the device, the round, the global state, and how many of the device's updates were counted: what is counted
/// twice, or not, or kept by one side alone, changes all that follows.
fn result(device: &DeviceName, job: &Job) -> LocalResult {
    let counted = job.memory.residual.as_ref().map_or(0.0, |r| r[0].iter().next().copied().unwrap_or(0.0));
    let own: u32 = device.as_str().bytes().map(u32::from).sum();
    let change = |(place, values): (usize, &ArrayD<f32>)| {
        let phase = (own * 31 + job.round * 17 + place as u32 * 7) as f32;
        let mut at = 0.0;
        let made = values.mapv(|value| {
            at += 1.0;
            (phase + at * 1.618).sin() * 0.01 - 0.05 * value + 0.001 * counted
        });
        EncodedTensor::encode(made.view(), Encoding::F32, None)
    };
    let residual = job.globals.iter().map(|values| ArrayD::from_elem(values.raw_dim(), counted + 1.0)).collect();
    LocalResult {
        tensors: if job.goal == Goal::Train {
            job.globals.iter().enumerate().map(change).collect()
        } else {
            Vec::new()
        },
        examples: 9 + u64::from(own % 5),
        steps: 1,
        tokens: 9,
        joules: None,
        loss: 1.0,
        seconds: 0.0,
        measured: None,
        memory: LocalMemory { residual: Some(residual), moments: None },
    }
}
