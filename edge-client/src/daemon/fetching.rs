//! Bundles come in on a thread of its own, one after the other.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::Builder;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::{DaemonError, Told};
use crate::fetch::{FetchSettings, Http, Shelf, Step, bundle};
use crate::round::{Event, Notice, What};

/// Time between two words on how far a bundle is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The thread that fetches.
pub(super) struct Fetching {
    orders: Sender<String>,
    stop: Arc<AtomicBool>,
}

impl Fetching {
    /// Starts it. What was fetched is told as [`Event::Fetched`].
    pub(super) fn start(
        settings: FetchSettings,
        state: &Path,
        events: UnboundedSender<Event>,
        tell: Arc<dyn Fn(Told) + Send + Sync>,
    ) -> Result<Self, DaemonError> {
        let (orders, received) = mpsc::channel::<String>();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, shelf) = (stop.clone(), Shelf::of(state));
        let work = move || {
            let http = Http::new(settings.ca.as_deref(), settings.rate);
            for hash in received {
                let mut told = Instant::now();
                let mut progress = |Step { have, bytes }: Step| {
                    if told.elapsed() >= TELL_EVERY {
                        told = Instant::now();
                        let what = What::FetchingBundle { bundle: hash.clone(), have, bytes };
                        tell(Told::Notice(Notice { run: None, what }));
                    }
                };
                let stop = || stopped.load(Ordering::Relaxed);
                let outcome = bundle(&http, &shelf, &settings, &hash, &stop, &mut progress);
                let outcome = outcome.map(drop).map_err(|e| e.to_string());
                if stop() || events.send(Event::Fetched { bundle: hash, outcome }).is_err() {
                    return;
                }
            }
        };
        // Not joined: what it has on the disk is taken up again by the next process.
        let spawned = Builder::new().name("fetching".into()).spawn(work);
        drop(spawned.map_err(|e| DaemonError::Trainer(format!("that fetches cannot be started: {e}")))?);
        Ok(Fetching { orders, stop })
    }

    /// Has a bundle fetched.
    pub(super) fn order(&self, hash: String) {
        // An error: the thread has ended, as the process is about to.
        let _ = self.orders.send(hash);
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
