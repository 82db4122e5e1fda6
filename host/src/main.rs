//! `fedtt`: prepares backbones for a fleet and checks them.
#![forbid(unsafe_code)]

mod backbone;
mod cli;
mod engine;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Fine-tune language models on fleets of edge boards with tensor-train adapters.
///
/// Exit codes: 0 done, 1 failed (a check beyond tolerance, a file refused, an engine's error), 2 usage.
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
    /// Turn an ONNX export into a bundle, look into one, or check its gradients.
    #[command(subcommand)]
    Backbone(backbone::Command),
    /// Run plans with virtual clients in one process.
    Simulate(Box<cli::simulate::SimulateArgs>),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Backbone(command) => output::finish(cli.json, command.name(), backbone::run(command)),
        Command::Simulate(args) => output::finish(cli.json, "simulate", cli::simulate::run(&args, cli.json)),
    }
}
