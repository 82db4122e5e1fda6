//! `fedtt run export`

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use fedtt::control::Request;
use fedtt_edge::adapter_file::AdapterFile;
use fedtt_edge::export::{self, OnnxModel};
use fedtt_edge::source::Source;
use serde_json::json;

use super::super::host::HostArgs;
use super::field;
use crate::output::{Outcome, bytes};

const EXAMPLES: &str = "\
Examples:
  fedtt run export reports-1 -o adapter.safetensors               for `fedtt-edge eval` and `predict`
  fedtt run export reports-1 --dense -o adapter.safetensors       the same, and the matrices its factors stand for
  fedtt run export reports-1 --format onnx -o classifier.onnx     backbone, adapter and head in one model
  fedtt run export reports-1 --format bundle -o reports.bundle    for the fleet: the backbone with the adapter in it

Exported is the adapter that measured best so far; without measurements, the last one.

The model takes what the backbone took (input_ids, attention_mask, ...), each [batch, sequence], and makes `logits`; it runs in
any ONNX Runtime from 1.18 on. Labels, task and longest text are in its metadata.

The bundle has a hash of its own. Devices get it as any other (`[fetch]` in edge.toml, or by hand), and a plan that names it
begins with what this run has learnt; adapter.safetensors in it is the trained head, for `fedtt-edge predict`.";

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    /// The adapter alone
    Safetensors,
    /// A model that needs nothing else: token ids in, logits out
    Onnx,
    /// A bundle with the adapter in it, to be handed out and trained further
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
    /// Where to; a bundle's folder must not exist yet
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// With safetensors: also the matrices the factors stand for
    #[arg(long)]
    dense: bool,
    /// With onnx: weights in a file beside the model also below 2 GB
    #[arg(long)]
    external_data: bool,
    #[command(flatten)]
    host: HostArgs,
}

pub(super) fn run(args: &ExportArgs) -> anyhow::Result<Outcome> {
    let data = args.host.ask(Request::Adapter { run: args.run.clone() })?;
    let adapter: PathBuf = field(&data, "adapter")?;
    let bundle: Option<PathBuf> = field(&data, "bundle")?;
    let source = Source::open(bundle.as_deref())?;
    let adapter = AdapterFile::read(&adapter, &source)?;
    let output = args.output.as_path();
    let mut report = json!({ "run": args.run, "path": output });
    match args.format {
        Format::Safetensors => drop(export::safetensors(&adapter, output, args.dense)?),
        Format::Onnx => {
            let OnnxModel { data, inputs, output } = export::onnx(&adapter, &source, output, args.external_data)?;
            report["inputs"] = inputs.into_iter().map(|(_, name)| name).collect();
            report["output"] = output.into();
            report["data"] = json!(data);
        }
        Format::Bundle => report["hash"] = export::bundle(&adapter, &source, output)?.hash().into(),
    }
    let size = size(output) + report["data"].as_str().map_or(0, |data| size(Path::new(data)));
    report["bytes"] = size.into();
    Ok(Outcome { text: format!("{}  {}\n", output.display(), bytes(size)), data: report, ok: true })
}

/// Bytes of a file, or of a folder's files.
fn size(path: &Path) -> u64 {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| size(&entry.path())).sum(),
        Err(_) => std::fs::metadata(path).map_or(0, |metadata| metadata.len()),
    }
}
