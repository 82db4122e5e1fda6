//! Flags that commands of both programs take.

use std::path::PathBuf;

use clap::Args;
use fedtt_runtime::{EngineChoice, EngineConfig, Provider, SessionOptions};

use crate::data::{Columns, Format, ReadOptions};
use crate::task::TaskKind;

/// The engine that runs the graph.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Engine")]
pub struct EngineArgs {
    /// auto, ort (ONNX Runtime) or tract; auto takes ONNX Runtime where its library is found
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    pub engine: EngineChoice,
    /// ONNX Runtime's library, or a folder that holds it [default: ORT_DYLIB_PATH, then the usual places]
    #[arg(long, value_name = "PATH")]
    pub ort_library: Option<PathBuf>,
    /// Where ONNX Runtime computes: cpu, cuda or tensorrt
    #[arg(long, value_name = "PROVIDER", default_value = "cpu")]
    pub provider: Provider,
    /// Threads; 0 lets the engine choose. Results repeat bit for bit only with the same number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// Most tokens computed at once: larger batches go through in parts and take no more memory; 0 for whole batches
    /// [default: 512 on a CPU, whole batches on a GPU]
    #[arg(long, value_name = "TOKENS")]
    pub micro_batch: Option<usize>,
    /// Compute the blocks' values again in the backward pass instead of keeping them: less memory, a third more time
    #[arg(long)]
    pub recompute: bool,
}

/// How labelled files are read.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data")]
pub struct ReadArgs {
    /// Column of the text: its name, or its number counting from 1 [default: text, sentence, ...]
    #[arg(long, value_name = "COLUMN")]
    pub text: Option<String>,
    /// Column of the second text, for sentence pairs
    #[arg(long, value_name = "COLUMN")]
    pub text_pair: Option<String>,
    /// Column of the label or number to predict [default: label, class, ...]; in labelled lines `label` or `fine`
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,
    /// File format [default: by the file's name and first line]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Character encoding, such as latin-1 [default: utf-8]
    #[arg(long, value_name = "NAME")]
    pub encoding: Option<String>,
    /// Whether the first line of a table names its columns [default: by the columns asked for]
    #[arg(long, value_name = "yes|no", value_parser = yes_no)]
    pub header: Option<bool>,
}

impl EngineArgs {
    /// What the engine is selected by.
    pub fn config(&self) -> EngineConfig {
        EngineConfig {
            choice: self.engine,
            library: self.ort_library.clone(),
            provider: self.provider,
            threads: self.threads,
            micro_batch: self.micro_batch,
            recompute: self.recompute,
        }
    }

    /// What graphs are loaded with.
    pub fn session(&self) -> SessionOptions {
        SessionOptions { threads: self.threads, ..SessionOptions::default() }
    }
}

impl ReadArgs {
    /// Columns named here, and where none is, those of `known`.
    pub fn columns(&self, known: &Columns) -> Columns {
        let or = |given: &Option<String>, known: &Option<String>| given.clone().or_else(|| known.clone());
        Columns {
            text: or(&self.text, &known.text),
            pair: or(&self.text_pair, &known.pair),
            label: or(&self.label, &known.label),
        }
    }

    /// For a file of examples for `task`.
    pub fn options(&self, known: &Columns, task: TaskKind, labelled: bool) -> ReadOptions {
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
