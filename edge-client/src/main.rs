//! Train, evaluate and use tensor-train adapters on this device.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use cli::{Output, doctor, enroll, eval, export, fetch, predict, run, serve_local, train, verify, workshop};

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
    /// Write an adapter in another form: safetensors, ONNX, or a bundle with it in it
    Export(export::ExportArgs),
    /// Get a bundle or an adapter from a web server
    Fetch(fetch::FetchArgs),
    /// Answer other programs of this device over HTTP
    ServeLocal(serve_local::ServeLocalArgs),
    /// Become a device of a fleet: get a certificate from its host
    Enroll(enroll::EnrollArgs),
    /// See whether this board is fit: engine, bundles, memory, disk, data, broker, certificate, and what it tells of itself
    Doctor(doctor::DoctorArgs),
    /// Check this board's gradients: against finite differences, or against another machine's
    Verify(verify::VerifyArgs),
    /// Take part in the runs of a fleet, until stopped
    Run(run::RunArgs),
    /// Train for a device: `run` starts it, for itself
    #[command(hide = true)]
    Workshop(workshop::WorkshopArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let (output, result) = match &cli.command {
        Command::Train(args) => judged(Output::new("train", args.output.json), |output| train::run(args, output)),
        Command::Eval(args) => with(Output::new("eval", args.with.output.json), |output| eval::run(args, output)),
        Command::Predict(args) => {
            with(Output::new("predict", args.with.output.json), |output| predict::run(args, output))
        }
        Command::Export(args) => with(Output::new("export", args.output.json), |output| export::run(args, output)),
        Command::Fetch(args) => with(Output::new("fetch", args.json()), |output| fetch::run(args, output)),
        Command::ServeLocal(args) => with(Output::new("serve-local", args.output.json), |_| serve_local::run(args)),
        Command::Enroll(args) => with(Output::new("enroll", args.output.json), |output| enroll::run(args, output)),
        Command::Doctor(args) => judged(Output::new("doctor", args.output.json), |output| doctor::run(args, output)),
        Command::Verify(args) => judged(Output::new("verify", args.output.json), |output| verify::run(args, output)),
        Command::Run(args) => with(Output::new("run", args.output.json), |_| run::run(args)),
        Command::Workshop(_) => with(Output::new("workshop", false), |_| workshop::run()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            output.failure(&error);
            ExitCode::from(1)
        }
    }
}

/// Boards get a program that ends with its first panic (`cross/build.sh`): as a command that failed, not as a crash.
fn end_with_panics(output: Output) {
    if cfg!(panic = "abort") {
        std::panic::set_hook(Box::new(move |panic| {
            output.failure(&anyhow::anyhow!("{panic}"));
            std::process::exit(1);
        }));
    }
}

/// A command that does its work or fails.
fn with(output: Output, run: impl FnOnce(Output) -> anyhow::Result<()>) -> (Output, anyhow::Result<bool>) {
    end_with_panics(output);
    (output, run(output).map(|()| true))
}

/// A command whose result may be that something is not well.
fn judged(output: Output, run: impl FnOnce(Output) -> anyhow::Result<bool>) -> (Output, anyhow::Result<bool>) {
    end_with_panics(output);
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
