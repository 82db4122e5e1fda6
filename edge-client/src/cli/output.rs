//! What a command prints: tables for people, one JSON object for programs.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

/// Version of the JSON envelope.
pub(crate) const VERSION: u32 = 1;

/// Where a command's result goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    command: &'static str,
    json: bool,
}

impl Output {
    pub(crate) fn new(command: &'static str, json: bool) -> Self {
        Output { command, json }
    }

    /// Whether the result is for programs; nothing else is printed then.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints the result: `data` in the envelope, or `text`.
    pub(crate) fn success(self, data: &impl Serialize, text: &str) -> anyhow::Result<()> {
        self.judged(true, data, text)
    }

    /// The same of a command whose result may be that something is not well.
    pub(crate) fn judged(self, ok: bool, data: &impl Serialize, text: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            let envelope = json!({ "version": VERSION, "command": self.command, "ok": ok, "data": data });
            print(&mut out, &envelope.to_string())
        } else {
            print(&mut out, text.trim_end())
        }
    }

    /// Prints why the command failed.
    pub(crate) fn failure(self, error: &anyhow::Error) {
        let message = told_once(error);
        // Whoever closed the stream does not read the message either.
        let _ = if self.json {
            let envelope = json!({ "version": VERSION, "command": self.command, "ok": false, "error": message });
            writeln!(io::stdout(), "{envelope}")
        } else {
            writeln!(io::stderr(), "error: {message}")
        };
    }
}

/// The error with its causes; a cause that an error's own text already tells is not told again.
fn told_once(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        whole if whole.contains(&cause) => told,
        whole => format!("{whole}: {cause}"),
    })
}

/// A line on standard output, from commands that go on; a reader that has gone does not stop them.
pub(crate) fn line(text: &str) {
    let _ = print(&mut io::stdout().lock(), text);
}

/// A line on standard output; a reader that has gone is no error.
fn print(out: &mut impl Write, line: &str) -> anyhow::Result<()> {
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    #[test]
    fn causes_are_told_once() {
        let error = anyhow!("no such file").context("cannot read x: no such file").context("no adapter");
        assert_eq!(super::told_once(&error), "no adapter: cannot read x: no such file");
    }
}
