//! `fedtt-edge export`

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use fedtt_edge::adapter_file::AdapterFile;
use fedtt_edge::export::{self, OnnxModel};
use fedtt_edge::source::Source;
use serde::Serialize;

use super::args::{AdapterArgs, OutputArgs};
use super::output::Output;

const EXAMPLES: &str = "\
Examples:
  fedtt-edge export --format onnx -o classifier.onnx
  fedtt-edge export --bundle minilm --adapter trec.safetensors --format safetensors --dense -o trec-dense.safetensors
  fedtt-edge export --run reports-1 --format bundle -o reports.bundle

onnx is a model that needs nothing else: token ids and what else the backbone takes in, `logits` out; labels and longest text
are in its metadata. bundle is the backbone with the adapter in it, for devices and their next run.
Exit codes: 0 done, 1 failed, 2 wrong usage.";

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Format {
    /// The adapter alone
    Safetensors,
    /// Backbone, adapter and head as one model
    Onnx,
    /// A bundle with the adapter in it
    Bundle,
}

/// Options of `export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    adapter: AdapterArgs,
    /// What to write
    #[arg(long, value_enum)]
    format: Format,
    /// Where to; a bundle's folder must not exist yet
    #[arg(short, long = "out", alias = "output", value_name = "PATH")]
    out: PathBuf,
    /// With safetensors: also the matrices the factors stand for
    #[arg(long)]
    dense: bool,
    /// With onnx: weights in a file beside the model also below 2 GB
    #[arg(long)]
    external_data: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    path: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
}

/// Writes an adapter in another form.
pub(crate) fn run(args: &ExportArgs, output: Output) -> anyhow::Result<()> {
    let found = args.adapter.find()?;
    let source = Source::open(found.bundle.as_deref())?;
    let adapter = AdapterFile::read(&found.file, &source)?;
    let path = args.out.as_path();
    let mut report = Report { path, data: None, inputs: Vec::new(), output: None, hash: None };
    match args.format {
        Format::Safetensors => drop(export::safetensors(&adapter, path, args.dense)?),
        Format::Onnx => {
            let OnnxModel { data, inputs, output } = export::onnx(&adapter, &source, path, args.external_data)?;
            report.data = data;
            report.inputs = inputs.into_iter().map(|(_, name)| name).collect();
            report.output = Some(output);
        }
        Format::Bundle => report.hash = Some(export::bundle(&adapter, &source, path)?.hash().to_string()),
    }
    let beside = report.data.as_ref().map(|data| format!(" with {}", data.display())).unwrap_or_default();
    let hash = report.hash.as_ref().map(|hash| format!("  {hash}")).unwrap_or_default();
    output.success(&report, &format!("{}{beside}{hash}", path.display()))
}
