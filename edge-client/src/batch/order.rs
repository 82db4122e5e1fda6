//! Which examples go together.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Batches drawn into one pool that is sorted by length: long enough for little padding, short enough for chance.
const POOL: usize = 64;

/// The length a batch is padded to: one of a short ladder, so that few shapes occur.
pub fn padded_length(longest: usize, max_length: usize) -> usize {
    let rung = (3..).flat_map(|p| [1usize << p, 3 << (p - 1)]).find(|&rung| rung >= longest);
    rung.unwrap_or(longest).min(max_length.max(longest))
}

/// One epoch: every example once, examples of like length together, batches in random order. The same seed and epoch
/// give the same order.
pub fn training_order(lengths: &[usize], batch: usize, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch as u64);
    let mut examples: Vec<usize> = (0..lengths.len()).collect();
    examples.shuffle(&mut rng);
    let mut batches = Vec::new();
    for pool in examples.chunks_mut(batch * POOL) {
        pool.sort_by_key(|&i| lengths[i]);
        batches.extend(pool.chunks(batch).map(<[usize]>::to_vec));
    }
    batches.shuffle(&mut rng);
    batches
}

/// Every example once, by length.
pub fn evaluation_order(lengths: &[usize], batch: usize) -> Vec<Vec<usize>> {
    let mut examples: Vec<usize> = (0..lengths.len()).collect();
    examples.sort_by_key(|&i| lengths[i]);
    examples.chunks(batch).map(<[usize]>::to_vec).collect()
}

/// Examples held out of training: `share` of `count`, at most `limit`, drawn by `seed`. Returns (kept, held out), each in
/// order. Fewer than twenty examples are not split.
pub fn hold_out(count: usize, share: f64, limit: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let out = ((count as f64 * share).round() as usize).min(limit);
    let mut examples: Vec<usize> = (0..count).collect();
    if out == 0 || count < 20 || out >= count {
        return (examples, Vec::new());
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::MAX);
    examples.shuffle(&mut rng);
    let mut kept = examples.split_off(out);
    examples.sort_unstable();
    kept.sort_unstable();
    (kept, examples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_climb_a_ladder() {
        let padded: Vec<usize> = [1, 8, 9, 13, 17, 40, 65, 100, 128].iter().map(|&n| padded_length(n, 128)).collect();
        assert_eq!(padded, [8, 8, 12, 16, 24, 48, 96, 128, 128]);
        assert_eq!(padded_length(70, 80), 80);
    }

    #[test]
    fn every_example_once_and_the_same_for_the_same_seed() {
        let lengths: Vec<usize> = (0..1000).map(|i| 3 + (i * 7919) % 50).collect();
        let order = training_order(&lengths, 16, 1, 0);
        let mut all: Vec<usize> = order.concat();
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
        assert_eq!(order, training_order(&lengths, 16, 1, 0));
        assert_ne!(order, training_order(&lengths, 16, 1, 1));
        assert_ne!(order, training_order(&lengths, 16, 2, 0));
    }

    #[test]
    fn held_out_examples_are_a_part_of_the_whole() {
        let (kept, out) = hold_out(100, 0.1, 500, 3);
        assert_eq!((kept.len(), out.len()), (90, 10));
        let mut all = [kept, out].concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert_eq!(hold_out(100, 0.1, 4, 3).1.len(), 4);
        assert_eq!(hold_out(19, 0.5, 500, 3).1.len(), 0);
        assert_eq!(hold_out(100, 1.0, 500, 3).1.len(), 0);
    }

    #[test]
    fn batches_hold_like_lengths() {
        let lengths: Vec<usize> = (0..2048).map(|i| 3 + (i * 7919) % 50).collect();
        let order = training_order(&lengths, 16, 1, 0);
        let padded: usize = order.iter().map(|b| b.len() * b.iter().map(|&i| lengths[i]).max().unwrap_or(0)).sum();
        let real: usize = lengths.iter().sum();
        assert!((padded as f64) < 1.1 * real as f64, "{padded} for {real}");
    }
}
