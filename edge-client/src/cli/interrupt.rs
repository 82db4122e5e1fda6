//! Signals to end, of commands that have something to put away first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use super::run::signals;

/// A flag that the first signal to end sets, saying `said` on standard error; the second ends the process.
pub(crate) fn interrupted(said: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot await signals")?;
    let first = {
        let _within = runtime.enter();
        signals()?
    };
    let wait = move || {
        runtime.block_on(async {
            first.await;
            set.store(true, Ordering::Relaxed);
            eprintln!("{said}");
            if let Ok(second) = signals() {
                second.await;
                std::process::exit(1);
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("cannot await signals")?;
    Ok(flag)
}
