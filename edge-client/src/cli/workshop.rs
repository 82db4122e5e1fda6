//! `fedtt-edge workshop`

use anyhow::Context as _;
use clap::Args;
use fedtt_edge::daemon;

/// Options of `workshop`.
#[derive(Debug, Args)]
pub(crate) struct WorkshopArgs {
    /// The device it works for, for people to see
    _device: String,
}

/// Does a device's local work until it is told to end.
pub(crate) fn run() -> anyhow::Result<()> {
    daemon::workshop().context("`fedtt-edge run` starts this for itself; it cannot be used otherwise")
}
