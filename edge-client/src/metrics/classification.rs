//! Accuracy, F1, Matthews and the confusion matrix.

use serde::{Deserialize, Serialize};

/// How well classes were told apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// Share of examples whose class was right.
    pub accuracy: f64,
    /// Unweighted mean of the classes' F1, over classes that occur or were predicted.
    pub macro_f1: f64,
    /// F1 over all decisions pooled; with one class per example this equals the accuracy.
    pub micro_f1: f64,
    /// Matthews correlation, in its multi-class form (R_K of Gorodkin 2004); 0 where it is undefined.
    pub matthews: f64,
    /// One entry per class, in output order.
    pub classes: Vec<ClassScore>,
    /// `confusion[t][p]`: examples of class `t` predicted as `p`.
    pub confusion: Vec<Vec<usize>>,
}

/// One class's figures; a ratio without a denominator is 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Of those predicted as this class, the share that is.
    pub precision: f64,
    /// Of those of this class, the share predicted so.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Examples of this class.
    pub support: usize,
}

impl Classification {
    /// From predicted and true classes below `classes`, of equal length.
    pub fn of(predicted: &[usize], truth: &[usize], classes: usize) -> Self {
        let mut confusion = vec![vec![0usize; classes]; classes];
        for (&p, &t) in predicted.iter().zip(truth) {
            confusion[t][p] += 1;
        }
        let row = |k: usize| confusion[k].iter().sum::<usize>();
        let column = |k: usize| confusion.iter().map(|r| r[k]).sum::<usize>();
        let right: usize = (0..classes).map(|k| confusion[k][k]).sum();
        let total = truth.len();
        let scores: Vec<ClassScore> = (0..classes)
            .map(|k| {
                let (hit, of, as_) = (confusion[k][k], row(k), column(k));
                ClassScore {
                    precision: ratio(hit, as_),
                    recall: ratio(hit, of),
                    f1: ratio(2 * hit, of + as_),
                    support: of,
                }
            })
            .collect();
        let seen: Vec<f64> = (0..classes).filter(|&k| row(k) + column(k) > 0).map(|k| scores[k].f1).collect();
        let macro_f1 = if seen.is_empty() { 0.0 } else { seen.iter().sum::<f64>() / seen.len() as f64 };
        let sum = |f: &dyn Fn(usize) -> f64| (0..classes).map(f).sum::<f64>();
        let s = total as f64;
        let covariance = right as f64 * s - sum(&|k| row(k) as f64 * column(k) as f64);
        let spread = |v: &dyn Fn(usize) -> usize| s * s - sum(&|k| (v(k) as f64).powi(2));
        let scale = (spread(&row) * spread(&column)).sqrt();
        let matthews = if scale > 0.0 { covariance / scale } else { 0.0 };
        let accuracy = ratio(right, total);
        Classification { accuracy, macro_f1, micro_f1: accuracy, matthews, classes: scores, confusion }
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::Classification;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} against {b}");
    }

    #[test]
    fn two_classes_by_hand() {
        // tp 3, fn 1, fp 2, tn 4: Matthews (12 - 2) / sqrt(5 * 4 * 6 * 5)
        let truth = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0];
        let predicted = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0];
        let m = Classification::of(&predicted, &truth, 2);
        close(m.accuracy, 0.7);
        close(m.micro_f1, 0.7);
        close(m.matthews, 10.0 / 600f64.sqrt());
        close(m.classes[1].precision, 0.6);
        close(m.classes[1].recall, 0.75);
        close(m.classes[1].f1, 2.0 / 3.0);
        close(m.classes[0].f1, 8.0 / 11.0);
        close(m.macro_f1, (2.0 / 3.0 + 8.0 / 11.0) / 2.0);
        assert_eq!(m.confusion, [[4, 2], [1, 3]]);
    }

    #[test]
    fn three_classes_by_hand() {
        // rows 3 2 1, columns 3 2 1, 4 right of 6: (4*6 - 14) / (36 - 14)
        let m = Classification::of(&[0, 0, 1, 1, 0, 2], &[0, 0, 0, 1, 1, 2], 3);
        close(m.matthews, 10.0 / 22.0);
        close(m.accuracy, 4.0 / 6.0);
        close(m.macro_f1, (2.0 / 3.0 + 0.5 + 1.0) / 3.0);
    }

    #[test]
    fn degenerate_cases_are_zero_not_nan() {
        let m = Classification::of(&[0, 0], &[0, 0], 2);
        close(m.accuracy, 1.0);
        close(m.matthews, 0.0);
        close(m.macro_f1, 1.0);
        close(Classification::of(&[], &[], 2).accuracy, 0.0);
    }
}
