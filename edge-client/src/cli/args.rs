//! Options several commands share.

use std::path::PathBuf;

use clap::Args;
use fedtt_edge::flags::{EngineArgs, ReadArgs};

pub(crate) use super::found::AdapterArgs;

/// The backbone.
#[derive(Debug, Args)]
#[command(next_help_heading = "Backbone")]
pub(crate) struct BackboneArgs {
    /// Prepared backbone, a folder made by `fedtt backbone prepare` [default: the small embedded encoder]
    #[arg(long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
}

/// An adapter at work: the options of commands that use one.
#[derive(Debug, Args)]
pub(crate) struct UseArgs {
    #[command(flatten)]
    pub(crate) adapter: AdapterArgs,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Texts in a batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) batch: u32,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Print one JSON object, {"version", "command", "ok", "data" or "error"}, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}
