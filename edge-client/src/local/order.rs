//! Which examples make a round's batches.

use fedtt_wire::{DeviceName, Digest};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Batches drawn into one pool that is sorted by length: less padding, and still every length in most pools.
const POOL: usize = 4;

/// Batches without end: the examples in random order, pass after pass, every batch full. A device with fewer examples than a
/// batch has all of them in each.
pub(super) struct Batches<'a> {
    lengths: &'a [usize],
    size: usize,
    rng: ChaCha8Rng,
    /// What is left of the current pass.
    pass: Vec<usize>,
    ready: Vec<Vec<usize>>,
}

impl<'a> Batches<'a> {
    /// Of examples of these lengths, at least one. The same plan seed, round and device give the same batches.
    pub(super) fn new(lengths: &'a [usize], batch: usize, seed: u64, round: u32, device: &DeviceName) -> Self {
        let mut key = b"order of examples".to_vec();
        key.extend(seed.to_le_bytes());
        key.extend(round.to_le_bytes());
        key.extend(device.as_str().as_bytes());
        let rng = ChaCha8Rng::from_seed(*Digest::of(&key).bytes());
        Batches { lengths, size: batch.min(lengths.len()), rng, pass: Vec::new(), ready: Vec::new() }
    }

    pub(super) fn next(&mut self) -> Vec<usize> {
        if self.ready.is_empty() {
            // Passes are not mixed more than they must be: few examples are all seen before one is seen again.
            let size = self.size * (self.lengths.len() / self.size.max(1)).clamp(1, POOL);
            let mut pool = Vec::with_capacity(size);
            while pool.len() < size {
                if self.pass.is_empty() {
                    self.pass = (0..self.lengths.len()).collect();
                    self.pass.shuffle(&mut self.rng);
                }
                pool.extend(self.pass.pop());
            }
            pool.sort_by_key(|&example| self.lengths[example]);
            self.ready = pool.chunks(self.size.max(1)).map(<[usize]>::to_vec).collect();
            self.ready.shuffle(&mut self.rng);
        }
        self.ready.pop().unwrap_or_default()
    }
}
