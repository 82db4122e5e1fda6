//! `fedtt run remove`

use std::path::PathBuf;

use clap::Args;
use fedtt::control::Request;
use serde::Deserialize;

use super::super::host::HostArgs;
use super::field;
use crate::output::Outcome;

const EXAMPLES: &str = "\
Examples:
  fedtt run remove reports-1
  fedtt run remove reports-1 reports-2 --files

The host forgets the runs: their adapters, rounds and tokens; starting a plan with such a token starts it anew. What they left in
their folders stays, unless --files removes it too. No other run gets their ids. A run that goes on is not removed: stop it first.
If one of several cannot be removed, none is. Exit codes: 0 removed, 1 failed, 2 wrong usage.";

/// Remove runs that are over
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RemoveArgs {
    /// Their ids, as `run list` has them
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    /// Remove their folders as well, with reports and adapters
    #[arg(long)]
    files: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// A run that was removed.
#[derive(Deserialize)]
struct Removed {
    run: String,
    /// Its folder, where it stays.
    folder: Option<PathBuf>,
}

pub(super) fn run(args: &RemoveArgs) -> anyhow::Result<Outcome> {
    let data = args.host.ask(Request::Remove { runs: args.runs.clone(), files: args.files })?;
    let removed: Vec<Removed> = field(&data, "removed")?;
    let line = |Removed { run, folder }: &Removed| match folder {
        Some(folder) => format!("{run} is removed; its files stay in {}\n", folder.display()),
        None => format!("{run} is removed\n"),
    };
    Ok(Outcome { text: removed.iter().map(line).collect(), data, ok: true })
}
