//! Which examples make a round's batches.

use fedtt_wire::{DeviceName, Digest};
use rand::seq::SliceRandom;
use rand::{Rng as _, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::mix::Deck;

/// Batches drawn into one pool that is sorted by length: less padding, and still every length in most pools.
const POOL: usize = 4;

/// Batches without end, every one full: from each deck its share, the deck's examples in random order, pass after pass. A device
/// with fewer examples than a batch has as many in each as it has examples.
pub(super) struct Batches<'a> {
    lengths: &'a [usize],
    size: usize,
    rng: ChaCha8Rng,
    decks: Vec<Deck>,
    /// By deck: what is left of its current pass.
    passes: Vec<Vec<usize>>,
    ready: Vec<Vec<usize>>,
}

impl<'a> Batches<'a> {
    /// Of examples of these lengths, at least one, all of them in `decks`. The same plan seed, round and device give the same
    /// batches.
    pub(super) fn new(
        lengths: &'a [usize],
        decks: Vec<Deck>,
        batch: usize,
        seed: u64,
        round: u32,
        device: &DeviceName,
    ) -> Self {
        let mut key = b"order of examples".to_vec();
        key.extend(seed.to_le_bytes());
        key.extend(round.to_le_bytes());
        key.extend(device.as_str().as_bytes());
        let rng = ChaCha8Rng::from_seed(*Digest::of(&key).bytes());
        let passes = vec![Vec::new(); decks.len()];
        Batches { lengths, size: batch.min(lengths.len()), rng, decks, passes, ready: Vec::new() }
    }

    pub(super) fn next(&mut self) -> Vec<usize> {
        if self.ready.is_empty() {
            // Passes are not mixed more than they must be: few examples are all seen before one is seen again.
            let size = self.size * (self.lengths.len() / self.size.max(1)).clamp(1, POOL);
            let mut pool = self.draw(size);
            pool.sort_by_key(|&example| self.lengths[example]);
            self.ready = pool.chunks(self.size.max(1)).map(<[usize]>::to_vec).collect();
            self.ready.shuffle(&mut self.rng);
        }
        self.ready.pop().unwrap_or_default()
    }

    /// `size` examples in random order. How many come from a deck is its share, rounded up or down at random (systematic
    /// sampling), so that the mix of a pool varies no more than it must.
    fn draw(&mut self, size: usize) -> Vec<usize> {
        if self.decks.len() == 1 {
            return (0..size).filter_map(|_| self.turn_over(0)).collect();
        }
        let offset: f64 = self.rng.random();
        let (mut deck, mut until) = (0, self.decks.first().map_or(1.0, |deck| deck.share));
        let mut pool = Vec::with_capacity(size);
        for place in 0..size {
            while (place as f64 + offset) / size as f64 >= until && deck + 1 < self.decks.len() {
                deck += 1;
                until += self.decks[deck].share;
            }
            pool.extend(self.turn_over(deck));
        }
        pool.shuffle(&mut self.rng);
        pool
    }

    /// The next example of a deck; none if it is empty.
    fn turn_over(&mut self, deck: usize) -> Option<usize> {
        let pass = &mut self.passes[deck];
        if pass.is_empty() {
            pass.clone_from(&self.decks[deck].examples);
            pass.shuffle(&mut self.rng);
        }
        pass.pop()
    }
}
