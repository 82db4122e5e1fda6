//! `fedtt-edge eval`

use std::path::PathBuf;

use clap::Args;
use fedtt_edge::data::Dataset;
use fedtt_edge::evaluate::{Evaluation, evaluate};
use fedtt_edge::source::{FieldSplit, field_reports};
use serde::Serialize;

use super::args::UseArgs;
use super::output::Output;
use super::{context, table};

const EXAMPLES: &str = "\
Examples:
  fedtt-edge eval
  fedtt-edge eval --bundle minilm --adapter trec.safetensors --data TREC.test.all --encoding latin-1
  fedtt-edge eval --bundle minilm --adapter sst2.safetensors --data dev.tsv --text sentence --label label --json

Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Options of `eval`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvalArgs {
    /// Labelled file [default: the embedded field reports' test split]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) with: UseArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    data: &'a str,
    engine: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a [String]>,
    #[serde(flatten)]
    evaluation: &'a Evaluation,
}

/// Measures an adapter.
pub(crate) fn run(args: &EvalArgs, output: Output) -> anyhow::Result<()> {
    let mut working = context::open(&args.with)?;
    let header = &working.adapter.header;
    let data = match &args.data {
        Some(path) => Dataset::read(path, &args.with.read.options(&header.columns, header.task, true))?,
        None => field_reports(FieldSplit::Test),
    };
    let encoded = working.encoding().labelled(&data)?;
    let shape = working.shape(args.with.batch as usize);
    let evaluation = evaluate(&mut working.model, &working.adapter.set, &encoded, shape, working.adapter.header.scale)?;
    let labels = working.adapter.header.labels.as_ref();
    let report = Report {
        data: &data.name,
        engine: &working.engine,
        labels: labels.map(|l| l.names()),
        evaluation: &evaluation,
    };
    output.success(&report, &table::evaluation(&evaluation, labels))
}
