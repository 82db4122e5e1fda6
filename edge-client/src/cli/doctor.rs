//! `fedtt-edge doctor`

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use fedtt_edge::board::Board;
use fedtt_edge::daemon::EdgeConfig;
use fedtt_edge::doctor::{Check, Level, examine};
use serde_json::json;

use super::args::OutputArgs;
use super::output::Output;

const EXAMPLES: &str = "\
Examples:
  fedtt-edge doctor
  fedtt-edge doctor --config /etc/fedtt/edge.toml
  fedtt-edge doctor --set broker=mqtts://broker.site:8883 --set engine.provider=cuda --json

Each line is ok, warn or fail, and says what to do about it. A device that runs beside is asked how its own connection is;
without one the broker is tried under a client id of the doctor's own.
Exit codes: 0 the device can work, with warnings or without; 1 something fails; 2 wrong usage.";

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// The device's settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any setting of the file, such as engine.provider=cuda; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Examines the board; whether nothing fails.
pub(crate) fn run(args: &DoctorArgs, output: Output) -> anyhow::Result<bool> {
    let config = EdgeConfig::read(args.config.as_deref(), &args.set)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let checks = runtime.block_on(examine(config, &Board::default()));
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let (ok, warn, fail) = (count(Level::Ok), count(Level::Warn), count(Level::Fail));
    let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = checks.iter().map(|check| line(check, coloured)).collect::<String>();
    let text = format!("{text}\n{}", summary(ok, warn, fail));
    let data = json!({ "checks": checks, "ok": ok, "warn": warn, "fail": fail });
    output.judged(fail == 0, &data, &text)?;
    Ok(fail == 0)
}

/// How it is, of what, what was found, and below it what to do.
fn line(check: &Check, coloured: bool) -> String {
    let (word, colour) = match check.level {
        Level::Ok => ("ok", "32"),
        Level::Warn => ("warn", "33"),
        Level::Fail => ("fail", "31;1"),
    };
    let word = format!("{word:<4}");
    let word = if coloured { format!("\x1b[{colour}m{word}\x1b[0m") } else { word };
    let mut text = format!("{word}  {:<11}  {}\n", check.name, indented(&check.finding));
    if let Some(advice) = &check.advice {
        text += &format!("{:19}> {}\n", "", indented(advice));
    }
    text
}

/// What others say in several lines stays in its column.
fn indented(text: &str) -> String {
    text.trim().replace('\n', &format!("\n{:19}", ""))
}

fn summary(ok: usize, warn: usize, fail: usize) -> String {
    let verdict = match (warn, fail) {
        (0, 0) => "this board is fit",
        (_, 0) => "this board is fit, with warnings",
        _ => "this board is not fit yet",
    };
    format!("{verdict}: {ok} ok, {warn} warn, {fail} fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_laid_out_in_columns() {
        let check = Check {
            name: "disk",
            level: Level::Warn,
            finding: "3 MiB free\nfor the state".into(),
            advice: Some("make room".into()),
        };
        let plain = "warn  disk         3 MiB free\n                   for the state\n                   > make room\n";
        assert_eq!(line(&check, false), plain);
        assert!(line(&check, true).starts_with("\x1b[33mwarn\x1b[0m  disk "));
    }
}
