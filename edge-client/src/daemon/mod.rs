//! A device as a process: [`crate::round`] over MQTT, [`crate::local`] on a thread of its own, files on disk.
//!
//! [`run`] wires them: what the broker and the trainer say goes into the participant one by one, and its effects are carried
//! out in their order. Training never runs where the connection is served.

mod adopting;
mod carry;
mod config;
pub(crate) mod control;
mod fetching;
mod guard;
mod life;
mod place;
mod readiness;
mod renewing;
mod room;
mod service;
mod serving;
mod stamps;
mod store;
mod telling;
#[cfg(test)]
mod tests;
mod trainer;
mod trust;
mod worker;
mod workshop;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fedtt_identity::authority::CLIENT_ID;
use fedtt_link::{BrokerUrl, Inbox, Link, LinkConfig, LinkError, Retry, TlsFiles};
use fedtt_runtime::EngineConfig;
use fedtt_wire::message::Presence;
use fedtt_wire::names::NameError;
use fedtt_wire::{DeviceName, FleetName, PublicKey, Topic, Topics, WireError};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::board::Board;
use crate::data::{Dataset, ReadOptions};
use crate::fetch::FetchSettings;
use crate::identity::{EnrollError, IdentityError, tls as enrolled_tls};
use crate::round::{Found, Identity, LocalPolicy, Pace, Participant};
use crate::source::Available;

pub use crate::board::Limits;
pub use config::{ConfigError, DataFiles, EdgeConfig, EngineSettings, PolicySettings, SecuritySettings};
pub use place::{begin, enrolling_name, read_seed};
pub use store::{StateDir, StoreError};
pub use telling::Told;
pub use worker::Worker;
pub use workshop::{ARENAS, this_program, workshop};

use carry::{Hands, Standing};
use control::Control;
use fetching::Fetching;
use guard::Guard;
use life::Life;
use readiness::{Depth, LOOK_EVERY, Looking, Ready, Silent, Unready, introduction};
use renewing::Renewing;
use room::Room;
use service::Service;
use serving::{Heard, serve};
use telling::{Tell, telling};
use trainer::Trainer;
use trust::Trust;
use worker::Training;
use workshop::{Place, Workshop};

/// Largest packet that comes in; brokers are to have a lower limit.
const MAX_PACKET: usize = 72 << 20;

/// zstd level of small messages.
const LEVEL: i32 = 3;

/// What a device trains on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Data {
    /// The embedded field reports.
    Embedded,
    /// Examples in memory, for work on a thread of this process.
    #[serde(skip)]
    Given(Arc<Dataset>),
    /// Files, read for each plan anew.
    Files {
        /// The files.
        paths: Vec<PathBuf>,
        /// How they are read; the task is the plan's.
        options: ReadOptions,
    },
}

/// All a device is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the broker is.
    pub broker: BrokerUrl,
    /// Files for TLS.
    pub tls: Option<TlsFiles>,
    /// Whom the device listens to; without, and if it never met one, the first host that says that it is the fleet's.
    pub host_key: Option<PublicKey>,
    /// The fleet.
    pub fleet: FleetName,
    /// The device.
    pub name: DeviceName,
    /// The groups it belongs to.
    pub labels: Vec<String>,
    /// Where it keeps what must outlive it.
    pub state: PathBuf,
    /// Folders of its backbones.
    pub bundles: Vec<PathBuf>,
    /// Backbones that are at hand without.
    pub sources: Vec<Available>,
    /// What it trains on.
    pub data: Data,
    /// What its owner allows.
    pub policy: LocalPolicy,
    /// The board it runs on, where that is looked at.
    pub board: Option<Board>,
    /// What its owner allows training to take of the board.
    pub limits: Limits,
    /// What runs its graphs.
    pub engine: EngineConfig,
    /// `fedtt-edge`, where local work has a process of its own; without, it has a thread of this one.
    pub workshop: Option<PathBuf>,
    /// Where it gets bundles it lacks.
    pub fetch: FetchSettings,
}

impl Settings {
    /// What the device calls itself to its broker as `name`: as the fleet's own wants it where it was enrolled, and plainly at others,
    /// whose rights may go by it.
    pub(crate) fn client_id(&self, name: &str) -> String {
        match self.tls.as_ref() == Some(&enrolled_tls(&self.state.join("identity"))) {
            true => format!("{CLIENT_ID}{name}"),
            false => name.to_string(),
        }
    }
}

/// Why a device stopped, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A name cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// What must outlive the process cannot be written or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Who the device is, or its host, cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The device cannot enrol.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// The link cannot be set up.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A message cannot be made.
    #[error(transparent)]
    Message(#[from] WireError),
    /// The training thread is gone.
    #[error("the training thread {0}")]
    Trainer(String),
}

/// Takes part in a fleet's runs until `shutdown` is ready. `tell` is called, from any thread, with what happens.
///
/// # Errors
/// When the settings cannot be used, or another process has the device's state. A broker that is away is no error, nor is what can
/// be mended while the device runs: of that it tells people and the host, and looks again.
pub async fn run(
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
    tell: impl Fn(Told) + Send + Sync + 'static,
) -> Result<(), DaemonError> {
    take_part(settings, LOOK_EVERY, stopping(shutdown), Arc::new(tell)).await
}

/// As [`run`]; a device looks `every` so long whether it is ready, and with what.
async fn take_part(
    settings: Settings,
    every: Duration,
    stopping: watch::Receiver<bool>,
    tell: Tell,
) -> Result<(), DaemonError> {
    let retry = LinkConfig::new(settings.broker.clone(), "").retry;
    let mut looking = Looking::new(&settings);
    let mut looked = looking.look(Depth::Disk).await.map(|(ready, _)| ready);
    let mut silent = None;
    loop {
        let (sources, presence) = match &looked {
            Ok(ready) => (ready.sources.clone(), ready.presence.clone()),
            Err(problem) => (Vec::new(), Presence { problem: Some(problem.to_string()), ..introduction(&settings) }),
        };
        let settings = Settings { sources, ..settings.clone() };
        let place = Place::of(&settings);
        let worker: Box<dyn Worker> = match &settings.workshop {
            Some(program) => Box::new(Workshop::new(program.clone(), place)),
            None => Box::new(Training::new(place)),
        };
        let labour = Labour { presence, worker, pace: Pace::default(), retry };
        let said = tell.clone();
        let looking = Some((&mut looking, every));
        let ended = labour_on(settings, labour, looking, stopping.clone(), move |told| said(told)).await;
        let problem = match ended {
            Ok(Ended::Stopped) => return Ok(()),
            Ok(Ended::Mended(ready)) => {
                looked = Ok(*ready);
                silent = None;
                continue;
            }
            Err(error) => Unready::of(error)?,
        };
        // Said to the host, unless that is what failed.
        if looked.is_err() {
            silent.get_or_insert_with(|| Silent::begin(&tell)).say(&problem);
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = stopped(stopping.clone()) => return Ok(()),
            }
        }
        looked = Err(problem);
    }
}

/// What a device does in place of training on its own data, and how often it repeats itself.
pub struct Labour {
    /// What it says of itself.
    pub presence: Presence,
    /// What does its work.
    pub worker: Box<dyn Worker>,
    /// How often it repeats what is not answered.
    pub pace: Pace,
    /// How long it waits before it connects again.
    pub retry: Retry,
}

/// As [`run`] with local work of another kind; of the settings, backbones, data and engine are not looked at.
///
/// # Errors
/// As [`run`].
pub async fn work(
    settings: Settings,
    labour: Labour,
    shutdown: impl Future<Output = ()> + Send + 'static,
    tell: impl Fn(Told) + Send + Sync + 'static,
) -> Result<(), DaemonError> {
    labour_on(settings, labour, None, stopping(shutdown), tell).await.map(drop)
}

/// How work came to its end.
enum Ended {
    /// The device is to stop.
    Stopped,
    /// What kept it from working is gone.
    Mended(Box<Ready>),
}

/// As [`work`]; where something is `looking`, so often, it works with what is found. A device whose presence tells of a problem keeps
/// what it can of its state, until it is mended.
async fn labour_on(
    settings: Settings,
    labour: Labour,
    looking: Option<(&mut Looking, Duration)>,
    stopping: watch::Receiver<bool>,
    tell: impl Fn(Told) + Send + Sync + 'static,
) -> Result<Ended, DaemonError> {
    let service = Arc::new(Service::default());
    let tell = telling(tell, service.clone());
    let life = Life::new();
    let watch = tokio::spawn(Service::watch(life.clone()));
    let Labour { presence, worker, pace, retry } = labour;
    let problem = presence.problem.clone();
    let (store, found) = match StateDir::open(&settings.state) {
        Ok((store, found)) => (Some(store), found),
        Err(StoreError::Io { .. }) if problem.is_some() => (None, Found::default()),
        Err(error) => return Err(error.into()),
    };
    let own = crate::identity::Identity::open(&settings.state)?;
    let trust = Trust::new(own.clone(), Topics::new(&settings.fleet), settings.host_key)?;
    let enrolled = own.enrolled()?;
    if let Some(reason) = problem.clone() {
        tell(Told::Unready { reason });
    }
    let identity = Identity { device: settings.name.clone(), fleet: settings.fleet.clone(), presence };
    let seed = now() ^ u64::from(std::process::id());
    let (participant, effects) = Participant::new(identity, settings.policy.clone(), seed, found);
    let mut participant = participant.paced(pace);
    let (link, inbox) = connect(&settings, participant.farewell(), &trust, retry).await?;
    for filter in participant.filters() {
        link.subscribe(filter).await?;
    }
    let renewing = Renewing::start(&own, enrolled, settings.tls.as_ref(), &link, &tell).await?;
    let (events_in, events) = mpsc::unbounded_channel();
    let fetching = Fetching::start(settings.fetch.clone(), &settings.state, events_in.clone(), tell.clone())?;
    // Without the folder, the socket in it may be another process's.
    let control = store
        .as_ref()
        .and_then(|_| Control::start(&settings, &own, &link).map_err(|e| tell(Told::NoControl(e.to_string()))).ok());
    control.iter().for_each(|control| control.problem(problem.as_deref()));
    let guard = settings.board.clone().map(|board| Guard::new(board, settings.limits.clone()));
    let room = Room::new(&settings);
    let trainer = Trainer::start(worker, room, link.clone(), events_in, tell.clone(), guard, life.clone())?;
    let depth = match (&problem, &store) {
        (None, _) => Depth::Files,
        (Some(_), Some(_)) => Depth::Disk,
        (Some(_), None) => Depth::State,
    };
    let standing = Standing { introduction: introduction(&settings), mending: problem.is_some(), problem };
    let mut hands =
        Hands { link, store, trust, renewing, control, trainer, fetching, stopping, tell, service, life, standing };
    hands.carry_out(effects).await?;
    let (looks_in, looks) = mpsc::unbounded_channel();
    let watching = async {
        match looking {
            Some((looking, every)) => looking.watch(every, depth, looks_in).await,
            None => drop(looks_in),
        }
        std::future::pending().await
    };
    let outcome = tokio::select! {
        outcome = serve(&mut participant, Heard { inbox, events, looks }, &mut hands) => outcome,
        never = watching => never,
    };
    if matches!(outcome, Ok(Ended::Stopped)) {
        hands.service.stopping();
    }
    // Also of a device that cannot go on: as it takes leave of the broker, its last will is not published.
    let (topic, farewell) = participant.farewell();
    let left = hands.publish_last(&topic, farewell.into()).await;
    let Hands { link, trainer, .. } = hands;
    link.shutdown().await;
    trainer.end().await;
    watch.abort();
    let ended = outcome?;
    left.map(|()| ended)
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

async fn connect(
    settings: &Settings,
    (topic, farewell): (Topic, Presence),
    trust: &Trust,
    retry: Retry,
) -> Result<(Link, Inbox), DaemonError> {
    let will = trust.will(&topic, farewell)?;
    let config = LinkConfig {
        tls: settings.tls.clone(),
        will: Some(will),
        max_packet: MAX_PACKET,
        retry,
        ..LinkConfig::new(settings.broker.clone(), settings.client_id(settings.name.as_str()))
    };
    Ok(Link::connect(config).await?)
}

/// A flag that `shutdown` sets.
fn stopping(shutdown: impl Future<Output = ()> + Send + 'static) -> watch::Receiver<bool> {
    let (set, stopping) = watch::channel(false);
    tokio::spawn(async move {
        shutdown.await;
        // Nobody listens any more: stopped already.
        let _ = set.send(true);
        set.closed().await;
    });
    stopping
}

/// Ready once the flag is set.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error: whoever could set it is gone, which stops the device as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}
