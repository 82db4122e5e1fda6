//! Labelled files for commands that train or measure on this machine.

use std::path::PathBuf;

use clap::Args;
use fedtt::examples::Reading;
use fedtt_edge::data::{Columns, Dataset, Labels};
use fedtt_edge::flags::ReadArgs;
use fedtt_edge::source::{FieldSplit, field_reports, field_sites};
use fedtt_wire::Plan;
use fedtt_wire::plan::Task;

/// The column of the embedded reports by which they can be split.
const SITE: &str = "site";

/// Where examples come from and how they are read.
#[derive(Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct DataArgs {
    /// File to train on: tsv, csv, jsonl, labelled lines, or plain text for lm [default: the embedded field reports]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// File to measure the global adapter on [default: the embedded reports' test split, or none]
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    #[command(flatten)]
    read: ReadArgs,
}

/// Examples as read.
pub(crate) struct Examples {
    /// To train on.
    pub(crate) train: Dataset,
    /// To measure on.
    pub(crate) test: Option<Dataset>,
    /// The group of each training example; empty unless asked for.
    pub(crate) groups: Vec<String>,
}

impl DataArgs {
    /// Whether the embedded reports are meant.
    pub(crate) fn is_embedded(&self) -> bool {
        self.data.is_none()
    }

    /// Reads the files; `group` names the column that says where an example comes from.
    pub(crate) fn read(&self, task: Task, group: Option<&str>) -> anyhow::Result<Examples> {
        let reading = Reading::from(&self.read);
        let options = reading.options(task);
        let Some(path) = &self.data else {
            if let Some(column) = group.filter(|&column| column != SITE) {
                anyhow::bail!(
                    "the embedded reports have no column `{column}`, only `{SITE}`; or name a file with --data"
                );
            }
            let train = field_reports(FieldSplit::Train);
            let groups = field_sites(FieldSplit::Train);
            let test = match &self.test {
                Some(test) => Dataset::read(test, &options)?,
                None => field_reports(FieldSplit::Test),
            };
            return Ok(Examples { train, test: Some(test), groups });
        };
        let train = Dataset::read(path, &options)?;
        let test = self.test.as_ref().map(|test| Dataset::read(test, &options)).transpose()?;
        let groups = match group {
            None => Vec::new(),
            Some(column) => {
                // The same rows, with the group in the label's place.
                let columns = Columns { label: Some(column.to_string()), ..reading.columns.clone() };
                let grouped = Reading { columns, ..reading }.options(Task::Classify);
                let read = Dataset::read(path, &grouped)?;
                anyhow::ensure!(
                    read.examples.len() == train.examples.len(),
                    "{}: column `{column}` cannot be told row by row for this task",
                    path.display()
                );
                read.examples.into_iter().map(|example| example.label.unwrap_or_default()).collect()
            }
        };
        Ok(Examples { train, test, groups })
    }
}

/// Gives a plan of a classifier that names no labels those of the data.
pub(crate) fn fill_labels(plan: &mut Plan, data: &Dataset) -> anyhow::Result<()> {
    if plan.model.task == Task::Classify && plan.model.labels.is_empty() {
        plan.model.labels = labels(data)?;
    }
    Ok(())
}

/// The labels of a data set, in the order of a classifier's outputs.
pub(crate) fn labels(data: &Dataset) -> anyhow::Result<Vec<String>> {
    Ok(Labels::collect(data)?.names().to_vec())
}

/// The examples dealt to clients.
pub(crate) fn deal(train: &Dataset, parts: &[Vec<usize>]) -> Vec<Dataset> {
    let part = |(i, places): (usize, &Vec<usize>)| Dataset {
        name: format!("{} (part {i})", train.name),
        examples: places.iter().map(|&place| train.examples[place].clone()).collect(),
    };
    parts.iter().enumerate().map(part).collect()
}
