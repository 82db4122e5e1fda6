//! The command line's end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{Answered, Asked, LONGEST, Request, Said, VERSION, socket};
use crate::run::RunEvent;

/// Longest wait for a reply; opening a large bundle takes its time.
const PATIENCE: Duration = Duration::from_secs(300);

/// The host cannot be asked, or says no.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is none.
    #[error(
        "no host answers at {}: start one with `fedtt serve`, or name its state folder with --state",
        path.display()
    )]
    Absent {
        /// The socket.
        path: PathBuf,
    },
    /// The connection failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The host went away.
    #[error("the host at {} went away", path.display())]
    Gone {
        /// The socket.
        path: PathBuf,
    },
    /// What it says is not understood.
    #[error("the host is not understood: {0}; use the `fedtt` it was started with")]
    Content(String),
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

/// A connection to a host.
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

/// What is heard while a run is watched.
#[derive(Clone, Debug, PartialEq)]
pub enum Watched {
    /// Something happened.
    Event(RunEvent),
    /// So many events were missed.
    Missed(u64),
}

impl Client {
    /// Connects to the host whose state is in `state`.
    ///
    /// # Errors
    /// When there is none.
    pub fn connect(state: &Path) -> Result<Self, ControlError> {
        let path = socket(state);
        let stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Err(ControlError::Absent { path });
            }
            Err(source) => return Err(ControlError::Io { path, source }),
        };
        stream.set_read_timeout(Some(PATIENCE)).map_err(|source| ControlError::Io { path: path.clone(), source })?;
        Ok(Client { path, stream: BufReader::new(stream) })
    }

    /// Asks, and returns what the host says.
    ///
    /// # Errors
    /// When it says no, or goes away.
    pub fn ask(&mut self, request: Request) -> Result<Value, ControlError> {
        let mut line = serde_json::to_vec(&Asked { version: VERSION, request })
            .map_err(|e| ControlError::Content(e.to_string()))?;
        line.push(b'\n');
        let sent = self.stream.get_mut().write_all(&line);
        sent.map_err(|source| self.failed(source))?;
        match self.hear()? {
            Said::Data(data) => Ok(data),
            Said::Error(error) => Err(ControlError::Refused(error)),
            other => Err(ControlError::Content(format!("{other:?}"))),
        }
    }

    /// From the reply to `watch` on: what happens next, waiting for it as long as it takes.
    ///
    /// # Errors
    /// When the host goes away.
    pub fn hear_next(&mut self) -> Result<Watched, ControlError> {
        self.stream.get_ref().set_read_timeout(None).map_err(|source| self.failed(source))?;
        match self.hear()? {
            Said::Event(event) => Ok(Watched::Event(event)),
            Said::Missed(events) => Ok(Watched::Missed(events)),
            other => Err(ControlError::Content(format!("{other:?}"))),
        }
    }

    fn failed(&self, source: io::Error) -> ControlError {
        match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                ControlError::Gone { path: self.path.clone() }
            }
            _ => ControlError::Io { path: self.path.clone(), source },
        }
    }

    fn hear(&mut self) -> Result<Said, ControlError> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(LONGEST).read_until(b'\n', &mut line);
        read.map_err(|source| self.failed(source))?;
        if !line.ends_with(b"\n") {
            return Err(ControlError::Gone { path: self.path.clone() });
        }
        let answered: Answered = serde_json::from_slice(&line).map_err(|e| ControlError::Content(e.to_string()))?;
        match answered.version {
            VERSION => Ok(answered.said),
            version => Err(ControlError::Content(format!("it speaks version {version}, not {VERSION}"))),
        }
    }
}
