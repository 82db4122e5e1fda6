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
use fedtt_link::{BrokerUrl, Delivery, Inbox, Link, LinkConfig, LinkError, Retry, TlsFiles};
use fedtt_runtime::EngineConfig;
use fedtt_wire::message::Presence;
use fedtt_wire::names::NameError;
use fedtt_wire::{DeviceName, FleetName, Message, PublicKey, Topic, Topics, WireError};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::board::Board;
use crate::data::{Dataset, ReadOptions};
use crate::fetch::FetchSettings;
use crate::identity::{EnrollError, IdentityError, tls as enrolled_tls};
use crate::round::{Event, Identity, LocalPolicy, Notice, Pace, Participant, receive};
use crate::source::Available;

pub use crate::board::Limits;
pub use config::{ConfigError, DataFiles, EdgeConfig, EngineSettings, PolicySettings, SecuritySettings};
pub use place::{enroll_first, enrolling_name, read_seed, seed_file};
pub use store::{StateDir, StoreError};
pub use worker::Worker;
pub use workshop::{this_program, workshop};

use carry::Hands;
use control::Control;
use fetching::Fetching;
use guard::Guard;
use life::Life;
use readiness::{LOOK_EVERY, look};
use renewing::Renewing;
use room::Room;
use service::Service;
use telling::{Tell, telling};
use trainer::Trainer;
use trust::{Opened, Trust};
use worker::Training;
use workshop::{Place, Workshop};

/// Longest time without looking at the clock.
const TICK: Duration = Duration::from_secs(30);

/// Largest packet: the largest chunk a plan may ask for.
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

/// Something a device tells people.
#[derive(Clone, Debug)]
pub enum Told {
    /// What happened in the protocol.
    Notice(Notice),
    /// The broker is not reached.
    Disconnected {
        /// Why.
        reason: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// The host was not known until now; it is from now on.
    HostFound {
        /// What it signs with.
        key: PublicKey,
    },
    /// What was received is not signed by the host, and was dropped.
    Forged {
        /// Where.
        topic: String,
        /// Why.
        reason: String,
    },
    /// What was received is no message.
    Unreadable {
        /// Where.
        topic: String,
        /// Why.
        reason: String,
    },
    /// The device takes part in nothing as things are, and looks again.
    Unready {
        /// Why.
        reason: String,
    },
    /// Training cannot be made to yield to the rest of the device.
    Priority(String),
    /// `fedtt-edge doctor` cannot ask this device.
    NoControl(String),
    /// The host is asked to take the device in.
    Enrolling {
        /// The name it is to have.
        name: DeviceName,
    },
    /// It has: the device has a certificate.
    Enrolled {
        /// Its name.
        name: DeviceName,
        /// The certificate's end, in Unix seconds.
        expires: u64,
    },
    /// The host does not take the device in, or somebody says so in its place; it is asked again.
    NotEnrolled {
        /// Why.
        reason: String,
    },
    /// The device has a new certificate.
    Renewed {
        /// Its end, in Unix seconds.
        expires: u64,
    },
    /// It has none; it is asked for again.
    NotRenewed {
        /// Why.
        reason: String,
        /// The end of the one it has, in Unix seconds.
        expires: u64,
    },
}

/// Takes part in a fleet's runs until `shutdown` is ready. `tell` is called, from any thread, with what happens.
///
/// # Errors
/// When the settings cannot be used, the device has no identity, or another process has its state. A broker that is away is
/// no error, nor is what can be mended while the device runs: of that it tells people and the host, and looks again.
pub async fn run(
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
    tell: impl Fn(Told) + Send + Sync + 'static,
) -> Result<(), DaemonError> {
    take_part(settings, LOOK_EVERY, stopping(shutdown), Arc::new(tell)).await
}

/// As [`run`]; a device that is not ready looks `every` so long whether it is.
async fn take_part(
    settings: Settings,
    every: Duration,
    stopping: watch::Receiver<bool>,
    tell: Tell,
) -> Result<(), DaemonError> {
    let retry = LinkConfig::new(settings.broker.clone(), "").retry;
    let mut looked = look(&settings).await;
    loop {
        let ready = match looked {
            Ok(ready) => ready,
            Err(problem) => match readiness::wait(&settings, problem, every, &stopping, &tell).await? {
                Some(ready) => ready,
                None => return Ok(()),
            },
        };
        let settings = Settings { sources: ready.sources, ..settings.clone() };
        let place = Place::of(&settings);
        let worker: Box<dyn Worker> = match &settings.workshop {
            Some(program) => Box::new(Workshop::new(program.clone(), place)),
            None => Box::new(Training::new(place)),
        };
        let labour = Labour { presence: ready.presence, worker, pace: Pace::default(), retry };
        let said = tell.clone();
        match work(settings, labour, stopped(stopping.clone()), move |told| said(told)).await {
            Err(DaemonError::Store(error @ StoreError::Io { .. })) => looked = Err(error.into()),
            outcome => return outcome,
        }
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
    let service = Arc::new(Service::default());
    let tell = telling(tell, service.clone());
    let life = Life::new();
    let watch = tokio::spawn(Service::watch(life.clone()));
    let Labour { presence, worker, pace, retry } = labour;
    let (store, found) = StateDir::open(&settings.state)?;
    let own = crate::identity::Identity::open(&settings.state)?;
    let trust = Trust::new(own.clone(), Topics::new(&settings.fleet), settings.host_key)?;
    let identity = Identity { device: settings.name.clone(), fleet: settings.fleet.clone(), presence };
    let seed = now() ^ u64::from(std::process::id());
    let (participant, effects) = Participant::new(identity, settings.policy.clone(), seed, found);
    let mut participant = participant.paced(pace);
    let (link, inbox) = connect(&settings, participant.farewell(), &trust, retry).await?;
    for filter in participant.filters() {
        link.subscribe(filter).await?;
    }
    let renewing = Renewing::start(&own, settings.tls.as_ref(), &link, &tell).await?;
    let (events_in, events) = mpsc::unbounded_channel();
    let fetching = Fetching::start(settings.fetch.clone(), &settings.state, events_in.clone(), tell.clone())?;
    let control = Control::start(&settings, &own, &link).map_err(|e| tell(Told::NoControl(e.to_string()))).ok();
    let guard = settings.board.clone().map(|board| Guard::new(board, settings.limits.clone()));
    let room = Room::new(&settings);
    let trainer = Trainer::start(worker, room, link.clone(), events_in, tell.clone(), guard, life.clone())?;
    let stopping = stopping(shutdown);
    let mut hands = Hands { link, store, trust, renewing, control, trainer, fetching, stopping, tell, service, life };
    hands.carry_out(effects).await?;
    let outcome = serve(&mut participant, inbox, events, &mut hands).await;
    hands.service.stopping();
    // Also of a device that cannot go on: as it takes leave of the broker, its last will is not published.
    let (topic, farewell) = participant.farewell();
    let left = hands.publish_last(&topic, farewell.into()).await;
    let Hands { link, trainer, .. } = hands;
    link.shutdown().await;
    trainer.end().await;
    watch.abort();
    outcome.and(left)
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

async fn serve(
    participant: &mut Participant,
    mut inbox: Inbox,
    mut events: mpsc::UnboundedReceiver<Event>,
    hands: &mut Hands,
) -> Result<(), DaemonError> {
    loop {
        hands.life.events_busy(false);
        let wait = participant.due().map_or(TICK, |due| Duration::from_millis(due.saturating_sub(now())).min(TICK));
        let event = tokio::select! {
            () = hands.stopped() => break,
            delivery = inbox.recv() => match delivery {
                Some(delivery) => hands.event(participant, delivery).await?,
                None => break,
            },
            event = events.recv() => match event {
                Some(event) => Some(event),
                None => return Err(DaemonError::Trainer("has ended".into())),
            },
            () = tokio::time::sleep(wait) => Some(Event::Tick),
        };
        hands.life.events_busy(true);
        if let Some(event) = event {
            let is_up = matches!(event, Event::Connected | Event::Disconnected);
            let effects = participant.handle(event, now());
            hands.carry_out(effects).await?;
            if is_up {
                hands.service.up();
            }
        }
    }
    Ok(())
}

impl Hands {
    /// A delivery as an event of the participant's.
    async fn event(&mut self, participant: &Participant, delivery: Delivery) -> Result<Option<Event>, DaemonError> {
        let (topic, payload) = match delivery {
            Delivery::Connected { .. } => {
                self.control.iter().for_each(Control::connected);
                return Ok(Some(Event::Connected));
            }
            Delivery::Disconnected { reason, retry_in } => {
                self.control.iter().for_each(|control| control.disconnected(&reason));
                (self.tell)(Told::Disconnected { reason, retry_in });
                return Ok(Some(Event::Disconnected));
            }
            Delivery::Message { topic, payload, .. } => (topic, payload),
        };
        if self.renewing.as_ref().is_some_and(|renewing| renewing.take(&topic, &payload)) {
            return Ok(None);
        }
        let frame = match self.trust.open(&topic, &payload)? {
            Opened::Frame(frame) => frame,
            Opened::Nothing => return Ok(None),
            Opened::Forged(reason) => {
                (self.tell)(Told::Forged { topic, reason });
                return Ok(None);
            }
            Opened::HostFound(key) => {
                (self.tell)(Told::HostFound { key });
                // To a new subscription the broker says again what it keeps.
                for filter in participant.filters() {
                    self.link.subscribe(filter).await?;
                }
                return Ok(None);
            }
        };
        let event = receive(participant.topics(), &topic, frame).unwrap_or_else(|error| {
            (self.tell)(Told::Unreadable { topic, reason: error.to_string() });
            None
        });
        if let Some(Event::Message { message, .. }) = &event
            && let Message::Greeting(greeting) = message.as_ref()
        {
            self.control.iter().for_each(|control| control.greeted(greeting.clone()));
            return Ok(None);
        }
        Ok(event)
    }
}
