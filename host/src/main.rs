//! `fedtt`: prepares backbones for a fleet, drives its runs, tries plans out.
#![forbid(unsafe_code)]

mod backbone;
mod cli;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Fine-tune language models on fleets of edge boards with tensor-train adapters.
///
/// Exit codes: 0 done, 1 failed (a check beyond tolerance, a file refused, an engine's error), 2 usage; `run wait` and
/// `run watch` also 3, for a run that was stopped or cannot go on by itself.
#[derive(Parser)]
#[command(name = "fedtt", version, max_term_width = 110)]
struct Cli {
    /// Print one JSON object instead of text: {"version", "command", "ok", "data" | "error"}.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A whole federation on this machine: broker, devices, five methods side by side.
    Demo(Box<cli::demo::DemoArgs>),
    /// Turn an ONNX export into a bundle, look into one, or check its gradients.
    #[command(subcommand)]
    Backbone(backbone::Command),
    /// The host daemon: broker, rounds, live page.
    Serve(Box<cli::serve::ServeArgs>),
    /// Start runs, look at them, steer them, take their results.
    #[command(subcommand)]
    Run(cli::run::Command),
    /// The devices of the fleet.
    #[command(subcommand)]
    Device(cli::device::Command),
    /// Set up a broker for the fleet, with certificates and rights.
    #[command(subcommand)]
    Broker(cli::broker::Command),
    /// Run plans with virtual clients in one process.
    Simulate(Box<cli::simulate::SimulateArgs>),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    match cli.command {
        Command::Backbone(command) => output::finish(cli.json, command.name(), backbone::run(command)),
        Command::Demo(args) => output::finish(cli.json, "demo", cli::demo::run(&args)),
        Command::Serve(args) => output::finish(cli.json, "serve", cli::serve::run(&args, cli.json)),
        Command::Run(command) => {
            let (name, outcome) = (command.name(), cli::run::run(command, cli.json));
            output::finish_or(cli::run::ENDED_EARLY, cli.json, name, outcome)
        }
        Command::Device(command) => output::finish(cli.json, command.name(), cli::device::run(command)),
        Command::Broker(command) => output::finish(cli.json, command.name(), cli::broker::run(command)),
        Command::Simulate(args) => output::finish(cli.json, "simulate", cli::simulate::run(&args)),
    }
}
