//! The host's end.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;

use super::{Answered, Asked, LONGEST, Said, VERSION, socket};
use crate::daemon::answer::{Desk, Reply};

/// The socket while it is listened to.
pub(crate) struct Listener {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Listener {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
        // An error: it is gone already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Listens in the folder `state`, whose database this process holds: a socket that is there was left behind.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) fn listen(state: &Path, desk: Desk) -> io::Result<Listener> {
    let path = socket(state);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    let desk = Arc::new(desk);
    let task = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                // A caller that leaves early is no concern of the host.
                Ok((stream, _)) => drop(tokio::spawn(serve(stream, desk.clone()))),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    });
    Ok(Listener { path, task })
}

async fn say(to: &mut OwnedWriteHalf, said: Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Answered { version: VERSION, said })?;
    line.push(b'\n');
    to.write_all(&line).await
}

async fn serve(stream: UnixStream, desk: Arc<Desk>) -> io::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        if (&mut from).take(LONGEST).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let reply = match serde_json::from_slice::<Asked>(&line) {
            Ok(Asked { version: VERSION, request }) => desk.ask(request).await,
            Ok(Asked { version, .. }) => {
                Err(format!("this host speaks version {VERSION}, not {version}; use the `fedtt` it was started with"))
            }
            Err(error) => Err(format!("not understood: {error}")),
        };
        match reply {
            Ok(Reply::Data(data)) => say(&mut to, Said::Data(data)).await?,
            Err(error) => say(&mut to, Said::Error(error)).await?,
            Ok(Reply::Watch { run, data, mut events }) => {
                say(&mut to, Said::Data(data)).await?;
                let mut end = [0u8; 1];
                loop {
                    let event = tokio::select! {
                        event = events.recv() => event,
                        // Nothing is said while watching: this is the other end leaving.
                        _ = from.read(&mut end) => return Ok(()),
                    };
                    match event {
                        Ok(event) if event.run == run => say(&mut to, Said::Event(event)).await?,
                        Ok(_) => {}
                        Err(RecvError::Lagged(missed)) => say(&mut to, Said::Missed(missed)).await?,
                        Err(RecvError::Closed) => return Ok(()),
                    }
                }
            }
        }
    }
}
