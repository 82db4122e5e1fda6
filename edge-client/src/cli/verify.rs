//! `fedtt-edge verify`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use fedtt_backbone::verify::{Against, Reference, verify};
use fedtt_edge::flags::EngineArgs;
use fedtt_edge::source::Source;
use fedtt_runtime::select;

use super::Output;
use super::args::{BackboneArgs, OutputArgs};

const EXAMPLES: &str = "\
Examples:
  fedtt-edge verify --provider cuda                              the gradients against finite differences
  fedtt-edge verify --write-reference pc.safetensors             on a machine that is trusted
  fedtt-edge verify --provider cuda --reference pc.safetensors   on the board

Exit codes: 0 within tolerance, 1 beyond it or failed, 2 wrong usage.";

/// Options of `verify`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    backbone: BackboneArgs,
    /// Hold outputs and gradients against these, written by another machine, in place of finite differences
    #[arg(long, value_name = "FILE.safetensors")]
    reference: Option<PathBuf>,
    /// Write what this machine's engine computes, and check nothing
    #[arg(long, value_name = "FILE.safetensors", conflicts_with = "reference")]
    write_reference: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Checks the gradients; whether they are within tolerance.
pub(crate) fn run(args: &VerifyArgs, output: Output) -> anyhow::Result<bool> {
    let source = Source::open(args.backbone.bundle.as_deref())?;
    let engine = select(&args.engine.config())?;
    let options = args.engine.session();
    if let Some(path) = &args.write_reference {
        let recorded = Reference::record(&source.backbone, engine.as_ref(), &options)?;
        recorded.write(path).with_context(|| format!("cannot write {}", path.display()))?;
        let data = serde_json::json!({ "engine": engine.name(), "reference": path });
        output.success(&data, &format!("{} of {} in {}", source.name, engine.name(), path.display()))?;
        return Ok(true);
    }
    let reference = args.reference.as_deref().map(Reference::read).transpose()?;
    let against = reference.as_ref().map_or(Against::Differences, Against::Reference);
    let report = verify(&source.backbone, engine.as_ref(), &options, against)?;
    output.judged(report.passed, &report, &report.to_string())?;
    Ok(report.passed)
}
