//! `fedtt run`: start runs, look at them, steer them, take their results.

mod export;
mod remove;
mod report;
mod show;
mod start;
mod watch;

use clap::Subcommand;
use fedtt::control::Request;
use fedtt::run::Command as Steer;
use serde_json::Value;

use super::host::HostArgs;
use crate::output::Outcome;

pub(crate) use watch::line;

/// Exit code of `wait` and `watch` for a run that did not come to its planned end.
pub(crate) const ENDED_EARLY: u8 = 3;

#[derive(Subcommand)]
pub(crate) enum Command {
    Plan(start::PlanArgs),
    Start(start::StartArgs),
    /// Show all runs
    #[command(after_help = "Example: fedtt run list")]
    List {
        #[command(flatten)]
        host: HostArgs,
    },
    /// Show a run's rounds and where it stands
    #[command(after_help = "Example: fedtt run show reports-1")]
    Show(Named),
    /// Follow a run until it ends
    #[command(after_help = "Example: fedtt run watch reports-1\n\nExit codes: 0 finished, 1 failed, 2 wrong usage, \
        3 stopped.\nWith --json it prints one JSON object a line: events, then the envelope.")]
    Watch(Named),
    /// Wait for a run's end, silently
    #[command(
        after_help = "Example: fedtt run wait reports-1 && fedtt run export reports-1 -o adapter.safetensors\n\n\
        Exit codes: 0 finished, 1 failed, 2 wrong usage, 3 stopped, or paused because it cannot go on by itself.\n\
        A run an operator paused is waited for."
    )]
    Wait(Named),
    /// Finish the round that goes on, then wait
    #[command(after_help = "Example: fedtt run pause reports-1")]
    Pause(Named),
    /// Go on
    #[command(after_help = "Example: fedtt run resume reports-1")]
    Resume(Named),
    /// Go on for one round
    #[command(after_help = "Example: fedtt run step reports-1")]
    Step(Named),
    /// End a run; the round that goes on does not count
    #[command(after_help = "Example: fedtt run stop reports-1")]
    Stop(Named),
    Remove(remove::RemoveArgs),
    Report(report::ReportArgs),
    Export(export::ExportArgs),
}

/// A run.
#[derive(clap::Args)]
pub(crate) struct Named {
    /// Its id, as `run list` has it
    run: String,
    #[command(flatten)]
    host: HostArgs,
}

impl Command {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Plan(_) => "run plan",
            Command::Start(_) => "run start",
            Command::List { .. } => "run list",
            Command::Show(_) => "run show",
            Command::Watch(_) => "run watch",
            Command::Wait(_) => "run wait",
            Command::Pause(_) => "run pause",
            Command::Resume(_) => "run resume",
            Command::Step(_) => "run step",
            Command::Stop(_) => "run stop",
            Command::Remove(_) => "run remove",
            Command::Report(_) => "run report",
            Command::Export(_) => "run export",
        }
    }
}

pub(crate) fn run(command: Command, as_json: bool) -> anyhow::Result<Outcome> {
    match command {
        Command::Plan(args) => start::plan(&args),
        Command::Start(args) => start::run(&args, as_json),
        Command::List { host } => show::list(&host),
        Command::Show(Named { run, host }) => show::run(&run, &host),
        Command::Watch(Named { run, host }) => watch::watch(&run, &host, as_json),
        Command::Wait(Named { run, host }) => watch::wait(&run, &host),
        Command::Pause(named) => steer(&named, Steer::Pause),
        Command::Resume(named) => steer(&named, Steer::Resume),
        Command::Step(named) => steer(&named, Steer::Step),
        Command::Stop(named) => steer(&named, Steer::Stop),
        Command::Remove(args) => remove::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Export(args) => export::run(&args),
    }
}

fn steer(named: &Named, command: Steer) -> anyhow::Result<Outcome> {
    let data = named.host.ask(Request::Command { run: named.run.clone(), command })?;
    let status = data["status"].as_str().unwrap_or_default();
    Ok(Outcome { text: format!("{} is {status}\n", named.run), data, ok: true })
}

/// A field of what the host said.
fn field<T: serde::de::DeserializeOwned>(data: &Value, name: &str) -> anyhow::Result<T> {
    use anyhow::Context as _;
    serde_json::from_value(data[name].clone()).with_context(|| format!("the host's `{name}` is not understood"))
}
