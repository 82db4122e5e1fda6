//! An adapter's file, watched.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::model::{Model, Opened};

/// Tells one content of a file from another.
type Print = (u64, u64, i64, i64);

/// A file whose replacement is to be noticed.
pub struct Watched {
    place: Box<dyn Fn() -> Option<PathBuf> + Send>,
    seen: Option<Print>,
}

impl Watched {
    /// The file where `place` says, as it is now.
    pub fn new(place: impl Fn() -> Option<PathBuf> + Send + 'static) -> Self {
        let mut watched = Watched { place: Box::new(place), seen: None };
        watched.seen = watched.print();
        watched
    }

    fn print(&self) -> Option<Print> {
        let file = fs::metadata((self.place)()?).ok()?;
        Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    }

    /// Whether it is another since it was last looked at. A file that is gone is no other.
    pub fn is_new(&mut self) -> bool {
        let print = self.print();
        let new = print.is_some() && print != self.seen;
        if new {
            self.seen = print;
        }
        new
    }
}

/// A thread that loads what replaces an adapter; it ends when this is dropped.
pub(super) struct Reloading {
    stop: Arc<(Mutex<bool>, Condvar)>,
}

impl Reloading {
    /// Looks at `watched` every `interval`; what is new is opened by `open` and handed to `model`. What cannot be opened is told,
    /// and what is in use stays in use.
    pub(super) fn start(
        mut watched: Watched,
        interval: Duration,
        model: Arc<Model>,
        open: impl Fn() -> Result<Opened, String> + Send + 'static,
        tell: impl Fn(Result<(), String>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = stop.clone();
        let work = move || {
            loop {
                let (flag, bell) = &*stopped;
                let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = bell.wait_timeout_while(guard, interval, |stop| !*stop);
                if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                    return;
                }
                if watched.is_new() {
                    let replaced = open().and_then(|opened| model.replace(opened).map_err(|e| e.to_string()));
                    tell(replaced);
                }
            }
        };
        // Not joined: it ends soon after it is told to, or with the process.
        drop(std::thread::Builder::new().name("reloading".into()).spawn(work)?);
        Ok(Reloading { stop })
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
    }
}
