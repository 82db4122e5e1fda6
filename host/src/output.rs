//! What every command ends in: text for people, or one JSON envelope for programs, and an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

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
    // A reader that has gone changes nothing about what was done.
    let _ = match outcome {
        Ok(outcome) if as_json => line(json!({"version": VERSION, "command": command, "ok": ok, "data": outcome.data})),
        Ok(outcome) => io::stdout().write_all(outcome.text.as_bytes()).is_ok(),
        Err(error) if as_json => {
            line(json!({"version": VERSION, "command": command, "ok": false, "error": format!("{error:#}")}))
        }
        Err(error) => complain(format_args!("error: {error:#}")),
    };
    if ok { ExitCode::SUCCESS } else { failed }
}

/// Prints a line, from commands that go on; false where its reader has gone.
pub(crate) fn line(text: impl std::fmt::Display) -> bool {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

/// The same on standard error.
pub(crate) fn complain(text: impl std::fmt::Display) -> bool {
    writeln!(io::stderr(), "{text}").is_ok()
}

/// A table with columns padded to their widest cell; the first column is left-aligned, the others right-aligned.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |i: usize| rows.iter().filter_map(move |row| row.get(i)).map(|cell| cell.chars().count());
    let widths: Vec<usize> =
        header.iter().enumerate().map(|(i, title)| cells(i).max().unwrap_or(0).max(title.chars().count())).collect();
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
