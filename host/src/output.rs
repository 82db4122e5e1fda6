//! What every command ends in: text for people, or one JSON envelope for programs, and an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use serde_json::{Value, json};

/// The envelope's version; it changes when a field is renamed or removed.
const VERSION: u32 = 1;

/// What a command has to say.
pub(crate) struct Outcome {
    /// For people.
    pub(crate) text: String,
    /// For programs.
    pub(crate) data: Value,
    /// Whether the command's check passed; the exit code is 1 if not.
    pub(crate) ok: bool,
}

/// Prints a command's outcome and returns its exit code.
pub(crate) fn finish(as_json: bool, command: &str, outcome: anyhow::Result<Outcome>) -> ExitCode {
    finish_or(1, as_json, command, outcome)
}

/// The same with another exit code than 1 where the command did its work but its check did not pass.
pub(crate) fn finish_or(unmet: u8, as_json: bool, command: &str, outcome: anyhow::Result<Outcome>) -> ExitCode {
    let failed = if outcome.is_ok() { ExitCode::from(unmet) } else { ExitCode::FAILURE };
    let ok = outcome.as_ref().is_ok_and(|outcome| outcome.ok);
    let printed = match outcome {
        Ok(outcome) if as_json => {
            print(json!({"version": VERSION, "command": command, "ok": ok, "data": outcome.data}), "\n")
        }
        Ok(outcome) => print(outcome.text, ""),
        Err(error) if as_json => print(failure(command, &format!("{error:#}")), "\n"),
        Err(error) => {
            complain(format_args!("error: {error:#}"));
            Ok(())
        }
    };
    match printed {
        // A reader that has gone changes nothing about what was done.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(format_args!("error: cannot print the result: {error}"));
            ExitCode::FAILURE
        }
        _ if ok => ExitCode::SUCCESS,
        _ => failed,
    }
}

/// What a command line comes to that is none: help and version are no mistakes, everything else clap objects to is.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let as_json = !asked && std::env::args().any(|word| word == "--json");
    let printed = match as_json {
        true => print(failure("usage", error.to_string().trim()), "\n"),
        false => error.print(),
    };
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::from(if asked { 0 } else { 2 }),
    }
}

/// The envelope of a command that failed.
fn failure(command: &str, message: &str) -> Value {
    json!({"version": VERSION, "command": command, "ok": false, "error": message})
}

fn print(text: impl std::fmt::Display, end: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}{end}")?;
    out.flush()
}

/// Prints a line, from commands that go on; false where its reader has gone.
pub(crate) fn line(text: impl std::fmt::Display) -> bool {
    print(text, "\n").is_ok()
}

/// The same on standard error.
pub(crate) fn complain(text: impl std::fmt::Display) -> bool {
    writeln!(io::stderr(), "{text}").is_ok()
}

/// Characters of a column that lines up: formats take no wider one than 65,535.
const WIDEST: usize = 1000;

/// A table with columns padded to their widest cell; the first column is left-aligned, the others right-aligned.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |i: usize| rows.iter().filter_map(move |row| row.get(i)).map(|cell| cell.chars().count());
    let width = |(i, title): (usize, &&str)| cells(i).max().unwrap_or(0).max(title.chars().count()).min(WIDEST);
    let widths: Vec<usize> = header.iter().enumerate().map(width).collect();
    let line = |row: &mut dyn Iterator<Item = &str>| {
        let padded = row
            .zip(&widths)
            .enumerate()
            .map(|(i, (cell, &width))| if i == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        format!("  {}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// A number of bytes as people read it.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}
