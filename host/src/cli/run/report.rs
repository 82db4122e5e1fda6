//! `fedtt run report`

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use fedtt::artefacts::read_report;
use fedtt::control::Request;
use fedtt::report::{self, RunReport};
use serde_json::json;

use super::super::host::HostArgs;
use super::field;
use crate::output::Outcome;

const EXAMPLES: &str = "\
Examples:
  fedtt run report reports-1 -o report.html
  fedtt run report fedtt-1 lora-1 -o comparison.html
  fedtt run report runs/fedtt-1 other-host/runs/fedtt-1 -o comparison.html     from folders, without a host";

/// Write a page that shows a run, or compares several
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReportArgs {
    /// Runs: ids, or folders that runs left behind
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    /// The page
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
    #[command(flatten)]
    host: HostArgs,
}

pub(super) fn run(args: &ReportArgs) -> anyhow::Result<Outcome> {
    let runs = args.runs.iter().map(|run| load(run, &args.host)).collect::<anyhow::Result<Vec<_>>>()?;
    std::fs::write(&args.output, report::html(&runs))
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    let data = json!({ "report": args.output, "runs": runs.iter().map(|run| &run.summary.run).collect::<Vec<_>>() });
    Ok(Outcome { text: format!("{}\n", args.output.display()), data, ok: true })
}

fn load(run: &str, host: &HostArgs) -> anyhow::Result<RunReport> {
    let folder = Path::new(run);
    if folder.join("summary.json").is_file() {
        return Ok(read_report(folder)?);
    }
    let data = host.ask(Request::Show { run: run.to_string() })?;
    Ok(RunReport { summary: field(&data, "summary")?, plan: field(&data, "plan")?, rounds: field(&data, "rounds")? })
}
