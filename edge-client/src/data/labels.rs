//! The classes of a data set, and labels turned into what a loss takes.

use serde::{Deserialize, Serialize};

use super::{DataError, Dataset};

/// Class names in the order of the head's outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(Vec<String>);

/// What is to be predicted, one entry per example.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Index of the class.
    Classes(Vec<usize>),
    /// The value.
    Values(Vec<f32>),
    /// The text itself: language modelling.
    Text,
}

impl Labels {
    /// The distinct labels of `data`: in numeric order when all are integers, in byte order otherwise.
    ///
    /// # Errors
    /// When there are fewer than two.
    pub fn collect(data: &Dataset) -> Result<Self, DataError> {
        let mut names: Vec<String> = data.examples.iter().filter_map(|e| e.label.clone()).collect();
        let numeric = names.iter().all(|n| n.parse::<i64>().is_ok());
        names.sort_by(|a, b| {
            let number = |s: &str| if numeric { s.parse::<i64>().ok() } else { None };
            number(a).cmp(&number(b)).then_with(|| a.cmp(b))
        });
        names.dedup();
        match names.as_slice() {
            [] => Err(DataError::file(&data.name, "has no labels; name their column with --label")),
            [only] => {
                let message =
                    format!("has only the label {only:?}; a classifier needs two; is --label the right column?");
                Err(DataError::file(&data.name, message))
            }
            many if many.len() > MAX_CLASSES => {
                let message = format!(
                    "has {} distinct labels; is --label the right column? (numbers are learnt with --task regress)",
                    many.len()
                );
                Err(DataError::file(&data.name, message))
            }
            _ => Ok(Labels(names)),
        }
    }

    /// These, in this order.
    pub fn new(names: Vec<String>) -> Self {
        Labels(names)
    }

    /// Class names in output order.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The class of every example.
    ///
    /// # Errors
    /// When an example has no label or one that is not among these.
    pub fn classes(&self, data: &Dataset) -> Result<Targets, DataError> {
        let class = |e: &super::Example| {
            let label = e.label.as_deref().unwrap_or_default();
            self.0.iter().position(|name| name == label).ok_or_else(|| {
                let message = format!("label {label:?} is none of the classes learnt: {}", self.0.join(", "));
                DataError::line(&data.name, e.line, message)
            })
        };
        Ok(Targets::Classes(data.examples.iter().map(class).collect::<Result<_, _>>()?))
    }
}

/// More distinct labels than this are taken for a mistake in the choice of column.
const MAX_CLASSES: usize = 1000;

impl Targets {
    /// The label column as numbers.
    ///
    /// # Errors
    /// When a label is not a finite number.
    pub fn values(data: &Dataset) -> Result<Targets, DataError> {
        let value = |e: &super::Example| {
            let label = e.label.as_deref().unwrap_or_default();
            label.parse::<f32>().ok().filter(|v| v.is_finite()).ok_or_else(|| {
                DataError::line(&data.name, e.line, format!("regression needs a number, not the label {label:?}"))
            })
        };
        Ok(Targets::Values(data.examples.iter().map(value).collect::<Result<_, _>>()?))
    }
}
