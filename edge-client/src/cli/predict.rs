//! `fedtt-edge predict`

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use fedtt_edge::data::{Dataset, Example, Format};
use fedtt_edge::predict::{Answer, Prediction, check_pairs, predictions};
use serde::Serialize;

use super::args::UseArgs;
use super::output::Output;
use super::{context, table};

const EXAMPLES: &str = "\
Examples:
  fedtt-edge predict \"pump 3 trips its breaker at start\"
  fedtt-edge predict --bundle minilm --adapter trec.safetensors --file questions.txt --json
  fedtt-edge predict --bundle minilm --adapter mrpc.safetensors \"They left.\" --pair \"They stayed.\"
  cat questions.txt | fedtt-edge predict --bundle minilm --adapter trec.safetensors

Without TEXT and --file, each line of standard input is a text.
Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Options of `predict`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PredictArgs {
    /// The text
    #[arg(value_name = "TEXT")]
    text_given: Option<String>,
    /// Second text of a pair
    #[arg(long, value_name = "TEXT", requires = "text_given")]
    pair: Option<String>,
    /// File of texts: one per line, or a table (tsv, csv, jsonl) with a text column
    #[arg(long, value_name = "FILE", conflicts_with = "text_given")]
    file: Option<PathBuf>,
    /// Classes shown for each text, most probable first
    #[arg(long, value_name = "N", default_value_t = 3)]
    top: usize,
    #[command(flatten)]
    pub(crate) with: UseArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    engine: &'a str,
    predictions: &'a [Prediction],
}

/// Applies an adapter.
pub(crate) fn run(args: &PredictArgs, output: Output) -> anyhow::Result<()> {
    let mut working = context::open(&args.with)?;
    let data = texts(args, &working)?;
    check_pairs(&working.adapter.header, &data)?;
    let encoded = working.encoding().bare(&data)?;
    let shape = working.shape((args.with.batch as usize).min(data.examples.len()));
    let results =
        predictions(&mut working.model, &working.adapter.set, &working.adapter.header, &data, &encoded, shape)?;
    let rows: Vec<Vec<String>> = results.iter().map(|p| row(p, args.top)).collect();
    let report = Report { engine: &working.engine, predictions: &results };
    output.success(&report, &table::columns(&rows))
}

fn texts(args: &PredictArgs, working: &context::Working) -> anyhow::Result<Dataset> {
    let header = &working.adapter.header;
    if let Some(text) = &args.text_given {
        let example = Example { text: text.clone(), pair: args.pair.clone(), label: None, line: 1 };
        return Ok(Dataset { name: "the text given".into(), examples: vec![example] });
    }
    let mut options = args.with.read.options(&header.columns, header.task, false);
    options.columns.label = None;
    if let Some(path) = &args.file {
        let name = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        if options.format.is_none() && !["tsv", "csv", "jsonl", "ndjson", "json"].contains(&name.as_str()) {
            options.format = Some(Format::Lines);
        }
        return Ok(Dataset::read(path, &options)?);
    }
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        bail!("no text: give one as an argument, with --file, or on standard input");
    }
    let mut bytes = Vec::new();
    stdin.read_to_end(&mut bytes).context("cannot read standard input")?;
    options.format = options.format.or(Some(Format::Lines));
    Ok(Dataset::parse("standard input", &bytes, &options)?)
}

/// The answer first, then the text.
fn row(prediction: &Prediction, top: usize) -> Vec<String> {
    let mut row = match &prediction.answer {
        Answer::Class { probabilities, .. } => {
            let shown = probabilities.iter().take(top.max(1));
            shown.flat_map(|(label, p)| [label.clone(), format!("{p:.3}")]).collect()
        }
        Answer::Value { value } => vec![format!("{value:.4}")],
        Answer::Surprise { nats_per_token, tokens } => {
            vec![format!("{nats_per_token:.4} nats per token"), format!("{tokens} tokens")]
        }
    };
    row.push(format!("  {}", prediction.text));
    row
}
