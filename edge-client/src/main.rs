//! Train, evaluate and use tensor-train adapters on this device.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use cli::{Output, eval, predict, run, train};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Train, evaluate and use tensor-train adapters on this device.
#[derive(Debug, Parser)]
#[command(name = "fedtt-edge", version, about, after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fine-tune an adapter inside a frozen backbone
    Train(Box<train::TrainArgs>),
    /// Measure an adapter on labelled data
    Eval(eval::EvalArgs),
    /// Apply an adapter to texts
    Predict(predict::PredictArgs),
    /// Take part in the runs of a fleet, until stopped
    Run(run::RunArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let (output, result) = match &cli.command {
        Command::Train(args) => with(Output::new("train", args.output.json), |output| train::run(args, output)),
        Command::Eval(args) => with(Output::new("eval", args.with.output.json), |output| eval::run(args, output)),
        Command::Predict(args) => {
            with(Output::new("predict", args.with.output.json), |output| predict::run(args, output))
        }
        Command::Run(args) => with(Output::new("run", args.output.json), |_| run::run(args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.failure(&error);
            ExitCode::from(1)
        }
    }
}

fn with(output: Output, run: impl FnOnce(Output) -> anyhow::Result<()>) -> (Output, anyhow::Result<()>) {
    (output, run(output))
}

/// Help and version are no mistakes; everything else clap objects to is.
fn usage(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !asked && std::env::args().any(|arg| arg == "--json") {
        Output::new("usage", true).failure(&anyhow::anyhow!(error.to_string().trim().to_string()));
    } else if error.print().is_err() {
        return ExitCode::from(1);
    }
    ExitCode::from(if asked { 0 } else { 2 })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
