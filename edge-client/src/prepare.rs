//! Files to encoded examples.

use sha2::{Digest, Sha256};

use crate::batch::EncodedSet;
use crate::data::{DataError, Dataset, Labels, Targets};
use crate::evaluate::TargetScale;
use crate::task::TaskKind;
use crate::tokenize::{TextEncoder, TokenizeError};

/// Why a data set cannot be fed to a backbone.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Labels are missing or not understood.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A text cannot be encoded.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    /// A token is beyond the backbone's vocabulary.
    #[error("token id {id} in {name} is beyond the backbone's vocabulary of {vocabulary}; is this its tokenizer?")]
    Vocabulary {
        /// The file.
        name: String,
        /// The token.
        id: i64,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// No text is long enough to predict a token of.
    #[error("{name} holds no text of two tokens or more")]
    NothingToPredict {
        /// The file.
        name: String,
    },
}

/// What examples are turned into ids and targets with.
#[derive(Clone, Copy, Debug)]
pub struct Encoding<'a> {
    /// Texts to ids.
    pub encoder: &'a TextEncoder,
    /// Size of the backbone's vocabulary, where it is known.
    pub vocabulary: Option<usize>,
    /// What is learnt.
    pub task: TaskKind,
    /// Classes, for classification.
    pub labels: Option<&'a Labels>,
    /// Scale of the targets, for regression.
    pub scale: Option<TargetScale>,
}

impl Encoding<'_> {
    /// Ids and targets of every example.
    ///
    /// # Errors
    /// When a text or a label does not fit.
    pub fn labelled(&self, data: &Dataset) -> Result<EncodedSet, PrepareError> {
        let targets = match (self.task, self.labels) {
            (TaskKind::Lm, _) => Targets::Text,
            (TaskKind::Classify, Some(labels)) => labels.classes(data)?,
            (TaskKind::Classify, None) => Labels::collect(data)?.classes(data)?,
            (TaskKind::Regress, _) => match Targets::values(data)? {
                Targets::Values(values) => {
                    let scale = |v| self.scale.map_or(v, |s| s.scale(v));
                    Targets::Values(values.into_iter().map(scale).collect())
                }
                other => other,
            },
        };
        self.encode(data, targets)
    }

    /// Ids alone, for prediction: the targets are placeholders. For language modelling each text is one row.
    ///
    /// # Errors
    /// When a text does not fit.
    pub fn bare(&self, data: &Dataset) -> Result<EncodedSet, PrepareError> {
        let targets = match self.task {
            TaskKind::Classify => Targets::Classes(vec![0; data.examples.len()]),
            TaskKind::Regress => Targets::Values(vec![0.0; data.examples.len()]),
            TaskKind::Lm => {
                let set = EncodedSet { rows: self.encoder.rows(data)?, targets: Targets::Text };
                return self.checked(data, set);
            }
        };
        self.encode(data, targets)
    }

    fn encode(&self, data: &Dataset, targets: Targets) -> Result<EncodedSet, PrepareError> {
        let rows = if self.task == TaskKind::Lm { self.encoder.windows(data)? } else { self.encoder.rows(data)? };
        if rows.is_empty() {
            return Err(PrepareError::NothingToPredict { name: data.name.clone() });
        }
        self.checked(data, EncodedSet { rows, targets })
    }

    fn checked(&self, data: &Dataset, set: EncodedSet) -> Result<EncodedSet, PrepareError> {
        let Some(vocabulary) = self.vocabulary else { return Ok(set) };
        let beyond = set.rows.iter().flat_map(|r| &r.ids).find(|&&id| id >= vocabulary as i64);
        match beyond {
            Some(&id) => Err(PrepareError::Vocabulary { name: data.name.clone(), id, vocabulary }),
            None => Ok(set),
        }
    }
}

impl EncodedSet {
    /// A hash of every id and target.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for row in &self.rows {
            hash.update((row.ids.len() as u64).to_le_bytes());
            row.ids.iter().chain(&row.types).for_each(|id| hash.update(id.to_le_bytes()));
        }
        match &self.targets {
            Targets::Classes(classes) => classes.iter().for_each(|&c| hash.update((c as u64).to_le_bytes())),
            Targets::Values(values) => values.iter().for_each(|v| hash.update(v.to_le_bytes())),
            Targets::Text => {}
        }
        fedtt_wire::Digest::from(<[u8; 32]>::from(hash.finalize())).to_string()
    }
}
