//! Parts of a batch, and which of them are computed at the same time.

use std::ops::Range;

use fedtt_runtime::{Tensor, Thrift};
use ndarray::{ArrayD, Axis, Slice};

use super::Batch;

impl Batch {
    /// The parts of the batch, padding counted, those together that are computed at the same time. Those of fillers alone are left
    /// out.
    pub fn split(&self, thrift: Thrift) -> impl Iterator<Item = Vec<Batch>> {
        let (rows, length) = (self.ids.shape()[0], self.ids.shape()[1]);
        let parts = thrift.parts(rows, length);
        let filled = self.examples.len().max(1);
        let part = move |start: usize| self.part(start..(start + parts.rows).min(rows));
        let turns = (0..filled).step_by(parts.rows * parts.abreast);
        turns.map(move |turn| {
            let end = (turn + parts.rows * parts.abreast).min(filled);
            (turn..end).step_by(parts.rows).map(part).collect()
        })
    }

    fn part(&self, range: Range<usize>) -> Batch {
        let integers = |array: &ArrayD<i64>| array.slice_axis(Axis(0), Slice::from(range.clone())).to_owned();
        let tensor = |tensor: &Tensor| tensor.rows(range.clone());
        Batch {
            examples: self.examples[range.start..range.end.min(self.examples.len())].to_vec(),
            ids: integers(&self.ids),
            mask: integers(&self.mask),
            types: integers(&self.types),
            positions: integers(&self.positions),
            labels: tensor(&self.labels),
            weights: tensor(&self.weights),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchShape, EncodedSet};
    use crate::data::Targets;
    use crate::tokenize::Tokens;

    #[test]
    fn the_parts_are_the_batch_without_what_is_filler_alone() {
        let rows = (0..3).map(|i| Tokens { ids: vec![1, 10 + i, 2], types: vec![0; 3] }).collect();
        let set = EncodedSet { rows, targets: Targets::Classes(vec![0, 1, 2]) };
        let batch = set.batch(&[2, 0, 1], BatchShape { rows: 6, max_length: 8, pad_id: 0 }, 0.25);
        let split =
            |micro_batch| batch.split(Thrift { micro_batch, ..Thrift::default() }).flatten().collect::<Vec<_>>();
        let parts = split(16);
        assert_eq!(parts.iter().map(|part| part.examples.as_slice()).collect::<Vec<_>>(), [&[2, 0][..], &[1]]);
        assert!(parts.iter().all(|part| part.ids.shape() == [2, 8]), "of one shape");
        for (part, range) in parts.iter().zip([0..2, 2..4]) {
            for (of_part, whole) in
                [(&part.ids, &batch.ids), (&part.mask, &batch.mask), (&part.positions, &batch.positions)]
            {
                assert_eq!(Tensor::from(of_part.clone()), Tensor::from(whole.clone()).rows(range.clone()));
            }
            assert_eq!(part.weights, batch.weights.rows(range.clone()));
            assert_eq!(part.labels, batch.labels.rows(range));
        }
        assert_eq!(split(usize::MAX).len(), 1);
        let abreast = batch.split(Thrift { micro_batch: usize::MAX, abreast: 3, ..Thrift::default() });
        assert_eq!(
            abreast.map(|turn| turn.into_iter().map(|part| part.examples).collect()).collect::<Vec<Vec<_>>>(),
            [[[2, 0].as_slice(), &[1]]]
        );
    }
}
