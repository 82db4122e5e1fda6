//! Lines of a daemon: for the journal with their priority, for people with the time.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::fstat;

/// How grave a line is, as `syslog(3)` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Something is wrong.
    Warning = 4,
    /// Worth knowing.
    Notice = 5,
    /// The usual course of things.
    Info = 6,
}

/// Where a daemon's lines go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log {
    journal: bool,
}

impl Log {
    /// Standard output, and whether the journal is what reads it.
    pub(crate) fn of_stdout() -> Self {
        Log { journal: !io::stdout().is_terminal() && is_journal(&io::stdout()) }
    }

    /// Writes a text with time or priority. A reader that has gone stops nothing.
    pub(crate) fn text(self, priority: Priority, text: &str) {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.write(&self.line(priority, text, seconds));
    }

    /// Writes an event that holds its own time.
    pub(crate) fn event(self, priority: Priority, event: &str) {
        self.write(&if self.journal { prefixed(priority, event) } else { format!("{event}\n") });
    }

    fn line(self, priority: Priority, text: &str, seconds: u64) -> String {
        if self.journal {
            return prefixed(priority, text);
        }
        let seconds = seconds % 86_400;
        format!("{:02}:{:02}:{:02} {text}\n", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }

    fn write(self, line: &str) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

/// Every line is an entry of its own to the journal, with its priority in front (`sd-daemon(3)`).
fn prefixed(priority: Priority, text: &str) -> String {
    text.lines().map(|line| format!("<{}>{line}\n", priority as u8)).collect()
}

/// Whether a stream is the one that `JOURNAL_STREAM` names, by device and inode (`systemd.exec(5)`).
fn is_journal(stream: &impl AsFd) -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok();
    let Ok(stat) = fstat(stream.as_fd()) else { return false };
    named.is_some_and(|named| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_journal_gets_priorities_and_people_times() {
        let (journal, people) = (Log { journal: true }, Log { journal: false });
        let line = |log: Log| log.line(Priority::Warning, "not connected:\nrefused", 3 * 86_400 + 3661);
        assert_eq!(line(journal), "<4>not connected:\n<4>refused\n");
        assert_eq!(line(people), "01:01:01 not connected:\nrefused\n");
    }

    #[test]
    fn a_stream_is_the_journal_only_if_it_is_the_one_named() {
        // The variable is not set under test, or names a stream that is not this file.
        assert!(!is_journal(&tempfile::tempfile().unwrap()));
    }
}
