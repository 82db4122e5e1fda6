//! The process that trains.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::process::{Signal, set_parent_process_death_signal};

use super::super::worker::{Training, Worker};
use super::message::{Answer, Asked, StoredPrepared, StoredResult, read, write};

/// What people see of it in `ps`, and name to `pkill`.
const NAME: &str = "fedtt-workshop";

/// Where memory is short this process goes before others do, its device among them: it costs a round.
const OOM_SCORE: &str = "500";

/// Does the local work of the device at the other end of standard input, until that is closed.
///
/// # Errors
/// When nobody who speaks as [`daemon::run`](crate::daemon::run) does is there.
pub fn workshop() -> io::Result<()> {
    let device = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // An error where it is no such end of a line.
    device.peer_addr()?;
    // Work for a device that is gone would meet that of its successor. What is not allowed does without.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let _ = std::fs::write("/proc/self/comm", NAME);
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    tell_of_panics(device.try_clone()?);
    let Asked::Place(place) = read(&device)? else { return Err(io::ErrorKind::InvalidData.into()) };
    let mut training = Training::new(place);
    loop {
        match read(&device) {
            Ok(asked) => answer(&device, asked, &mut training)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn answer(device: &UnixStream, asked: Asked, training: &mut Training) -> io::Result<()> {
    let answer = match asked {
        Asked::Need(plan) => Answer::Need(training.need(&plan)),
        Asked::Prepare(plan) => {
            let prepared = training.prepare(&Arc::new(plan));
            Answer::Prepared(prepared.map(StoredPrepared::of).map_err(|e| e.to_string()))
        }
        Asked::Train(job) => {
            let job = job.load().map_err(io::Error::other)?;
            // Where the line is broken work stops, and what is said of it below fails.
            let stop = || may_step(device).map_or(true, |go| !go);
            let mut progress = |stepped| drop(write(device, &Answer::from(stepped)));
            let trained = training.train(&job, &stop, &mut progress);
            Answer::Trained(trained.map(|result| Box::new(StoredResult::of(result))).map_err(|e| e.to_string()))
        }
        Asked::Adopt(adoption) => Answer::Adopted(training.adopt(&adoption.load().map_err(io::Error::other)?)),
        Asked::Forget(run) => {
            training.forget(Some(&run));
            return Ok(());
        }
        Asked::Place(_) | Asked::Go(_) => return Err(io::ErrorKind::InvalidData.into()),
    };
    write(device, &answer)
}

/// Whether the next step is to be done.
fn may_step(device: &UnixStream) -> io::Result<bool> {
    write(device, &Answer::Step)?;
    match read(device)? {
        Asked::Go(go) => Ok(go),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Has the device know why, should this process end with a panic.
fn tell_of_panics(device: UnixStream) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Where that fails as well, the log has it.
        let _ = write(&device, &Answer::Panicked(panic.to_string()));
        before(panic);
    }));
}
