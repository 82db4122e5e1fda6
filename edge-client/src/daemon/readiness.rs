//! Whether a device can take part as things are on it, looked at again and again.
//!
//! A bundle, a file of examples or a library that cannot be read, and a disk that takes nothing, are the board's state and
//! no fault of its settings: they are mended, or pass, while it runs. Until then the device is there, says what is wrong,
//! delivers what it has made, renews its certificate, and looks again. Rows that are added to its files, and bundles that take
//! another's place, are found in the same way.

use std::sync::Arc;
use std::time::Duration;

use fedtt_runtime::{SelectError, expected};
use fedtt_wire::message::Presence;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::service::{Alive, Service};
use super::stamps::Stamps;
use super::telling::{Tell, Told, telling};
use super::{DaemonError, Data, Settings, StateDir, StoreError};
use crate::data::{DataError, Dataset, ReadOptions};
use crate::fetch::Shelf;
use crate::files::probe;
use crate::identity::{EnrollError, IdentityError};
use crate::source::{Available, FieldSplit, SourceError, field_reports};

/// How often it is looked whether things were mended, or have changed.
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
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the board could not be looked at: {0}")]
    Look(String),
}

impl Unready {
    /// What ended a device's work, if it may pass while the device waits.
    ///
    /// # Errors
    /// The error itself, if not.
    pub(super) fn of(error: DaemonError) -> Result<Self, DaemonError> {
        match error {
            DaemonError::Store(error @ StoreError::Io { .. }) => Ok(Unready::Store(error)),
            DaemonError::Identity(error) | DaemonError::Enroll(EnrollError::Identity(error)) if error.is_passing() => {
                Ok(Unready::Identity(error))
            }
            other => Err(other),
        }
    }
}

/// What a device that can take part does it with.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    pub(super) sources: Vec<Available>,
    pub(super) presence: Presence,
}

/// Looks at everything local work needs but the contents of weights.
pub(super) struct Looking {
    settings: Settings,
    /// What was found last, and of which files.
    seen: Option<(Stamps, Ready)>,
}

/// How far it is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Depth {
    /// At files that have changed.
    Files,
    /// At the disk as well.
    Disk,
    /// Also at the state folder, which this process does not hold.
    State,
}

impl Looking {
    pub(super) fn new(settings: &Settings) -> Self {
        Looking { settings: settings.clone(), seen: None }
    }

    /// What there is, and whether it is other than the last time.
    ///
    /// # Errors
    /// Why the device cannot take part.
    pub(super) async fn look(&mut self, depth: Depth) -> Result<(Ready, bool), Unready> {
        let (settings, seen) = (self.settings.clone(), self.seen.take());
        // Reading all examples takes its time.
        let looked = tokio::task::spawn_blocking(move || look_now(&settings, seen, depth)).await;
        let (ready, stamps, changed) = looked.map_err(|error| Unready::Look(error.to_string()))??;
        self.seen = Some((stamps, ready.clone()));
        Ok((ready, changed))
    }

    /// Looks `every` so long and says through `said` what has changed, and what is wrong each time, until nobody listens. It
    /// begins with `depth`, as deep as it is looked while something is wrong.
    pub(super) async fn watch(
        &mut self,
        every: Duration,
        mut depth: Depth,
        said: mpsc::UnboundedSender<Result<Ready, Unready>>,
    ) {
        let mut looks = tokio::time::interval_at(Instant::now() + every, every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let told = match self.look(depth).await {
                Ok((_, false)) if depth == Depth::Files => continue,
                Ok((ready, _)) => {
                    // A disk is not written to for nothing.
                    depth = Depth::Files;
                    Ok(ready)
                }
                Err(problem) => {
                    depth = depth.max(Depth::Disk);
                    Err(problem)
                }
            };
            if said.send(told).is_err() {
                return;
            }
        }
    }
}

fn look_now(
    settings: &Settings,
    seen: Option<(Stamps, Ready)>,
    depth: Depth,
) -> Result<(Ready, Stamps, bool), Unready> {
    // Whoever opens the state first makes it.
    if depth != Depth::Files && settings.state.exists() {
        let refused = |source| StoreError::Io { verb: "write to", path: settings.state.clone(), source };
        probe(&settings.state).map_err(refused)?;
    }
    if depth == Depth::State {
        StateDir::open(&settings.state)?;
    }
    // Before anything is read: what changes meanwhile is found the next time.
    let stamps = Stamps::of_settings(settings);
    if let Some((before, ready)) = seen
        && before == stamps
    {
        return Ok((ready, stamps, false));
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
    Ok((Ready { sources, presence }, stamps, true))
}

/// What a device says of itself whatever its state.
pub(super) fn introduction(settings: &Settings) -> Presence {
    Presence {
        online: true,
        version: env!("CARGO_PKG_VERSION").to_string(),
        labels: settings.labels.clone(),
        fetches: settings.policy.fetch,
        ..Presence::default()
    }
}

/// A device that nobody can hear: the service manager has signs of life of it, and people what is wrong.
pub(super) struct Silent {
    tell: Tell,
    said: Option<String>,
    _alive: Alive,
}

impl Silent {
    pub(super) fn begin(tell: &Tell) -> Self {
        let service = Arc::new(Service::default());
        let said = tell.clone();
        let tell = telling(move |told| said(told), service.clone());
        // A board that can be mended is no failed service, which would be started again and again.
        service.up();
        Silent { tell, said: None, _alive: Alive::begin() }
    }

    pub(super) fn say(&mut self, problem: &Unready) {
        let reason = problem.to_string();
        if self.said.as_ref() != Some(&reason) {
            (self.tell)(Told::Unready { reason: reason.clone() });
            self.said = Some(reason);
        }
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
