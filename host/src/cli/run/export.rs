//! `fedtt run export`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use fedtt::control::Request;
use fedtt::model::write_onnx;
use fedtt_edge::source::Source;
use serde_json::json;

use super::super::host::HostArgs;
use super::field;
use crate::output::{Outcome, bytes};

const EXAMPLES: &str = "\
Examples:
  fedtt run export reports-1 -o adapter.safetensors               for `fedtt-edge eval` and `predict`
  fedtt run export reports-1 --format onnx -o classifier.onnx     backbone, adapter and head in one model
  fedtt run export reports-1 --format bundle -o reports           the bundle with its adapter beside it

Exported is the adapter that measured best so far; without measurements, the last one.";

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    /// The adapter alone
    Safetensors,
    /// A model that needs nothing else: token ids in, logits out
    Onnx,
    /// A copy of the bundle with the adapter beside it
    Bundle,
}

/// Take a run's adapter
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExportArgs {
    /// The run
    run: String,
    /// What to write
    #[arg(long, value_enum, default_value = "safetensors")]
    format: Format,
    /// Where to; must not exist yet for a bundle
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    #[command(flatten)]
    host: HostArgs,
}

pub(super) fn run(args: &ExportArgs) -> anyhow::Result<Outcome> {
    let data = args.host.ask(Request::Adapter { run: args.run.clone() })?;
    let adapter: PathBuf = field(&data, "adapter")?;
    let bundle: Option<PathBuf> = field(&data, "bundle")?;
    let output = &args.output;
    match args.format {
        Format::Safetensors => copy(&adapter, output)?,
        Format::Onnx => {
            let source = Source::open(bundle.as_deref())?;
            write_onnx(&adapter, &source, output)?;
        }
        Format::Bundle => {
            let Some(bundle) = bundle else {
                bail!("the embedded encoder is part of every program and no folder; the adapter alone will do")
            };
            copy_folder(&bundle, output)?;
            copy(&adapter, &output.join("adapter.safetensors"))?;
        }
    }
    let size = size(output);
    let data = json!({ "run": args.run, "path": output, "bytes": size });
    Ok(Outcome { text: format!("{}  {}\n", output.display(), bytes(size)), data, ok: true })
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(to).with_context(|| format!("cannot make the folder {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match from.is_dir() {
            true => copy_folder(&from, &to)?,
            false => copy(&from, &to)?,
        }
    }
    Ok(())
}

/// Bytes of a file, or of a folder's files.
fn size(path: &Path) -> u64 {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| size(&entry.path())).sum(),
        Err(_) => std::fs::metadata(path).map_or(0, |metadata| metadata.len()),
    }
}
