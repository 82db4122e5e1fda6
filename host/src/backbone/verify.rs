//! `fedtt backbone verify`

use std::path::PathBuf;

use anyhow::Context;
use fedtt_backbone::backbone::Backbone;
use fedtt_backbone::bundle::Bundle;
use fedtt_backbone::verify::{Against, Reference, verify};
use fedtt_edge::flags::EngineArgs;

use crate::output::Outcome;

/// Check the derived gradients of a bundle on this machine's engine.
///
/// Grafts a probe (h + d) at every adapter site and compares the gradients with finite differences; with a reference
/// file, outputs and gradients are compared with it as well, with zero and non-zero probes. Exits 1 beyond tolerance.
///
/// To hold a board against this machine, write a reference here and give it to `verify` there.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  fedtt backbone verify minilm.bundle --engine tract
  fedtt backbone verify minilm.bundle --write-reference pc.safetensors
  fedtt backbone verify minilm.bundle --reference pc.safetensors --provider cuda --reference-only")]
pub(crate) struct Args {
    /// The bundle.
    bundle: PathBuf,
    /// Outputs and gradients computed elsewhere, as safetensors (models/backbone/BUNDLE.md says how).
    #[arg(long, value_name = "FILE.safetensors")]
    reference: Option<PathBuf>,
    /// Leave finite differences out, which take hundreds of runs.
    #[arg(long, requires = "reference")]
    reference_only: bool,
    /// Write what this machine's engine computes, as such a file.
    #[arg(long, value_name = "FILE.safetensors")]
    write_reference: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let bundle = Bundle::open(&args.bundle)?;
    bundle.verify_hash()?;
    let reference = args.reference.as_deref().map(Reference::read).transpose()?;
    let backbone = Backbone::open(&bundle)?;
    let engine = fedtt_runtime::select(&args.engine.config())?;
    if let Some(path) = &args.write_reference {
        let recorded = Reference::record(&backbone, engine.as_ref(), &args.engine.session())?;
        recorded.write(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let against = match &reference {
        None => Against::Differences,
        Some(reference) if args.reference_only => Against::Reference(reference),
        Some(reference) => Against::Both(reference),
    };
    let report = verify(&backbone, engine.as_ref(), &args.engine.session(), against)?;
    Ok(Outcome { text: format!("{report}\n"), ok: report.passed, data: serde_json::to_value(&report)? })
}
