//! `fedtt backbone`: prepare, inspect, verify.

mod inspect;
mod prepare;
mod verify;

use clap::Subcommand;

use crate::output::Outcome;

#[derive(Subcommand)]
pub(crate) enum Command {
    Prepare(prepare::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
}

impl Command {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Prepare(_) => "backbone prepare",
            Command::Inspect(_) => "backbone inspect",
            Command::Verify(_) => "backbone verify",
        }
    }
}

pub(crate) fn run(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Prepare(args) => prepare::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
    }
}
