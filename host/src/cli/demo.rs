//! `fedtt demo`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use fedtt::demo::{Demo, Finished, Method, Watcher, methods, run as federate, write_table};
use fedtt::report;
use fedtt::run::{RunEvent, What};
use fedtt::simulate::Partition;
use fedtt_edge::flags::EngineArgs;
use fedtt_edge::source::Source;
use fedtt_runtime::EngineConfig;
use fedtt_wire::plan::Task;
use serde_json::{Value, json};

use super::data::{DataArgs, deal, labels};
use crate::output::{Outcome, bytes, table};

const EXAMPLES: &str = "\
Examples:
  fedtt demo
  fedtt demo --rounds 20 --steps 20
  fedtt demo --backbone minilm.bundle --data TREC.train.all --test TREC.test.all --encoding latin-1 --devices 10

The first runs five federations of six devices over a broker within this process, on the embedded encoder and field
reports, each device with the reports of its own sites. Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Options of `demo`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    /// Bundle made by `fedtt backbone prepare` [default: the embedded encoder]
    #[arg(long, value_name = "DIR")]
    backbone: Option<PathBuf>,
    /// Devices
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=500))]
    devices: u32,
    /// Rounds of each federation
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Steps a device trains in a round
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: u32,
    /// Who holds what: iid, dirichlet:ALPHA, shards:N, column:NAME or quantity:ALPHA [default: the embedded reports by
    /// site, a file dirichlet:1]
    #[arg(long, value_name = "HOW")]
    partition: Option<Partition>,
    /// Seed of the partition
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Where the report and the runs' folders go
    #[arg(short, long, value_name = "DIR", default_value = "fedtt-demo")]
    out: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Prints a line a round on standard error.
struct Lines {
    began: Instant,
}

impl Lines {
    fn say(&self, text: &str) {
        eprintln!("{:5.1} s  {text}", self.began.elapsed().as_secs_f64());
    }
}

impl Watcher for Lines {
    fn ready(&self, broker: &str) {
        self.say(&format!("broker at {broker}"));
    }

    fn began(&self, method: &Method) {
        self.say(&format!("{}: {} rounds of {} steps", method.name, method.plan.rounds, method.plan.local.steps));
    }

    fn event(&self, method: &Method, event: &RunEvent) {
        let (name, round, rounds) = (&method.name, event.round, method.plan.rounds);
        match &event.what {
            What::Measured { after } => {
                let done = "#".repeat(round as usize * 20 / rounds.max(1) as usize);
                self.say(&format!("{name:9} [{done:20}] {round:2}/{rounds}  {} {:.3}", after.metric, after.value));
            }
            What::Declined { device, reason } => self.say(&format!("{name}: {device} declines: {reason}")),
            What::Refused { device, kind, reason } => self.say(&format!("{name}: {device}, {kind}: {reason}")),
            What::RoundFailed { reason } => self.say(&format!("{name}: round failed: {reason}")),
            _ => {}
        }
    }

    fn finished(&self, _finished: &Finished) {}
}

/// Runs the demonstration.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let source = Arc::new(Source::open(args.backbone.as_deref())?);
    let embedded = args.data.is_embedded();
    let partition = args.partition.clone().unwrap_or(match embedded {
        true => Partition::Column("site".into()),
        false => Partition::Dirichlet(1.0),
    });
    let group = match &partition {
        Partition::Column(name) => Some(name.as_str()),
        _ => None,
    };
    let examples = args.data.read(Task::Classify, group)?;
    let of = |e: &fedtt_edge::data::Example| e.label.clone().unwrap_or_default();
    let by_label: Vec<String> = examples.train.examples.iter().map(of).collect();
    let parts = partition.deal(&by_label, &examples.groups, args.devices as usize, args.seed);
    let runs = std::path::absolute(args.out.join("runs"))?;
    std::fs::create_dir_all(&runs).with_context(|| format!("cannot create {}", runs.display()))?;
    let state = tempfile::tempdir().context("no folder for the state of host and devices")?;
    let test = match &examples.test {
        Some(test) => {
            let path = state.path().join("test.tsv");
            write_table(test, &path).with_context(|| format!("cannot write {}", path.display()))?;
            vec![path]
        }
        None => Vec::new(),
    };
    let bundle = args.backbone.as_deref().map(std::path::absolute).transpose()?;
    let demo = Demo {
        source,
        bundle,
        data: deal(&examples.train, &parts),
        test,
        methods: methods(Task::Classify, &labels(&examples.train)?, args.rounds, args.steps),
        engine: EngineConfig { threads: args.engine.threads.max(1), ..args.engine.config() },
        runs,
        state: state.path().to_path_buf(),
    };
    let lines = Lines { began };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let finished = runtime.block_on(federate(demo, &lines))?;
    runtime.shutdown_background();
    let page = args.out.join("report.html");
    let reports: Vec<_> = finished.iter().map(|f| f.report.clone()).collect();
    std::fs::write(&page, report::html(&reports)).with_context(|| format!("cannot write {}", page.display()))?;
    let text = format!("\n{}\nReport: {}\n", shown(&finished), page.display());
    Ok(Outcome {
        text,
        data: json!({ "report": page, "runs": finished.iter().map(data).collect::<Vec<_>>() }),
        ok: true,
    })
}

/// What a device sends and receives in a round, in the mean.
fn per_round(finished: &Finished) -> (u64, u64, u64) {
    let summary = &finished.report.summary;
    let updates = summary.updates.max(1);
    let payload: u64 = finished.report.rounds.iter().flat_map(|r| r.contributions.values()).map(|c| c.payload).sum();
    (payload / updates, summary.traffic.up / updates, summary.traffic.down / updates)
}

fn value(finished: &Finished) -> Option<(String, f64)> {
    let last = finished.report.rounds.iter().rev().find_map(|r| r.after.as_ref().or(r.before.as_ref()));
    last.map(|m| (m.metric.clone(), m.value))
}

fn trained(finished: &Finished) -> u64 {
    let rounds = &finished.report.rounds;
    rounds.iter().map(|r| r.trained).sum::<u64>() / rounds.len().max(1) as u64
}

fn shown(all: &[Finished]) -> String {
    let metric = all.iter().find_map(value).map_or_else(|| "accuracy".into(), |(metric, _)| metric);
    let row = |f: &Finished| {
        let (update, up, down) = per_round(f);
        vec![
            f.name.clone(),
            value(f).map_or_else(String::new, |(_, value)| format!("{value:.3}")),
            trained(f).to_string(),
            bytes(update),
            bytes(up),
            bytes(down),
            format!("{:.1} s", f.seconds),
        ]
    };
    let header = ["method", metric.as_str(), "trained", "update", "up", "down", "time"];
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    format!(
        "{}  per device and round: values trained, the update's bytes, all bytes at the socket\n",
        table(&header, &rows)
    )
}

fn data(f: &Finished) -> Value {
    let (update, up, down) = per_round(f);
    let (metric, value) = value(f).unzip();
    json!({
        "method": f.name, "run": f.report.summary.run, "metric": metric, "value": value, "trained": trained(f),
        "update_bytes": update, "up_bytes": up, "down_bytes": down, "seconds": f.seconds,
    })
}
