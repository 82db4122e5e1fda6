//! Local work in a process of its own. What ends an engine, be it a panic, a crash of its library or of a GPU's driver, or the
//! system for want of memory, costs a round and not the device; what is unloaded is the system's again, whole.
//!
//! The process is this program again ([`workshop`]), which a [`Workshop`] starts when there is something to do. It may do a step
//! only once the device, which watches the board, has said so.

mod message;
mod process;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fedtt_wire::RunId;
use fedtt_wire::message::RunPlan;

use super::worker::Worker;
use crate::local::{LocalError, LocalResult, Stepped};
use crate::round::{Adoption, Job, Prepared};
use crate::source::Available;
use message::{Answer, Asked, StoredAdoption, StoredJob, read, write};

pub(super) use message::Place;
pub use process::workshop;

/// The C library's arenas: threads that share one find what the others have freed, which takes a fifth less memory where parts of a
/// batch are computed at the same time, and no more time.
pub const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

/// The command that calls [`workshop`].
const COMMAND: &str = "workshop";

/// Names a program that runs this one, given as its first argument: an emulator.
const LAUNCHER: &str = "FEDTT_LAUNCHER";

/// A process that closed its end is given so long to end.
const GOING: Duration = Duration::from_secs(5);

/// This program, for [`Settings::workshop`](super::Settings::workshop): the same file even once it has been replaced.
///
/// # Errors
/// When the system does not tell.
pub fn this_program() -> io::Result<PathBuf> {
    match std::env::var_os(LAUNCHER) {
        Some(_) => std::env::current_exe(),
        None => Ok("/proc/self/exe".into()),
    }
}

/// Does local work through a process.
pub(super) struct Workshop {
    program: PathBuf,
    place: Place,
    open: Option<Open>,
}

/// A process at work.
struct Open {
    process: Child,
    line: UnixStream,
    /// What panicked in it since it last answered.
    panicked: Option<String>,
}

impl Workshop {
    pub(super) fn new(program: PathBuf, place: Place) -> Self {
        Workshop { program, place, open: None }
    }

    fn start(&self) -> io::Result<Open> {
        let (line, theirs) = UnixStream::pair()?;
        let (program, before) = match std::env::var_os(LAUNCHER) {
            Some(launcher) => (PathBuf::from(launcher), vec![self.program.clone().into_os_string()]),
            None => (self.program.clone(), vec![]),
        };
        let mut command = Command::new(program);
        command
            .args(before)
            .args([OsString::from(COMMAND), self.place.device.as_str().into()])
            .env(ARENAS.0, ARENAS.1)
            .stdin(OwnedFd::from(theirs))
            // Standard output is the device's alone; a library's words go to the log.
            .stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?))
            // Who interrupts the device at a terminal does not interrupt the step.
            .process_group(0);
        let process = command.spawn()?;
        let mut open = Open { process, line, panicked: None };
        open.say(&Asked::Place(self.place.clone()))?;
        Ok(open)
    }

    /// Does something with the process, which is started if need be and closed if that fails.
    fn with<T>(&mut self, work: impl FnOnce(&mut Open) -> io::Result<T>) -> Result<T, LocalError> {
        // One that has ended since it was last needed costs nothing.
        let mut open = match self.open.take().and_then(Open::alive) {
            Some(open) => open,
            None => self
                .start()
                .map_err(|e| LocalError::Workshop(format!("the process that trains does not start: {e}")))?,
        };
        match work(&mut open) {
            Ok(done) => {
                self.open = Some(open);
                Ok(done)
            }
            Err(error) => Err(LocalError::Workshop(open.end(&error))),
        }
    }
}

impl Open {
    fn alive(mut self) -> Option<Self> {
        matches!(self.process.try_wait(), Ok(None)).then_some(self)
    }

    fn say(&mut self, asked: &Asked) -> io::Result<()> {
        write(&self.line, asked)
    }

    fn hear(&mut self) -> io::Result<Answer> {
        loop {
            match read(&self.line)? {
                Answer::Panicked(message) => self.panicked = Some(message),
                answer => {
                    self.panicked = None;
                    return Ok(answer);
                }
            }
        }
    }

    fn ask(&mut self, asked: &Asked) -> io::Result<Answer> {
        self.say(asked)?;
        self.hear()
    }

    /// What became of the process.
    fn end(mut self, error: &io::Error) -> String {
        let _ = self.line.set_read_timeout(Some(GOING));
        // Its last words may not have been read.
        while self.hear().is_ok() {}
        let began = Instant::now();
        let status = loop {
            match self.process.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if began.elapsed() < GOING => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) | Err(_) => break None,
            }
        };
        match (&self.panicked, status) {
            (Some(message), _) => format!("the engine failed in a way it should not: {message}"),
            (None, Some(status)) => format!("the process that trains {}", fate(status)),
            (None, None) => format!("the process that trains is not understood: {error}"),
        }
    }
}

/// How a process ended.
fn fate(status: ExitStatus) -> String {
    const KILL: i32 = 9;
    match (status.signal(), status.code()) {
        (Some(KILL), _) => {
            "was killed; if for want of memory, set engine.recompute or a lower engine.micro_batch".into()
        }
        (Some(signal), _) => format!("crashed (signal {signal}); the device's log may have more"),
        (None, code) => format!("ended ({}); the device's log may have more", code.unwrap_or_default()),
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // It is at rest, or its work is of no use any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An answer to something else.
fn confused(answer: &Answer) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it answered {answer:?}"))
}

impl Worker for Workshop {
    fn prepare(&mut self, plan: &Arc<RunPlan>) -> Result<Prepared, LocalError> {
        let prepared = self.with(|open| match open.ask(&Asked::Prepare(plan.as_ref().clone()))? {
            Answer::Prepared(Ok(prepared)) => prepared.load().map(Ok).map_err(io::Error::other),
            Answer::Prepared(Err(reason)) => Ok(Err(reason)),
            other => Err(confused(&other)),
        })?;
        prepared.map_err(LocalError::Workshop)
    }

    fn need(&mut self, plan: &RunPlan) -> u64 {
        let need = self.with(|open| match open.ask(&Asked::Need(plan.clone()))? {
            Answer::Need(need) => Ok(need),
            other => Err(confused(&other)),
        });
        // What is wrong with it shows when the plan is prepared.
        need.unwrap_or(0)
    }

    fn train(
        &mut self,
        job: &Job,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Stepped),
    ) -> Result<LocalResult, LocalError> {
        let trained = self.with(|open| {
            open.say(&Asked::Train(StoredJob::of(job)))?;
            loop {
                match open.hear()? {
                    Answer::Step => open.say(&Asked::Go(!stop()))?,
                    Answer::Stepped { step, steps, loss } => progress(Stepped { step, steps, loss }),
                    Answer::Trained(Ok(result)) => return result.load().map(Ok).map_err(io::Error::other),
                    Answer::Trained(Err(reason)) => return Ok(Err(reason)),
                    other => return Err(confused(&other)),
                }
            }
        })?;
        trained.map_err(LocalError::Workshop)
    }

    fn adopt(&mut self, adoption: &Adoption) -> Result<(), String> {
        let adopted = self.with(|open| match open.ask(&Asked::Adopt(StoredAdoption::of(adoption)))? {
            Answer::Adopted(adopted) => Ok(adopted),
            other => Err(confused(&other)),
        });
        adopted.map_err(|e| e.to_string())?
    }

    fn work_with(&mut self, sources: Vec<Available>) {
        // A process that is open knows those before.
        let same = self.place.sources.iter().map(|one| &one.hash).eq(sources.iter().map(|one| &one.hash));
        if !same {
            self.place.sources = sources;
            self.open = None;
        }
    }

    fn forget(&mut self, run: Option<&RunId>) {
        match run {
            None => self.open = None,
            // Without a process nothing is loaded.
            Some(_) if self.open.is_none() => {}
            // A process that is gone by now has forgotten all.
            Some(run) => drop(self.with(|open| open.say(&Asked::Forget(run.clone())))),
        }
    }
}
