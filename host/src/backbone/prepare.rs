//! `fedtt backbone prepare`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fedtt_backbone::bundle::{self, Bundle, Draft, Origin, Precision, Settings, file_sha256};
use fedtt_backbone::prepare::prepare;
use fedtt_backbone::training::Pooling;

use super::inspect;
use crate::output::Outcome;

/// Turn an ONNX export into a bundle that devices can train in.
///
/// Reads the graph any common exporter wrote, finds its blocks and adapter sites by structure, makes sure that
/// gradients reach every site, and writes one folder with the clean graph, the weights once, and the tokenizer.
#[derive(clap::Args)]
#[command(after_help = "\
Example: fedtt backbone prepare model.onnx --tokenizer tokenizer.json -o minilm.bundle

The sites file names a tensor for each site, for graphs whose structure is not recognised:
  {\"0.attn\": \"tensor_12\", \"0.mlp\": \"tensor_20\", \"1.attn\": ...}")]
pub(crate) struct Args {
    /// The ONNX file; external data is looked for beside it.
    model: PathBuf,
    /// Hugging Face tokenizer.json; without one the bundle takes token ids.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// The bundle's folder, which must not exist yet.
    #[arg(short, long, value_name = "BUNDLE")]
    output: PathBuf,
    /// JSON object that names the tensor of each site by hand.
    #[arg(long, value_name = "FILE")]
    sites: Option<PathBuf>,
    /// How hidden states become one vector per text: mean, cls, or last. Default: last for causal language models with
    /// logits, else mean.
    #[arg(long, value_parser = pooling)]
    pooling: Option<Pooling>,
    /// The model's licence text, kept in the bundle.
    #[arg(long, value_name = "FILE")]
    license: Option<PathBuf>,
}

fn pooling(word: &str) -> Result<Pooling, String> {
    match word {
        "mean" => Ok(Pooling::Mean),
        "cls" => Ok(Pooling::Cls),
        "last" => Ok(Pooling::Last),
        _ => Err("one of mean, cls, last".into()),
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let named = args.sites.as_deref().map(named_sites).transpose()?;
    let tokenizer = args.tokenizer.as_deref().map(tokenizer).transpose()?;
    let licence =
        args.license.as_deref().map(|path| fs::read_to_string(path).with_context(|| path.display().to_string()));
    let licence = licence.transpose()?;
    let backbone =
        prepare(&args.model, named.as_deref()).with_context(|| format!("cannot prepare {}", args.model.display()))?;
    let default_pooling = if backbone.anatomy.logits.is_some() { Pooling::Last } else { Pooling::Mean };
    let settings = Settings {
        source: Origin {
            file: args.model.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
            sha256: file_sha256(&args.model)?,
        },
        vocabulary: backbone.vocabulary(),
        precision: Precision::of(&backbone.graph),
        pooling: args.pooling.unwrap_or(default_pooling),
        labels: Vec::new(),
        licence: None,
        anatomy: backbone.anatomy.clone(),
    };
    let draft =
        Draft { graph: backbone.kept_graph(), settings, tokenizer: tokenizer.as_deref(), licence: licence.as_deref() };
    let bundle: Bundle = bundle::write(&args.output, draft)?;
    inspect::describe(&bundle)
}

fn named_sites(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a JSON object of site ids and tensor names", path.display()))?;
    map.into_iter()
        .map(|(id, tensor)| match tensor {
            serde_json::Value::String(tensor) => Ok((id, tensor)),
            other => bail!("{}: site `{id}` names {other} where a tensor's name belongs", path.display()),
        })
        .collect()
}

fn tokenizer(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON", path.display()))?;
    if value.get("model").is_none() {
        bail!("{} is not a Hugging Face tokenizer.json: it has no `model`", path.display());
    }
    Ok(bytes)
}
