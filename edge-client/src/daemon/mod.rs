//! A device as a process: [`crate::round`] over MQTT, [`crate::local`] on a thread of its own, files on disk.
//!
//! [`run`] wires them: what the broker and the trainer say goes into the participant one by one, and its effects are carried
//! out in their order. Training never runs where the connection is served.

mod carry;
mod config;
mod store;
#[cfg(test)]
mod tests;
mod trainer;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fedtt_link::{BrokerUrl, Delivery, Inbox, Link, LinkConfig, LinkError, Publication, Retry, TlsFiles};
use fedtt_runtime::{EngineConfig, SelectError, select};
use fedtt_wire::message::Presence;
use fedtt_wire::names::NameError;
use fedtt_wire::{DeviceName, FleetName, WireError};
use tokio::sync::{mpsc, watch};

use crate::data::{DataError, Dataset, ReadOptions};
use crate::round::{Event, Identity, LocalPolicy, Notice, Pace, Participant, receive};
use crate::source::{Source, SourceError};

pub use config::{ConfigError, DataFiles, EdgeConfig, EngineSettings, PolicySettings};
pub use store::{StateDir, StoreError};
pub use worker::Worker;

use carry::Hands;
use trainer::Trainer;
use worker::Training;

/// Longest time without looking at the clock.
const TICK: Duration = Duration::from_secs(30);

/// Largest packet: the largest chunk a plan may ask for.
const MAX_PACKET: usize = 72 << 20;

/// zstd level of small messages.
const LEVEL: i32 = 3;

/// What a device trains on.
#[derive(Clone, Debug)]
pub enum Data {
    /// Examples in memory.
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
    /// The fleet.
    pub fleet: FleetName,
    /// The device.
    pub name: DeviceName,
    /// The groups it belongs to.
    pub labels: Vec<String>,
    /// Where it keeps what must outlive it.
    pub state: PathBuf,
    /// Its backbones.
    pub sources: Vec<Arc<Source>>,
    /// What it trains on.
    pub data: Data,
    /// What its owner allows.
    pub policy: LocalPolicy,
    /// What runs its graphs.
    pub engine: EngineConfig,
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
    /// A backbone cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The device's examples cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// No engine can be used.
    #[error(transparent)]
    Engine(#[from] SelectError),
    /// What must outlive the process cannot be written or read.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    /// What was received is no message.
    Unreadable {
        /// Where.
        topic: String,
        /// Why.
        reason: String,
    },
    /// Training cannot be made to yield to the rest of the device.
    Priority(String),
}

/// Takes part in a fleet's runs until `shutdown` is ready. `tell` is called, from any thread, with what happens.
///
/// # Errors
/// When the settings cannot be used, or the device cannot keep what must outlive it. A broker that is away is no error.
pub async fn run(
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
    tell: impl Fn(Told) + Send + Sync + 'static,
) -> Result<(), DaemonError> {
    let engine = select(&settings.engine)?;
    let presence = Presence {
        online: true,
        version: env!("CARGO_PKG_VERSION").to_string(),
        labels: settings.labels.clone(),
        engine: engine.name(),
        bundles: settings.sources.iter().map(|source| source.hash.clone()).collect(),
        examples: settings.data.count()?,
    };
    let worker = Box::new(Training::new(&settings, engine));
    let retry = LinkConfig::new(settings.broker.clone(), "").retry;
    work(settings, Labour { presence, worker, pace: Pace::default(), retry }, shutdown, tell).await
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
    let tell: Arc<dyn Fn(Told) + Send + Sync> = Arc::new(tell);
    let Labour { presence, worker, pace, retry } = labour;
    let (store, files) = StateDir::open(&settings.state)?;
    let identity = Identity { device: settings.name.clone(), fleet: settings.fleet.clone(), presence };
    let seed = now() ^ u64::from(std::process::id());
    let (participant, effects) = Participant::new(identity, settings.policy.clone(), seed, files);
    let participant = participant.paced(pace);
    let (link, inbox) = connect(&settings, &participant, retry).await?;
    for filter in participant.filters() {
        link.subscribe(filter).await?;
    }
    let (events_in, events) = mpsc::unbounded_channel();
    let trainer = Trainer::start(worker, link.clone(), events_in, tell.clone())?;
    let stopping = stopping(shutdown);
    let topics = participant.topics().clone();
    let mut hands = Hands { link, store, trainer, topics, stopping, tell };
    hands.carry_out(effects).await?;
    let outcome = serve(participant, inbox, events, &mut hands).await;
    let Hands { link, trainer, .. } = hands;
    link.shutdown().await;
    trainer.end().await;
    outcome
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

async fn connect(settings: &Settings, participant: &Participant, retry: Retry) -> Result<(Link, Inbox), DaemonError> {
    let (topic, farewell) = participant.farewell();
    let will =
        Publication { topic: participant.topics().name(&topic), payload: farewell.encode(LEVEL)?.into(), retain: true };
    let config = LinkConfig {
        tls: settings.tls.clone(),
        will: Some(will),
        max_packet: MAX_PACKET,
        retry,
        ..LinkConfig::new(settings.broker.clone(), settings.name.as_str())
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

async fn serve(
    mut participant: Participant,
    mut inbox: Inbox,
    mut events: mpsc::UnboundedReceiver<Event>,
    hands: &mut Hands,
) -> Result<(), DaemonError> {
    loop {
        let wait = participant.due().map_or(TICK, |due| Duration::from_millis(due.saturating_sub(now())).min(TICK));
        let event = tokio::select! {
            () = hands.stopped() => break,
            delivery = inbox.recv() => match delivery {
                Some(delivery) => hands.event(&participant, delivery),
                None => break,
            },
            event = events.recv() => match event {
                Some(event) => Some(event),
                None => return Err(DaemonError::Trainer("has ended".into())),
            },
            () = tokio::time::sleep(wait) => Some(Event::Tick),
        };
        if let Some(event) = event {
            let effects = participant.handle(event, now());
            hands.carry_out(effects).await?;
        }
    }
    let (topic, message) = participant.farewell();
    hands.publish_last(participant.topics().name(&topic), message).await
}

impl Hands {
    /// A delivery as an event of the participant's.
    fn event(&self, participant: &Participant, delivery: Delivery) -> Option<Event> {
        match delivery {
            Delivery::Connected { .. } => Some(Event::Connected),
            Delivery::Disconnected { reason, retry_in } => {
                (self.tell)(Told::Disconnected { reason, retry_in });
                Some(Event::Disconnected)
            }
            Delivery::Message { topic, payload, .. } => match receive(participant.topics(), &topic, &payload) {
                Ok(event) => event,
                Err(error) => {
                    (self.tell)(Told::Unreadable { topic, reason: error.to_string() });
                    None
                }
            },
        }
    }
}

impl Data {
    /// How many examples there are, whatever they are used for.
    fn count(&self) -> Result<u64, DataError> {
        match self {
            Data::Given(data) => Ok(data.examples.len() as u64),
            Data::Files { paths, options } => {
                let options = ReadOptions { labelled: false, ..options.clone() };
                paths.iter().map(|path| Ok(Dataset::read(path, &options)?.examples.len() as u64)).sum()
            }
        }
    }
}
