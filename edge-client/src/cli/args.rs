//! Options several commands share.

use std::path::PathBuf;

use clap::Args;
use fedtt_edge::data::{Columns, Format, ReadOptions};
use fedtt_edge::task::TaskKind;
use fedtt_runtime::{EngineChoice, EngineConfig, Provider, SessionOptions};

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

/// The engine that runs the graph.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// auto, ort (ONNX Runtime) or tract; auto takes ONNX Runtime where its library is found
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    engine: EngineChoice,
    /// ONNX Runtime's library, or a folder that holds it [default: ORT_DYLIB_PATH, then the usual places]
    #[arg(long, value_name = "PATH")]
    ort_library: Option<PathBuf>,
    /// Where ONNX Runtime computes: cpu, cuda or tensorrt
    #[arg(long, value_name = "PROVIDER", default_value = "cpu")]
    provider: Provider,
    /// Threads; 0 lets the engine choose. Results repeat bit for bit only with the same number
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Most tokens computed at once: larger batches go through in parts and take no more memory; 0 for whole batches
    /// [default: 512 on a CPU, whole batches on a GPU]
    #[arg(long, value_name = "TOKENS")]
    micro_batch: Option<usize>,
    /// Compute the blocks' values again in the backward pass instead of keeping them: less memory, a third more time
    #[arg(long)]
    recompute: bool,
}

/// How labelled files are read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct ReadArgs {
    /// Column of the text: its name, or its number counting from 1 [default: text, sentence, ...]
    #[arg(long, value_name = "COLUMN")]
    text: Option<String>,
    /// Column of the second text, for sentence pairs
    #[arg(long, value_name = "COLUMN")]
    text_pair: Option<String>,
    /// Column of the label or number to predict [default: label, class, ...]; in labelled lines `label` or `fine`
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// File format [default: by the file's name and first line]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Character encoding, such as latin-1 [default: utf-8]
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// Whether the first line of a table names its columns [default: by the columns asked for]
    #[arg(long, value_name = "yes|no", value_parser = yes_no)]
    header: Option<bool>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Print one JSON object, {"version", "command", "ok", "data" or "error"}, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

impl EngineArgs {
    pub(crate) fn config(&self) -> EngineConfig {
        EngineConfig {
            choice: self.engine,
            library: self.ort_library.clone(),
            provider: self.provider,
            threads: self.threads,
            micro_batch: self.micro_batch,
            recompute: self.recompute,
        }
    }

    pub(crate) fn session(&self) -> SessionOptions {
        SessionOptions { threads: self.threads, ..SessionOptions::default() }
    }
}

impl ReadArgs {
    /// Columns named here, and where none is, those of `known`.
    pub(crate) fn columns(&self, known: &Columns) -> Columns {
        let or = |given: &Option<String>, known: &Option<String>| given.clone().or_else(|| known.clone());
        Columns {
            text: or(&self.text, &known.text),
            pair: or(&self.text_pair, &known.pair),
            label: or(&self.label, &known.label),
        }
    }

    /// For a file of examples for `task`.
    pub(crate) fn options(&self, known: &Columns, task: TaskKind, labelled: bool) -> ReadOptions {
        ReadOptions {
            format: self.format,
            encoding: self.encoding.clone(),
            header: self.header,
            columns: self.columns(known),
            labelled: labelled && task != TaskKind::Lm,
            task,
        }
    }
}

fn yes_no(word: &str) -> Result<bool, String> {
    match word {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("expected yes or no".into()),
    }
}
