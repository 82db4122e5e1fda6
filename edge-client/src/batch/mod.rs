//! Rows of tokens to the tensors a graph takes.

mod micro;
mod order;

use ndarray::{Array2, ArrayD, IxDyn};

use fedtt_runtime::Tensor;

use crate::data::Targets;
use crate::tokenize::Tokens;

pub use order::{evaluation_order, hold_out, padded_length, training_order};

/// A data set ready to be batched.
#[derive(Clone, Debug)]
pub struct EncodedSet {
    /// One row per example.
    pub rows: Vec<Tokens>,
    /// What is to be predicted.
    pub targets: Targets,
}

/// What all batches of a run share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Rows of every batch; those without an example are fillers of weight 0.
    pub rows: usize,
    /// Longest row.
    pub max_length: usize,
    /// Fills rows up.
    pub pad_id: i64,
}

/// One batch, `B` rows of `S` tokens.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Indices of the examples in the first rows.
    pub examples: Vec<usize>,
    /// Token ids, `[B, S]`.
    pub ids: ArrayD<i64>,
    /// 1 for tokens, 0 for padding, `[B, S]`.
    pub mask: ArrayD<i64>,
    /// Segment of each token, `[B, S]`.
    pub types: ArrayD<i64>,
    /// Position of each token in its row, `[B, S]`.
    pub positions: ArrayD<i64>,
    /// Classes (int64 `[B]`), values (float32 `[B, 1]`) or next tokens (int64 `[B, S]`).
    pub labels: Tensor,
    /// Weights of the loss terms, float32 `[B]` or `[B, S]`.
    pub weights: Tensor,
}

impl EncodedSet {
    /// Tokens of every row.
    pub fn lengths(&self) -> Vec<usize> {
        self.rows.iter().map(|r| r.ids.len()).collect()
    }

    /// How much the given examples count in a mean loss: one each, or for language modelling one per predicted token.
    pub fn mass(&self, examples: &[usize]) -> usize {
        match self.targets {
            Targets::Text => examples.iter().map(|&i| self.rows[i].ids.len() - 1).sum(),
            Targets::Classes(_) | Targets::Values(_) => examples.len(),
        }
    }

    /// Tokens in the given examples, without padding.
    pub fn tokens(&self, examples: &[usize]) -> usize {
        examples.iter().map(|&i| self.rows[i].ids.len()).sum()
    }

    /// The examples `keep`, in that order.
    pub fn select(&self, keep: &[usize]) -> EncodedSet {
        let targets = match &self.targets {
            Targets::Classes(c) => Targets::Classes(keep.iter().map(|&i| c[i]).collect()),
            Targets::Values(v) => Targets::Values(keep.iter().map(|&i| v[i]).collect()),
            Targets::Text => Targets::Text,
        };
        EncodedSet { rows: keep.iter().map(|&i| self.rows[i].clone()).collect(), targets }
    }

    /// The batch of `examples`, at most `shape.rows` of them, each loss term weighted by `weight`.
    pub fn batch(&self, examples: &[usize], shape: BatchShape, weight: f32) -> Batch {
        let longest = examples.iter().map(|&i| self.rows[i].ids.len()).max().unwrap_or(1);
        let length = padded_length(longest, shape.max_length);
        let size = [shape.rows, length];
        let mut ids = Array2::from_elem(size, shape.pad_id);
        let mut mask = Array2::<i64>::zeros(size);
        let mut types = Array2::<i64>::zeros(size);
        let mut positions = Array2::<i64>::zeros(size);
        for (row, &example) in examples.iter().enumerate() {
            let tokens = &self.rows[example];
            for (column, (&id, &kind)) in tokens.ids.iter().zip(&tokens.types).enumerate() {
                ids[[row, column]] = id;
                mask[[row, column]] = 1;
                types[[row, column]] = kind;
            }
            for column in 0..length {
                positions[[row, column]] = column.min(tokens.ids.len() - 1) as i64;
            }
        }
        for row in examples.len()..shape.rows {
            // A row without any visible token has no softmax.
            mask[[row, 0]] = 1;
        }
        let (labels, weights) = self.targets_of(examples, size, weight);
        Batch {
            examples: examples.to_vec(),
            ids: ids.into_dyn(),
            mask: mask.into_dyn(),
            types: types.into_dyn(),
            positions: positions.into_dyn(),
            labels,
            weights,
        }
    }

    /// Labels and weights.
    fn targets_of(&self, examples: &[usize], [rows, length]: [usize; 2], weight: f32) -> (Tensor, Tensor) {
        let mut weights = ArrayD::<f32>::zeros(IxDyn(&[rows]));
        for row in 0..examples.len() {
            weights[[row]] = weight;
        }
        match &self.targets {
            Targets::Classes(classes) => {
                let mut labels = ArrayD::<i64>::zeros(IxDyn(&[rows]));
                for (row, &example) in examples.iter().enumerate() {
                    labels[[row]] = classes[example] as i64;
                }
                (Tensor::I64(labels), Tensor::F32(weights))
            }
            Targets::Values(values) => {
                let mut labels = ArrayD::<f32>::zeros(IxDyn(&[rows, 1]));
                for (row, &example) in examples.iter().enumerate() {
                    labels[[row, 0]] = values[example];
                }
                (Tensor::F32(labels), Tensor::F32(weights))
            }
            Targets::Text => {
                let mut labels = ArrayD::<i64>::zeros(IxDyn(&[rows, length]));
                let mut weights = ArrayD::<f32>::zeros(IxDyn(&[rows, length]));
                for (row, &example) in examples.iter().enumerate() {
                    for (column, &next) in self.rows[example].ids.iter().skip(1).enumerate() {
                        labels[[row, column]] = next;
                        weights[[row, column]] = weight;
                    }
                }
                (Tensor::I64(labels), Tensor::F32(weights))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ndarray::array;

    fn set(targets: Targets) -> EncodedSet {
        let row = |ids: &[i64]| Tokens { ids: ids.to_vec(), types: vec![0; ids.len()] };
        EncodedSet { rows: vec![row(&[1, 5, 2]), row(&[1, 6, 7, 8, 2])], targets }
    }

    const SHAPE: BatchShape = BatchShape { rows: 3, max_length: 6, pad_id: 9 };

    #[test]
    fn rows_are_filled_up_and_fillers_weigh_nothing() {
        let batch = set(Targets::Classes(vec![1, 0])).batch(&[1, 0], SHAPE, 0.5);
        let ids = array![[1, 6, 7, 8, 2, 9], [1, 5, 2, 9, 9, 9], [9, 9, 9, 9, 9, 9]].into_dyn();
        assert_eq!(batch.ids, ids);
        let mask = array![[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]].into_dyn();
        assert_eq!(batch.mask, mask);
        let positions = array![[0, 1, 2, 3, 4, 4], [0, 1, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0]].into_dyn();
        assert_eq!(batch.positions, positions);
        assert_eq!(batch.labels, Tensor::I64(array![0, 1, 0].into_dyn()));
        assert_eq!(batch.weights, Tensor::F32(array![0.5, 0.5, 0.0].into_dyn()));
    }

    #[test]
    fn language_targets_are_the_next_tokens() {
        let set = set(Targets::Text);
        let batch = set.batch(&[0], SHAPE, 0.5);
        assert_eq!(batch.labels.as_i64().unwrap().row0(), [5, 2, 0, 0, 0, 0]);
        assert_eq!(batch.weights.as_f32().unwrap().row0(), [0.5, 0.5, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(set.mass(&[0, 1]), 6);
    }

    #[test]
    fn values_stand_in_a_column() {
        let batch = set(Targets::Values(vec![0.25, -1.0])).batch(&[0, 1], SHAPE, 1.0);
        assert_eq!(batch.labels, Tensor::F32(array![[0.25], [-1.0], [0.0]].into_dyn()));
    }

    trait Row0<T> {
        fn row0(&self) -> Vec<T>;
    }

    impl<T: Clone> Row0<T> for ArrayD<T> {
        fn row0(&self) -> Vec<T> {
            self.index_axis(ndarray::Axis(0), 0).iter().cloned().collect()
        }
    }
}
