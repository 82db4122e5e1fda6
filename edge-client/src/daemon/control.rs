//! What a running device answers to `fedtt-edge doctor` on the same machine, over a socket in its state folder: whether its
//! connection stands, and whether the host hears it.
//!
//! A second connection in its name would end the first with brokers that tie the client id to the certificate, as the
//! mosquitto of `fedtt broker config` does, so that no device can push another out, and AWS IoT.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fedtt_link::{Link, Publication};
use fedtt_wire::message::{Greeting, Hello};
use fedtt_wire::{Message, Topic, Topics, WireError};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Settings, now};
use crate::identity::Identity;

const SOCKET: &str = "control.sock";
/// How long a connection that does not stand is waited for.
const PATIENCE: Duration = Duration::from_secs(4);
/// Hellos sent, and how long each is waited for: more than a second, within which the host answers but one.
const HELLOS: (usize, Duration) = (3, Duration::from_millis(1500));
/// Longest time for an answer to be read.
const WRITE: Duration = Duration::from_secs(1);
/// Longest time to be answered in, with others before.
const ASK: Duration = Duration::from_secs(20);
/// Longest answer, in bytes.
const LONGEST: u64 = 64 << 10;

/// How a running device stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// Its broker.
    pub(crate) broker: String,
    /// Whether it is connected.
    pub(crate) connected: bool,
    /// Why it was not at last.
    pub(crate) reason: Option<String>,
    /// Why it takes part in nothing for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// The certificate the broker showed, in DER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<Vec<u8>>,
    /// What the host said to its hello, and when that came, in Unix milliseconds.
    pub(crate) greeting: Option<(Greeting, u64)>,
    /// Its process, as the system tells who asks.
    #[serde(skip)]
    pub(crate) process: Option<u32>,
}

/// Answers until dropped.
pub(super) struct Control {
    path: PathBuf,
    standing: watch::Sender<Standing>,
    task: JoinHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        // An error: somebody has removed it.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Control {
    /// Begins, in a state folder that is held.
    ///
    /// # Errors
    /// When there can be no socket.
    pub(super) fn start(settings: &Settings, identity: &Identity, link: &Link) -> io::Result<Self> {
        let path = settings.state.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let standing = watch::Sender::new(Standing { broker: settings.broker.to_string(), ..Standing::default() });
        let up = Topics::new(&settings.fleet).name(&Topic::Up(settings.name.clone()));
        let desk = Desk { identity: identity.clone(), link: link.clone(), up, standing: standing.subscribe() };
        let task = tokio::spawn(desk.serve(listener));
        Ok(Control { path, standing, task })
    }

    /// The connection stands.
    pub(super) fn connected(&self) {
        self.standing.send_modify(|standing| (standing.connected, standing.reason) = (true, None));
    }

    /// It does not, or no longer.
    pub(super) fn disconnected(&self, reason: &str) {
        self.standing.send_modify(|standing| (standing.connected, standing.reason) = (false, Some(reason.into())));
    }

    /// Why the device takes part in nothing for now, if so.
    pub(super) fn problem(&self, problem: Option<&str>) {
        self.standing.send_modify(|standing| standing.problem = problem.map(str::to_string));
    }

    /// The host has answered a hello.
    pub(super) fn greeted(&self, greeting: Greeting) {
        self.standing.send_modify(|standing| standing.greeting = Some((greeting, now())));
    }
}

struct Desk {
    identity: Identity,
    link: Link,
    up: String,
    standing: watch::Receiver<Standing>,
}

impl Desk {
    async fn serve(mut self, listener: UnixListener) {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                tokio::time::sleep(WRITE).await;
                continue;
            };
            let answer = serde_json::to_vec(&self.answer().await).unwrap_or_default();
            // Errors: whoever asked has gone.
            let _ = timeout(WRITE, stream.write_all(&answer)).await;
        }
    }

    async fn answer(&mut self) -> Standing {
        // Errors here and below: time is up, or the device is about to end; what is known by then is told.
        let _ = timeout(PATIENCE, self.standing.wait_for(|standing| standing.connected)).await;
        let nonce = nonce();
        let ours = |standing: &Standing| standing.greeting.as_ref().is_some_and(|(said, _)| said.nonce == nonce);
        for _ in 0..HELLOS.0 {
            if !self.standing.borrow().connected || ours(&self.standing.borrow()) {
                break;
            }
            let Ok(hello) = hello(&self.identity, &self.up, nonce) else { break };
            let _ = timeout(HELLOS.1, async {
                self.link.publish(hello).await.ok()?;
                self.standing.wait_for(ours).await.ok().map(drop)
            })
            .await;
        }
        let standing = self.standing.borrow().clone();
        let greeting = standing.greeting.clone().filter(|_| ours(&standing));
        let peer = self.link.peer_certificate().borrow().as_ref().map(|peer| peer.to_vec());
        Standing { greeting, peer, ..standing }
    }
}

/// Tells the answer to one hello from that to another.
pub(crate) fn nonce() -> u64 {
    now() ^ (u64::from(std::process::id()) << 40)
}

/// A hello to the host, signed as of now for the topic `up`.
///
/// # Errors
/// When it cannot be encoded.
pub(crate) fn hello(identity: &Identity, up: &str, nonce: u64) -> Result<Publication, WireError> {
    let hello = Message::from(Hello { nonce, key: identity.key().public() }).encode(0)?;
    Ok(Publication { topic: up.into(), payload: identity.key().seal(up, hello).into(), retain: false })
}

/// Asks the device that runs on a state folder.
///
/// # Errors
/// When there is none, or it does not answer.
pub(crate) async fn ask(state: &Path) -> io::Result<Standing> {
    let asked = async {
        let stream = UnixStream::connect(state.join(SOCKET)).await?;
        // None where it lives in another namespace.
        let process = stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        let mut answer = Vec::new();
        stream.take(LONGEST).read_to_end(&mut answer).await?;
        let standing = serde_json::from_slice(&answer).map_err(io::Error::other)?;
        Ok(Standing { process, ..standing })
    };
    timeout(ASK, asked).await?
}
