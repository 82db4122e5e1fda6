//! Whether a device can take part as things are on it, and waiting until it can.
//!
//! A bundle, a file of examples or a library that cannot be read, and a disk that takes nothing, are the board's state and
//! no fault of its settings: they are mended, or pass, while it runs. Until then the device is there, says what is wrong, and
//! looks again.

use std::sync::Arc;
use std::time::Duration;

use fedtt_link::{Delivery, Inbox, Link, LinkConfig};
use fedtt_runtime::{SelectError, expected};
use fedtt_wire::message::{Presence, SMALL};
use fedtt_wire::{Message, Topic, Topics};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::control::Control;
use super::service::{Alive, Service};
use super::telling::{Tell, telling};
use super::trust::{Opened, Trust};
use super::{DaemonError, Data, Settings, StateDir, StoreError, Told, connect, stopped};
use crate::data::{DataError, Dataset, ReadOptions};
use crate::fetch::Shelf;
use crate::files::probe;
use crate::identity::Identity;
use crate::round::{Notice, What};
use crate::source::{Available, FieldSplit, SourceError, field_reports};

/// How often it is looked whether things were mended.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Why a device cannot take part as things are.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unready {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Engine(#[from] SelectError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the board could not be looked at: {0}")]
    Look(String),
}

/// What a device that can take part does it with.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) sources: Vec<Available>,
    pub(super) presence: Presence,
}

/// Looks at everything local work needs but the contents of weights.
pub(super) async fn look(settings: &Settings) -> Result<Ready, Unready> {
    let settings = settings.clone();
    // Reading all examples takes its time.
    let looked = tokio::task::spawn_blocking(move || look_now(&settings)).await;
    looked.map_err(|error| Unready::Look(error.to_string()))?
}

fn look_now(settings: &Settings) -> Result<Ready, Unready> {
    // Whoever opens the state first makes it.
    if settings.state.exists() {
        let refused = |source| StoreError::Io { verb: "write to", path: settings.state.clone(), source };
        probe(&settings.state).map_err(refused)?;
    }
    let found = settings.bundles.iter().map(|folder| Available::find(Some(folder)));
    let found = found.collect::<Result<Vec<_>, _>>()?;
    let sources: Vec<Available> = found.into_iter().chain(settings.sources.iter().cloned()).collect();
    let presence = Presence {
        engine: expected(&settings.engine)?.name,
        bundles: sources.iter().map(|source| source.hash.clone()).chain(Shelf::of(&settings.state).whole()).collect(),
        examples: settings.data.count()?,
        ..introduction(settings)
    };
    Ok(Ready { sources, presence })
}

/// What a device says of itself whatever its state.
fn introduction(settings: &Settings) -> Presence {
    Presence {
        online: true,
        version: env!("CARGO_PKG_VERSION").to_string(),
        labels: settings.labels.clone(),
        fetches: settings.policy.fetch,
        ..Presence::default()
    }
}

/// Says `problem` to people and to the host until it is gone, and returns what the device then works with; none if it is to stop.
///
/// # Errors
/// When the device has no identity, or no link can be set up.
pub(super) async fn wait(
    settings: &Settings,
    problem: Unready,
    every: Duration,
    stopping: &watch::Receiver<bool>,
    tell: &Tell,
) -> Result<Option<Ready>, DaemonError> {
    let service = Arc::new(Service::default());
    let said = tell.clone();
    let tell = telling(move |told| said(told), service.clone());
    // A board that can be mended is no failed service, which would be started again and again.
    service.up();
    let _alive = Alive::begin();
    let mut desk = Desk::open(settings, problem.to_string(), tell).await?;
    let mut looks = tokio::time::interval_at(Instant::now() + every, every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ready = loop {
        tokio::select! {
            () = stopped(stopping.clone()) => break None,
            delivery = desk.inbox.recv() => match delivery {
                Some(delivery) => desk.take(delivery).await?,
                None => break None,
            },
            _ = looks.tick() => match look(settings).await {
                Ok(ready) => break Some(ready),
                Err(problem) => desk.say(problem.to_string()).await?,
            },
        }
    };
    desk.close().await?;
    Ok(ready)
}

/// The connection of a device that takes part in nothing for now.
struct Desk {
    link: Link,
    inbox: Inbox,
    trust: Trust,
    topic: Topic,
    presence: Presence,
    control: Option<Control>,
    connected: bool,
    tell: Tell,
    /// Held, unless it cannot be.
    _state: Option<StateDir>,
}

impl Desk {
    async fn open(settings: &Settings, problem: String, tell: Tell) -> Result<Self, DaemonError> {
        let state = match StateDir::open(&settings.state) {
            Err(error @ StoreError::InUse(_)) => return Err(error.into()),
            opened => opened.ok().map(|(state, _)| state),
        };
        let own = Identity::open(&settings.state)?;
        let trust = Trust::new(own.clone(), Topics::new(&settings.fleet), settings.host_key)?;
        let topic = Topic::Presence(settings.name.clone());
        tell(Told::Unready { reason: problem.clone() });
        let presence = Presence { problem: Some(problem.clone()), ..introduction(settings) };
        let farewell = Presence { online: false, ..presence.clone() };
        let retry = LinkConfig::new(settings.broker.clone(), "").retry;
        let (link, inbox) = connect(settings, (topic.clone(), farewell), &trust, retry).await?;
        link.subscribe(Topics::new(&settings.fleet).name(&Topic::Down(settings.name.clone()))).await?;
        // Without the folder, the socket in it may be another process's.
        let control = state.as_ref().and_then(|_| Control::start(settings, &own, &link).ok());
        control.iter().for_each(|control| control.unready(&problem));
        Ok(Desk { link, inbox, trust, topic, presence, control, connected: false, tell, _state: state })
    }

    async fn take(&mut self, delivery: Delivery) -> Result<(), DaemonError> {
        match delivery {
            Delivery::Connected { .. } => {
                self.connected = true;
                self.control.iter().for_each(Control::connected);
                (self.tell)(Told::Notice(Notice { run: None, what: What::Connected }));
                self.announce().await?;
            }
            Delivery::Disconnected { reason, retry_in } => {
                self.connected = false;
                self.control.iter().for_each(|control| control.disconnected(&reason));
                (self.tell)(Told::Disconnected { reason, retry_in });
            }
            // What the host says to a hello of `fedtt-edge doctor`.
            Delivery::Message { topic, payload, .. } => {
                if let Opened::Frame(frame) = self.trust.open(&topic, &payload)?
                    && let Ok(Message::Greeting(greeting)) = Message::decode(frame, SMALL)
                {
                    self.control.iter().for_each(|control| control.greeted(greeting.clone()));
                }
            }
        }
        Ok(())
    }

    async fn say(&mut self, problem: String) -> Result<(), DaemonError> {
        if self.presence.problem.as_ref() == Some(&problem) {
            return Ok(());
        }
        (self.tell)(Told::Unready { reason: problem.clone() });
        self.control.iter().for_each(|control| control.unready(&problem));
        self.presence.problem = Some(problem);
        if self.connected { self.announce().await } else { Ok(()) }
    }

    async fn announce(&mut self) -> Result<(), DaemonError> {
        let publication = self.trust.seal(&self.topic, Message::from(self.presence.clone()), true)?;
        Ok(self.link.publish(publication).await?)
    }

    async fn close(mut self) -> Result<(), DaemonError> {
        self.presence.online = false;
        if self.connected {
            self.announce().await?;
        }
        self.link.shutdown().await;
        Ok(())
    }
}

impl Data {
    /// How many examples there are, whatever they are used for.
    fn count(&self) -> Result<u64, DataError> {
        match self {
            Data::Embedded => Ok(field_reports(FieldSplit::Train).examples.len() as u64),
            Data::Given(data) => Ok(data.examples.len() as u64),
            Data::Files { paths, options } => {
                let options = ReadOptions { labelled: false, ..options.clone() };
                paths.iter().map(|path| Ok(Dataset::read(path, &options)?.examples.len() as u64)).sum()
            }
        }
    }
}
