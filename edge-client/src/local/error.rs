//! Why a device makes nothing of a round.

use fedtt_runtime::{EngineError, SelectError};
use fedtt_wire::WireError;

use crate::data::DataError;
use crate::model::ModelError;
use crate::prepare::PrepareError;
use crate::source::SourceError;
use crate::tokenize::TokenizeError;

/// Why a device makes nothing of a round.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The plan is for another backbone.
    #[error("the plan is for backbone {wanted}, not for {found} ({name})")]
    OtherBackbone {
        /// The plan's hash.
        wanted: String,
        /// The backbone's hash.
        found: String,
        /// Where the backbone came from.
        name: String,
    },
    /// A setting of the plan cannot be used here.
    #[error("plan setting `{field}`: {reason}")]
    Setting {
        /// Where it stands in the plan.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The backbone cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No engine can be used.
    #[error(transparent)]
    Engine(#[from] SelectError),
    /// The adapted backbone cannot be loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The device's examples do not fit the plan.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The backbone's tokenizer does not serve.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    /// The global values, or what the device kept, do not fit the plan.
    #[error("{what}: {source}")]
    Values {
        /// What does not fit.
        what: &'static str,
        /// How.
        source: WireError,
    },
    /// There is nothing to train on.
    #[error("there are no examples to train on")]
    Empty,
    /// The loss is infinite or not a number.
    #[error("the loss became {loss} in step {step}; lower local.rate or clip more in the plan")]
    Diverged {
        /// The loss.
        loss: f32,
        /// Steps done before.
        step: u32,
    },
    /// A trained value is infinite or not a number.
    #[error("`{0}` became infinite or not a number; lower local.rate in the plan")]
    NotFinite(String),
    /// The board does not allow it.
    #[error("given up: {0}")]
    Board(String),
    /// The process that does the work says so, or is gone.
    #[error("{0}")]
    Workshop(String),
    /// Whoever asked for the work no longer wants it.
    #[error("stopped")]
    Stopped,
}

impl From<fedtt_tt::Error> for LocalError {
    fn from(error: fedtt_tt::Error) -> Self {
        LocalError::Model(error.into())
    }
}

impl From<EngineError> for LocalError {
    fn from(error: EngineError) -> Self {
        LocalError::Model(error.into())
    }
}

impl From<DataError> for LocalError {
    fn from(error: DataError) -> Self {
        LocalError::Prepare(error.into())
    }
}
