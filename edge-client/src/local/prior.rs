//! A device's own mix of classes, taken out of what it teaches.

use ndarray::{ArrayD, IxDyn};

use crate::data::Targets;

/// What is added to each class's logit in training: `tau ln p`, with `p` the share of the class among the device's examples,
/// one more counted of each class so that none is impossible. The adapter then learns what tells the classes apart and not how often
/// this device sees them (Menon et al. 2021, "Long-tail learning via logit adjustment", eq. 10; with a client's own prior: Zhang et
/// al. 2022, "Federated learning with label distribution skew via logits calibration"). `[classes]`; nothing for other targets.
pub(super) fn logit_shift(targets: &Targets, classes: usize, tau: f32) -> Option<ArrayD<f32>> {
    let Targets::Classes(labels) = targets else { return None };
    if tau == 0.0 {
        return None;
    }
    let mut counts = vec![1.0_f32; classes];
    for &label in labels {
        counts[label] += 1.0;
    }
    let all: f32 = counts.iter().sum();
    counts.iter_mut().for_each(|count| *count = tau * (*count / all).ln());
    ArrayD::from_shape_vec(IxDyn(&[classes]), counts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_classes_are_helped_by_what_they_lack() {
        let targets = Targets::Classes(vec![0, 0, 0, 1, 0, 0]);
        let shift = logit_shift(&targets, 3, 1.0).expect("classes");
        let expected = [6.0_f32 / 9.0, 2.0 / 9.0, 1.0 / 9.0].map(f32::ln);
        assert!(shift.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{shift}");
        let half = logit_shift(&targets, 3, 0.5).expect("classes");
        assert!(half.iter().zip(&shift).all(|(a, b)| (a - 0.5 * b).abs() < 1e-6));
    }

    #[test]
    fn it_is_off_at_zero_and_for_other_targets() {
        assert!(logit_shift(&Targets::Classes(vec![0]), 2, 0.0).is_none());
        assert!(logit_shift(&Targets::Values(vec![0.5]), 1, 1.0).is_none());
    }
}
