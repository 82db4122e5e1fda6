//! What can be wrong with a configuration or with tensors handed in from outside.

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every way this crate refuses its input.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A setting is out of range or contradicts the backbone.
    #[error("adapter setting `{field}`: {reason}")]
    Config {
        /// path of the setting, as written in a plan or config file
        field: String,
        /// what is wrong and what would be right
        reason: String,
    },
    /// A tensor has another shape than its name calls for.
    #[error("tensor `{name}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// full name of the tensor
        name: String,
        /// shape the model has
        expected: Vec<usize>,
        /// shape handed in
        found: Vec<usize>,
    },
    /// A tensor that the model needs was not handed in.
    #[error("tensor `{name}` is missing")]
    Missing {
        /// full name of the tensor
        name: String,
    },
    /// A tensor was handed in that the model does not have.
    #[error("tensor `{name}` does not belong to this adapter; was it made with other settings?")]
    Unknown {
        /// name handed in
        name: String,
    },
    /// Another number of tensors than the model has.
    #[error("{what}: {found} tensors, expected {expected}")]
    Count {
        /// which list
        what: &'static str,
        /// length the model has
        expected: usize,
        /// length handed in
        found: usize,
    },
    /// A gradient or value is infinite or not a number.
    #[error("tensor `{name}` holds a value that is infinite or not a number; lower the learning rate or clip")]
    NotFinite {
        /// full name of the tensor
        name: String,
    },
}

impl Error {
    /// A setting's error.
    pub(crate) fn config(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Config { field: field.into(), reason: reason.into() }
    }
}
