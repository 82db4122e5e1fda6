//! Modes of a tensor-train matrix in x out, always with a cut exactly at in|out.
//!
//! The published lists (LoRETTA) are used where they have that cut. Those for hidden sizes 1024 and 8192 have not: no
//! prefix of `[4,8,8,8,8,4]` multiplies to 1024, nor one of `[4,16,16,16,8,4]` or `[4,4,16,16,16,16,8,8]` to 8192;
//! the published head for 5120 does not multiply to 5120 x 5120. There, and for every other size, modes are found
//! by balanced factorisation.

/// Modes and where they are cut: `modes[..cut]` multiply to in, `modes[cut..]` to out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutModes {
    /// k_1 .. k_d
    pub modes: Vec<usize>,
    /// number of modes on the input side
    pub cut: usize,
}

/// (in, out, input modes, output modes). `up` mirrors `down`.
const PUBLISHED: [(usize, usize, &[usize], &[usize]); 5] = [
    (768, 64, &[8, 8, 12], &[8, 8]),
    (4096, 64, &[16, 16, 16], &[4, 4, 4]),
    (5120, 64, &[5, 8, 8, 16], &[8, 8]),
    (768, 768, &[8, 8, 12], &[12, 8, 8]),
    (4096, 4096, &[4, 4, 16, 16], &[16, 16, 4, 4]),
];

/// The size a mode is to have, about: small modes make few parameters and long trains.
const TARGET_MODE: f64 = 8.0;

/// Modes for a matrix in x out, both at least 1: the published ones, or those of [`balanced`].
pub fn automatic(rows: usize, columns: usize) -> CutModes {
    for (from, to, left, right) in PUBLISHED {
        if (rows, columns) == (from, to) {
            return join(left.to_vec(), right.to_vec());
        }
        if (rows, columns) == (to, from) {
            return join(mirrored(right), mirrored(left));
        }
    }
    join(balanced(rows), mirrored(&balanced(columns)))
}

/// The cut of given modes for a matrix in x out; none if no prefix multiplies to in with the rest multiplying to out.
pub fn cut(modes: &[usize], rows: usize, columns: usize) -> Option<CutModes> {
    let product = |part: &[usize]| part.iter().try_fold(1usize, |p, &k| p.checked_mul(k));
    (1..modes.len())
        .find(|&at| product(&modes[..at]) == Some(rows) && product(&modes[at..]) == Some(columns))
        .map(|at| CutModes { modes: modes.to_vec(), cut: at })
}

/// The modes in reverse: those of `up` from those of `down`.
pub fn mirrored(modes: &[usize]) -> Vec<usize> {
    modes.iter().rev().copied().collect()
}

/// `n` as a product of about log_8(n) factors, ascending, of least sum; fewer where `n` has fewer prime factors. A
/// prime is its own only mode.
pub fn balanced(n: usize) -> Vec<usize> {
    let count = ((n as f64).ln() / TARGET_MODE.ln()).round().max(1.0) as usize;
    (2..=count).rev().find_map(|count| least_sum(n, count, 2)).unwrap_or_else(|| vec![n])
}

/// `count` factors of `n`, ascending, each at least `least`, of least sum.
fn least_sum(n: usize, count: usize, least: usize) -> Option<Vec<usize>> {
    if count == 1 {
        return (n >= least).then(|| vec![n]);
    }
    let mut best: Option<Vec<usize>> = None;
    let within = |k: &usize| k.checked_pow(count as u32).is_some_and(|power| power <= n);
    for factor in (least..).take_while(within).filter(|k| n.is_multiple_of(*k)) {
        let Some(rest) = least_sum(n / factor, count - 1, factor) else { continue };
        let candidate = [vec![factor], rest].concat();
        if best.as_ref().is_none_or(|b| candidate.iter().sum::<usize>() < b.iter().sum()) {
            best = Some(candidate);
        }
    }
    best
}

fn join(left: Vec<usize>, right: Vec<usize>) -> CutModes {
    CutModes { cut: left.len(), modes: [left, right].concat() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn published_lists_have_the_cut_and_up_mirrors_down() {
        for (rows, columns, left, right) in PUBLISHED {
            let modes = [left, right].concat();
            assert_eq!(cut(&modes, rows, columns).unwrap().cut, left.len());
            assert_eq!(automatic(rows, columns).modes, modes);
            assert_eq!(automatic(columns, rows).modes, mirrored(&modes));
        }
        assert_eq!(automatic(64, 4096).modes, [4, 4, 4, 16, 16, 16]);
    }

    #[test]
    fn lists_that_split_a_mode_across_the_cut_have_none() {
        assert_eq!(cut(&[4, 8, 8, 8, 8, 4], 1024, 64), None);
        assert_eq!(cut(&[4, 16, 16, 16, 8, 4], 8192, 64), None);
        assert_eq!(cut(&[4, 8, 8, 16, 8, 8, 4], 1024, 1024), None);
        assert_eq!(cut(&[4, 4, 16, 16, 16, 16, 8, 8], 8192, 8192), None);
        assert_eq!(cut(&[16, 16, 16, 4, 4, 4], 64, 4096), None);
    }

    #[test]
    fn balanced_sizes() {
        assert_eq!(balanced(384), [6, 8, 8]);
        assert_eq!(balanced(64), [8, 8]);
        assert_eq!(balanced(128), [8, 16]);
        assert_eq!(balanced(2560), [5, 8, 8, 8]);
        assert_eq!(balanced(10_007), [10_007]);
        assert_eq!(balanced(2 * 5_003), [2, 5_003]);
        assert_eq!(balanced(1), [1]);
    }

    proptest! {
        #[test]
        fn every_size_has_modes_with_the_cut(rows in 1usize..20_000, columns in 1usize..20_000) {
            let found = automatic(rows, columns);
            prop_assert_eq!(found.modes[..found.cut].iter().product::<usize>(), rows);
            prop_assert_eq!(found.modes[found.cut..].iter().product::<usize>(), columns);
            prop_assert!(found.cut >= 1 && found.cut < found.modes.len());
            prop_assert_eq!(automatic(columns, rows).modes, mirrored(&found.modes));
        }
    }
}
