//! `fedtt simulate`

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use fedtt::record::{RoundRecord, RunSummary};
use fedtt::simulate::{Faults, Outcomes, Partition, Simulation, Watcher, simulate};
use fedtt::{model, record};
use fedtt_edge::flags::EngineArgs;
use fedtt_edge::source::Source;
use fedtt_wire::Plan;
use serde_json::{Value, json};

use super::data::{DataArgs, Examples, deal, fill_labels};
use crate::output::{Outcome, bytes, table};

const EXAMPLES: &str = "\
Examples:
  fedtt simulate fedtt.toml --clients 8 --partition column:site
  fedtt simulate fedtt.toml lora.toml --clients 10 --partition dirichlet:0.1 --data TREC.train.all --test TREC.test.all \\
      --encoding latin-1 --seeds 3
  fedtt simulate fedtt.toml --clients 1000 --count 100 --faults dropout=0.1,flip=0.02

Each plan is run with each seed on the same parts of the data. Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Options of `simulate`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SimulateArgs {
    /// Plans; several are compared
    #[arg(required = true, value_name = "PLAN.toml")]
    plans: Vec<PathBuf>,
    /// Virtual clients
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Who holds what: iid, dirichlet:ALPHA, shards:N, column:NAME or quantity:ALPHA
    #[arg(long, value_name = "HOW", default_value = "iid")]
    partition: Partition,
    /// What goes wrong: shares of updates as in dropout=0.1,delay=0.05,nan=0.01,flip=0.01,duplicate=0.1
    #[arg(long, value_name = "FAULTS", default_value = "")]
    faults: Faults,
    /// Clients a round, whatever the plan says
    #[arg(long, value_name = "N")]
    count: Option<u32>,
    /// Rounds, whatever the plan says
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Runs of each plan, with seeds from the plan's on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    seeds: u32,
    /// Rounds between two measurements on the test examples
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    test_every: u32,
    /// Virtual clients trained at the same time, each on a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: u32,
    /// Where report.html and rounds.jsonl of every run go
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// One plan with one seed.
struct Entry {
    name: String,
    seed: u64,
    seconds: f64,
    outcomes: Outcomes,
    plan: Plan,
}

/// Says every round on standard error.
struct Lines {
    name: String,
    began: Instant,
}

impl Watcher for Lines {
    fn trained(&self, _round: u32, _done: usize, _of: usize) {}

    fn round(&self, summary: &RunSummary, record: &RoundRecord) {
        let shown = record.after.as_ref().or(record.before.as_ref());
        let measured = shown.map_or_else(String::new, |m| format!("{} {:.3}, loss {:.3}", m.metric, m.value, m.loss));
        let updates = record.contributions.len();
        let (round, rounds, seconds) = (record.round + 1, summary.rounds, self.began.elapsed().as_secs_f64());
        eprintln!("{}  round {round}/{rounds}  {updates} updates  {measured}  {seconds:.0} s", self.name);
    }
}

/// Runs every plan with every seed.
pub(crate) fn run(args: &SimulateArgs) -> anyhow::Result<Outcome> {
    let engine = fedtt_runtime::select(&args.engine.config())?;
    let mut entries: Vec<Entry> = Vec::new();
    for path in &args.plans {
        let stem = path.file_stem().map_or_else(|| "plan".into(), |stem| stem.to_string_lossy().into_owned());
        // Plans of one name in several folders are no seeds of one plan.
        let known = |name: &str| entries.iter().any(|entry| entry.name == name);
        let further = (2..).map(|n| format!("{stem}.{n}"));
        let name = std::iter::once(stem.clone()).chain(further).find(|name| !known(name)).unwrap_or_default();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let (mut plan, source) = model::draft(&text, path)?;
        let group = match &args.partition {
            Partition::Column(name) => Some(name.as_str()),
            _ => None,
        };
        let examples = args.data.read(plan.model.task, group)?;
        fill_labels(&mut plan, &examples.train)?;
        plan.selection.count = args.count.or(plan.selection.count);
        plan.rounds = args.rounds.unwrap_or(plan.rounds);
        plan.selection.min = args.clients.min(plan.selection.count.unwrap_or(args.clients));
        for seed in 0..u64::from(args.seeds) {
            let plan = Plan { seed: plan.seed.wrapping_add(seed), ..plan.clone() };
            entries.push(one(args, plan, &source, &examples, engine.as_ref(), name.clone())?);
        }
    }
    if let Some(folder) = &args.out {
        write(folder, &entries)?;
    }
    let text = report(&entries);
    Ok(Outcome { text, data: data(&entries), ok: true })
}

fn one(
    args: &SimulateArgs,
    plan: Plan,
    source: &Source,
    examples: &Examples,
    engine: &dyn fedtt_runtime::Engine,
    name: String,
) -> anyhow::Result<Entry> {
    plan.validate()?;
    let label = |e: &fedtt_edge::data::Example| e.label.clone().unwrap_or_default();
    let labels: Vec<String> = examples.train.examples.iter().map(label).collect();
    let parts = args.partition.deal(&labels, &examples.groups, args.clients as usize, plan.seed);
    let began = Instant::now();
    let lines = Lines { name: format!("{name} seed {}", plan.seed), began };
    let simulation = Simulation {
        plan: plan.clone(),
        source,
        engine,
        threads: args.workers as usize,
        data: deal(&examples.train, &parts),
        test: examples.test.clone().map(|test| (test, args.test_every)),
        faults: args.faults.clone(),
    };
    let outcomes = simulate(simulation, &lines)?;
    Ok(Entry { name, seed: plan.seed, seconds: began.elapsed().as_secs_f64(), outcomes, plan })
}

/// Values of the metric over a run, on the host's test examples or else on the clients'.
fn curve(records: &[RoundRecord]) -> Vec<f64> {
    let tested: Vec<f64> = records.iter().filter_map(|r| r.after.as_ref()).map(|m| m.value).collect();
    let held_out = || records.iter().filter_map(|r| r.before.as_ref()).map(|m| m.value).collect();
    if tested.is_empty() { held_out() } else { tested }
}

/// The best of them.
fn best(records: &[RoundRecord]) -> Option<f64> {
    let metric = records.iter().find_map(|r| r.after.as_ref().or(r.before.as_ref())).map(|m| m.metric.as_str())?;
    let better = |a: f64, b: f64| if record::less_is_better(metric) { a.min(b) } else { a.max(b) };
    curve(records).into_iter().reduce(better)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The mean of the last five measurements.
fn settled(records: &[RoundRecord]) -> f64 {
    let curve = curve(records);
    mean(&curve[curve.len().saturating_sub(5)..])
}

/// Bytes a client sends and receives in a round, in the mean: payload of its update, and all as MQTT packets.
fn per_client(outcomes: &Outcomes) -> (f64, f64, f64) {
    let updates = outcomes.summary.updates.max(1) as f64;
    let traffic: record::Traffic = outcomes.summary.traffic;
    let trained = outcomes.records.iter().filter(|r| r.trained > 0).flat_map(|r| r.contributions.values());
    let payload: u64 = trained.map(|c| c.payload).sum();
    (payload as f64 / updates, traffic.up as f64 / updates, traffic.down as f64 / updates)
}

fn report(entries: &[Entry]) -> String {
    let mut rows = Vec::new();
    let mut names: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    names.dedup();
    for name in names {
        let own: Vec<&Entry> = entries.iter().filter(|e| e.name == name).collect();
        let ends: Vec<f64> = own.iter().map(|e| settled(&e.outcomes.records)).collect();
        let spread = ends.iter().copied().fold(f64::MIN, f64::max) - ends.iter().copied().fold(f64::MAX, f64::min);
        let best: Vec<f64> = own.iter().filter_map(|e| best(&e.outcomes.records)).collect();
        let measured = |value: f64| if best.is_empty() { "-".to_string() } else { format!("{value:.4}") };
        let (payload, up, down) = per_client(&own[0].outcomes);
        rows.push(vec![
            name.to_string(),
            measured(mean(&ends)),
            measured(spread),
            measured(mean(&best)),
            format!("{:.0}", own[0].outcomes.trained),
            bytes((own[0].outcomes.trained * 4.0) as u64),
            bytes(payload as u64),
            bytes(up as u64),
            bytes(down as u64),
            format!("{:.0} s", mean(&own.iter().map(|e| e.seconds).collect::<Vec<_>>())),
        ]);
    }
    let header = ["plan", "last five", "spread", "best", "trained", "as fp32", "update", "up", "down", "time"];
    format!(
        "{}\nlast five: mean of the last five measurements, over seeds; spread: largest less smallest over seeds; update: \
         payload; up, down: MQTT packets; all per client and round.\n",
        table(&header, &rows)
    )
}

fn data(entries: &[Entry]) -> Value {
    let entry = |e: &Entry| {
        let (payload, up, down) = per_client(&e.outcomes);
        json!({
            "plan": e.name, "seed": e.seed, "seconds": e.seconds, "curve": curve(&e.outcomes.records),
            "last_five": settled(&e.outcomes.records), "trained": e.outcomes.trained,
            "payload_per_update": payload, "up_per_update": up, "down_per_update": down,
            "summary": e.outcomes.summary,
        })
    };
    json!({ "runs": entries.iter().map(entry).collect::<Vec<_>>() })
}

fn write(folder: &std::path::Path, entries: &[Entry]) -> anyhow::Result<()> {
    let write = |path: PathBuf, text: String| {
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let mut reports = Vec::new();
    for entry in entries {
        let own = folder.join(format!("{}-{}", entry.name, entry.seed));
        std::fs::create_dir_all(&own).with_context(|| format!("cannot create {}", own.display()))?;
        let lines = entry.outcomes.records.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        write(own.join("rounds.jsonl"), lines.join("\n") + "\n")?;
        write(own.join("summary.json"), serde_json::to_string_pretty(&entry.outcomes.summary)?)?;
        write(own.join("plan.toml"), toml::to_string(&entry.plan)?)?;
        let mut summary = entry.outcomes.summary.clone();
        summary.name = format!("{} seed {}", entry.name, entry.seed);
        reports.push(fedtt::report::RunReport {
            summary,
            plan: entry.plan.clone(),
            rounds: entry.outcomes.records.clone(),
        });
    }
    write(folder.join("report.html"), fedtt::report::html(&reports))
}

#[cfg(test)]
mod tests {
    use fedtt::record::Measured;

    use super::*;

    #[test]
    fn the_best_is_the_lowest_where_less_is_better_and_none_where_nothing_was_measured() {
        let rounds = |metric: &str| {
            [2.0, 0.5, 1.0].map(|value| RoundRecord {
                after: Some(Measured { examples: 1, loss: value, metric: metric.into(), value }),
                ..RoundRecord::default()
            })
        };
        assert_eq!(best(&rounds("nats per token")), Some(0.5));
        assert_eq!(best(&rounds("accuracy")), Some(2.0));
        assert_eq!(best(&[RoundRecord::default()]), None);
    }
}
