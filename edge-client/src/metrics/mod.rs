//! What is measured on a data set.

mod classification;
mod language;
mod regression;

pub use classification::{ClassScore, Classification};
pub use language::Language;
pub use regression::Regression;
