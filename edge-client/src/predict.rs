//! What an adapter says of single texts.

use fedtt_tt::AdapterSet;
use serde::{Serialize, Serializer};

use crate::adapter_file::AdapterHeader;
use crate::batch::{BatchShape, EncodedSet};
use crate::data::Dataset;
use crate::evaluate::{argmax, predict, softmax};
use crate::model::{AdaptedModel, ModelError};
use crate::task::TaskKind;

/// One text's result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    /// What was predicted.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What was predicted, by task.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// The most probable class and the probabilities of all, most probable first.
    Class {
        /// The most probable.
        label: String,
        /// Its probability.
        probability: f32,
        /// Of every class, most probable first.
        #[serde(serialize_with = "as_map")]
        probabilities: Vec<(String, f32)>,
    },
    /// A number.
    Value {
        /// The number.
        value: f32,
    },
    /// How surprising the text is.
    Surprise {
        /// Mean negative log-likelihood of its tokens; 0 for a text of one token.
        nats_per_token: f32,
        /// Tokens that were predicted.
        tokens: usize,
    },
}

fn as_map<S: Serializer>(pairs: &[(String, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

/// An adapter of pairs is asked about a single text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}:{line}: the adapter was trained on pairs of texts, and this is one; give the second as well")]
pub struct Unpaired {
    name: String,
    line: usize,
}

/// Whether texts are what the adapter was trained on.
///
/// # Errors
/// When that was pairs, and a text has no second.
pub fn check_pairs(header: &AdapterHeader, data: &Dataset) -> Result<(), Unpaired> {
    let single = data.examples.iter().find(|example| example.pair.is_none() && header.columns.pair.is_some());
    single.map_or(Ok(()), |example| Err(Unpaired { name: data.name.clone(), line: example.line }))
}

/// Predictions for every text of `data`, whose ids are `encoded`.
///
/// # Errors
/// When the engine fails.
pub fn predictions(
    model: &mut AdaptedModel,
    set: &AdapterSet,
    header: &AdapterHeader,
    data: &Dataset,
    encoded: &EncodedSet,
    shape: BatchShape,
) -> Result<Vec<Prediction>, ModelError> {
    let raw = predict(model, set, encoded, shape)?;
    let names = header.labels.as_ref().map(|l| l.names()).unwrap_or_default();
    let answer = |row: &[f32], tokens: usize| match header.task {
        TaskKind::Classify => {
            let best = argmax(row);
            let probabilities = softmax(row);
            let mut ranked: Vec<(String, f32)> = names.iter().cloned().zip(probabilities.iter().copied()).collect();
            ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
            Answer::Class {
                label: names.get(best).cloned().unwrap_or_default(),
                probability: probabilities.get(best).copied().unwrap_or_default(),
                probabilities: ranked,
            }
        }
        TaskKind::Regress => {
            let value = row.first().copied().unwrap_or_default();
            Answer::Value { value: header.scale.map_or(value, |s| s.unscale(value)) }
        }
        TaskKind::Lm => {
            let total = row.first().copied().unwrap_or_default();
            Answer::Surprise { nats_per_token: total / tokens.max(1) as f32, tokens }
        }
    };
    let results = data.examples.iter().zip(&raw.rows).zip(&encoded.rows).map(|((example, row), tokens)| Prediction {
        text: example.text.clone(),
        text_pair: example.pair.clone(),
        answer: answer(row, tokens.ids.len() - 1),
    });
    Ok(results.collect())
}
