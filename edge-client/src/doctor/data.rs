//! What the device trains on.

use super::Check;
use crate::daemon::{Data, Settings};
use crate::data::{Dataset, ReadOptions};
use crate::source::{FieldSplit, field_reports};

pub(super) fn check(settings: &Settings) -> Vec<Check> {
    let least = settings.policy.min_examples;
    let counted = |name: String, examples: usize, labelled: usize| {
        let finding = format!("{name}: {examples} examples, {labelled} with a label");
        match labelled {
            0 => Check::warn(
                "data",
                finding,
                "name the column of the label with data.label, unless only texts are learnt",
            ),
            _ => Check::ok("data", finding),
        }
    };
    let mut total = 0;
    let mut checks: Vec<Check> = match &settings.data {
        Data::Embedded => {
            total = field_reports(FieldSplit::Train).examples.len();
            let finding = format!("the embedded field reports: {total} examples");
            match settings.tls {
                // A fleet's board: its rounds would learn from the same text as any other's.
                Some(_) => {
                    let finding = format!("{finding}, the same on every board");
                    vec![Check::warn("data", finding, "name this board's own text at data.files")]
                }
                None => vec![Check::ok("data", finding)],
            }
        }
        Data::Given(data) => {
            total = data.examples.len();
            let labelled = data.examples.iter().filter(|example| example.label.is_some()).count();
            vec![counted(data.name.clone(), total, labelled)]
        }
        Data::Files { paths, options } => {
            let with_labels = ReadOptions { labelled: true, ..options.clone() };
            let bare = ReadOptions { labelled: false, ..options.clone() };
            let one = |path: &std::path::PathBuf| match Dataset::read(path, &with_labels) {
                Ok(data) => {
                    total += data.examples.len();
                    counted(data.name, data.examples.len(), data.examples.len())
                }
                Err(error) => match Dataset::read(path, &bare) {
                    Ok(data) => {
                        total += data.examples.len();
                        let finding = format!("{} examples, for learning texts alone: {error}", data.examples.len());
                        Check::warn("data", finding, "name the columns with data.text and data.label")
                    }
                    Err(_) => Check::fail("data", error.to_string(), "see data.files, data.format and data.encoding"),
                },
            };
            paths.iter().map(one).collect()
        }
    };
    if (total as u64) < least && checks.iter().all(|check| check.level != super::Level::Fail) {
        let finding = format!("{total} examples in all; this device trains on at least {least}");
        checks.push(Check::fail("data", finding, "add files, or lower policy.min_examples"));
    }
    checks
}
