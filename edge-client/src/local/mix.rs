//! A device's own mix of classes: what of it goes into its batches, and what is taken out of its loss.

use ndarray::{ArrayD, IxDyn};

use crate::data::Targets;

/// Examples that are drawn alike.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Deck {
    /// Their places.
    pub(super) examples: Vec<usize>,
    /// Their share of the batches; all shares sum to 1.
    pub(super) share: f64,
}

/// The classes of a device's examples and the share each is to have in its batches.
pub(super) struct Mix {
    /// By class, the empty ones included.
    classes: Vec<Deck>,
    examples: usize,
}

impl Mix {
    /// Shares in proportion to `n^(1 - balance)` for a class of n examples: with 0 as they are, with 1 all present classes alike,
    /// between them the tempered mix of long-tail learning (Mahajan et al. 2018, "Exploring the limits of weakly supervised
    /// pretraining", square root; Kang et al. 2020, "Decoupling representation and classifier", eq. 1). None for targets that
    /// are no classes.
    pub(super) fn new(targets: &Targets, classes: usize, balance: f32) -> Option<Self> {
        let Targets::Classes(labels) = targets else { return None };
        let mut decks = vec![Deck { examples: Vec::new(), share: 0.0 }; classes];
        labels.iter().enumerate().for_each(|(example, &label)| decks[label].examples.push(example));
        let exponent = 1.0 - f64::from(balance);
        for deck in decks.iter_mut().filter(|deck| !deck.examples.is_empty()) {
            deck.share = (deck.examples.len() as f64).powf(exponent);
        }
        let all: f64 = decks.iter().map(|deck| deck.share).sum();
        decks.iter_mut().for_each(|deck| deck.share /= all.max(f64::MIN_POSITIVE));
        Some(Mix { classes: decks, examples: labels.len() })
    }

    /// The classes there are examples of.
    pub(super) fn decks(self) -> Vec<Deck> {
        self.classes.into_iter().filter(|deck| !deck.examples.is_empty()).collect()
    }

    /// What is added to each class's logit in training: `tau ln p`, with `p` the share of the class in the batches, one example more
    /// counted of each class so that none is impossible. The adapter then learns what tells the classes apart and not how often
    /// this device sees them (Menon et al. 2021, "Long-tail learning via logit adjustment", eq. 10; with a client's own prior:
    /// Zhang et al. 2022, "Federated learning with label distribution skew via logits calibration"). `[classes]`; nothing with
    /// tau 0.
    pub(super) fn logit_shift(&self, tau: f32) -> Option<ArrayD<f32>> {
        if tau == 0.0 {
            return None;
        }
        let (examples, classes) = (self.examples as f64, self.classes.len() as f64);
        let shift = |deck: &Deck| tau * ((deck.share * examples + 1.0) / (examples + classes)).ln() as f32;
        ArrayD::from_shape_vec(IxDyn(&[self.classes.len()]), self.classes.iter().map(shift).collect()).ok()
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn mix(labels: &[usize], classes: usize, balance: f32) -> Mix {
        Mix::new(&Targets::Classes(labels.to_vec()), classes, balance).expect("classes")
    }

    #[test]
    fn rare_classes_are_helped_by_what_they_lack() {
        let shift = mix(&[0, 0, 0, 1, 0, 0], 3, 0.0).logit_shift(1.0).expect("classes");
        let expected = [6.0_f32 / 9.0, 2.0 / 9.0, 1.0 / 9.0].map(f32::ln);
        assert!(shift.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{shift}");
        let half = mix(&[0, 0, 0, 1, 0, 0], 3, 0.0).logit_shift(0.5).expect("classes");
        assert!(half.iter().zip(&shift).all(|(a, b)| (a - 0.5 * b).abs() < 1e-6));
    }

    #[test]
    fn what_balance_has_evened_out_needs_no_shift() {
        let shift = mix(&[0, 0, 0, 1, 0, 0], 3, 1.0).logit_shift(1.0).expect("classes");
        let expected = [4.0_f32 / 9.0, 4.0 / 9.0, 1.0 / 9.0].map(f32::ln);
        assert!(shift.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{shift}");
    }

    #[test]
    fn it_is_off_at_zero_and_for_other_targets() {
        assert!(mix(&[0], 2, 0.0).logit_shift(0.0).is_none());
        assert!(Mix::new(&Targets::Values(vec![0.5]), 1, 0.0).is_none());
    }

    #[test]
    fn shares_go_from_the_own_mix_to_an_even_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for case in 0..500 {
            let labels: Vec<usize> =
                (0..rng.random_range(1..200)).map(|_| rng.random_range(0..5) * rng.random_range(0..2)).collect();
            let balance = if case < 2 { case as f32 } else { rng.random() };
            let decks = mix(&labels, 5, balance).decks();
            let count = |deck: &Deck| deck.examples.len() as f64;
            let shares = |balance| mix(&labels, 5, balance).decks().into_iter().map(|deck| deck.share);
            assert!((shares(balance).sum::<f64>() - 1.0).abs() < 1e-9);
            assert_eq!(decks.iter().map(count).sum::<f64>(), labels.len() as f64);
            for deck in &decks {
                assert!(deck.examples.iter().all(|&example| labels[example] == labels[deck.examples[0]]));
            }
            // Two classes stand to each other as their numbers do, to the power of what balance leaves.
            for (a, b) in decks.iter().zip(&decks[1..]) {
                let ratio = (count(a) / count(b)).powf(f64::from(1.0 - balance));
                assert!((a.share / b.share / ratio - 1.0).abs() < 1e-6);
            }
            assert!(
                shares(0.0).zip(&decks).all(|(share, deck)| (share - count(deck) / labels.len() as f64).abs() < 1e-9)
            );
            assert!(shares(1.0).all(|share| (share - 1.0 / decks.len() as f64).abs() < 1e-9));
        }
    }
}
