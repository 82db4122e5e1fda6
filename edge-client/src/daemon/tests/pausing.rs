//! Work on the training thread, while the board is too hot, has too little memory, or is measured.

use std::sync::Arc;
use std::time::Duration;

use fedtt_link::{BrokerUrl, Link, LinkConfig};
use fedtt_runtime::{EngineChoice, EngineConfig};
use fedtt_tt::TrainMask;
use fedtt_wire::message::{Goal, RunPlan};
use fedtt_wire::plan::{LocalPlan, ModelPlan};
use fedtt_wire::{Plan, RunId};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::board::Limits;
use crate::board::tests::Fake;
use crate::daemon::guard::{Guard, GuardPace};
use crate::daemon::life::Life;
use crate::daemon::room::Room;
use crate::daemon::trainer::{Order, Trainer};
use crate::daemon::worker::Training;
use crate::daemon::workshop::Place;
use crate::daemon::{Data, EdgeConfig, Settings};
use crate::data::Labels;
use crate::local::LocalResult;
use crate::round::{Event, Job, Prepared};
use crate::source::{FieldSplit, field_reports};

/// A step takes long here, unoptimised and beside other tests.
const PATIENCE: Duration = Duration::from_secs(120);

fn settings(state: &std::path::Path) -> Settings {
    let plain = EdgeConfig::read(None, &["name=d1".into()]).unwrap().settings().unwrap();
    let mut reports = field_reports(FieldSplit::Train);
    reports.examples.truncate(12);
    Settings {
        state: state.to_path_buf(),
        data: Data::Given(Arc::new(reports)),
        engine: EngineConfig { choice: EngineChoice::Tract, threads: 1, ..EngineConfig::default() },
        ..plain
    }
}

fn plan(settings: &Settings) -> Arc<RunPlan> {
    let labels = Labels::collect(&field_reports(FieldSplit::Train)).unwrap().names().to_vec();
    let bundle = settings.sources[0].hash.clone();
    let plan = Plan {
        model: ModelPlan { bundle, labels, max_length: 16, ..ModelPlan::default() },
        local: LocalPlan { steps: 6, batch: 4, ..LocalPlan::default() },
        ..Plan::default()
    };
    Arc::new(RunPlan { run: RunId::new("r1").unwrap(), began: 1, plan, layout: Default::default() })
}

/// A training thread with a board, and the job it is to do.
struct Bench {
    trainer: Trainer,
    events: UnboundedReceiver<Event>,
    job: Job,
    _state: tempfile::TempDir,
}

async fn bench(guard: Option<Guard>) -> Bench {
    let state = tempfile::tempdir().unwrap();
    let settings = settings(state.path());
    let plan = plan(&settings);
    let away = BrokerUrl::tcp("127.0.0.1:1".parse().unwrap());
    let (link, _) = Link::connect(LinkConfig::new(away, "d1")).await.unwrap();
    let (events_in, mut events) = unbounded_channel();
    let worker = Box::new(Training::new(Place::of(&settings)));
    let tell = Arc::new(|_| {});
    let trainer = Trainer::start(worker, Room::new(&settings), link, events_in, tell, guard, Life::new()).unwrap();
    trainer.order(Order::Prepare(plan.clone())).unwrap();
    let Event::Prepared { outcome: Ok(Prepared { initial, .. }), .. } = next(&mut events).await else { panic!() };
    let job = Job {
        id: 1,
        plan,
        round: 0,
        goal: Goal::Train,
        mask: TrainMask::default(),
        rate: 1.0,
        globals: Arc::new(initial),
        memory: Default::default(),
    };
    Bench { trainer, events, job, _state: state }
}

async fn next(events: &mut UnboundedReceiver<Event>) -> Event {
    tokio::time::timeout(PATIENCE, events.recv()).await.expect("the training thread says something").unwrap()
}

fn guard(fake: &Fake) -> Guard {
    let pace = GuardPace { look_every: Duration::from_millis(2), memory_patience: Duration::from_millis(20) };
    Guard::new(fake.board(), Limits::default()).paced(pace)
}

async fn trained(bench: &mut Bench, mut on: impl FnMut(&Event)) -> Result<Box<LocalResult>, String> {
    bench.trainer.order(Order::Train(Box::new(bench.job.clone()))).unwrap();
    loop {
        match next(&mut bench.events).await {
            Event::Trained { outcome, .. } => return outcome,
            event => on(&event),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pauses_change_nothing_of_the_adapter_and_take_no_energy() {
    let plain = trained(&mut bench(None).await, |_| {}).await.unwrap();
    assert_eq!((plain.steps, plain.joules), (6, None));

    let fake = Fake::orin_nx();
    let mut paused = bench(Some(guard(&fake))).await;
    fake.heat(95);
    let mut told = Vec::new();
    let result = trained(&mut paused, |event| match event {
        Event::Paused { reason, .. } => {
            told.push(reason.clone());
            if reason.is_some() {
                fake.heat(60);
            }
        }
        // Hot again between the first step and the second.
        Event::Progressed { stepped, .. } if stepped.step == 1 => fake.heat(90),
        _ => {}
    });
    let result = result.await.unwrap();
    let reasons: Vec<bool> = told.iter().map(Option::is_some).collect();
    // The second heat may come after the last step, on a machine that is busy elsewhere.
    assert!(!reasons.is_empty() && reasons.chunks(2).all(|pair| pair == [true, false]), "{told:?}");
    assert_eq!(told[0].as_deref(), Some("tj-thermal has 95 °C and must cool to 75"));
    assert_eq!((&result.tensors, result.loss, result.tokens), (&plain.tensors, plain.loss, plain.tokens));
    assert!(result.joules.unwrap() > 0.0);
    assert!((6 * 4..=6 * 4 * 16).contains(&plain.tokens));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_waits_can_be_stopped() {
    let fake = Fake::orin_nx();
    let mut bench = bench(Some(guard(&fake))).await;
    fake.heat(95);
    bench.trainer.order(Order::Train(Box::new(bench.job.clone()))).unwrap();
    assert!(matches!(next(&mut bench.events).await, Event::Paused { reason: Some(_), .. }));
    bench.trainer.stop(1);
    let Event::Trained { outcome: Err(reason), .. } = next(&mut bench.events).await else { panic!() };
    assert_eq!(reason, "stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_does_not_come_back_ends_the_work_and_frees_the_model() {
    let fake = Fake::orin_nx();
    let mut bench = bench(Some(guard(&fake))).await;
    fake.set("proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 20000 kB\n");
    let reason = trained(&mut bench, |_| {}).await.unwrap_err();
    assert_eq!(reason, "given up: 19 MiB of memory are free, 64 are needed");
    // Before work, what it takes counts as well.
    fake.set("proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 90000 kB\n");
    bench.trainer.order(Order::Look(bench.job.plan.clone())).unwrap();
    let Event::Looked { objection: Some(objection), .. } = next(&mut bench.events).await else { panic!() };
    assert!(objection.starts_with("87 MiB of memory are free, "), "{objection}");
    fake.set("proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 300000 kB\n");
    bench.trainer.order(Order::Look(bench.job.plan.clone())).unwrap();
    assert!(matches!(next(&mut bench.events).await, Event::Looked { objection: None, .. }));
    assert_eq!(trained(&mut bench, |_| {}).await.unwrap().steps, 6, "it is loaded again");
}
