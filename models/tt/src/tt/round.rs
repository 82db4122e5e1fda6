//! TT-SVD and TT-rounding (Oseledets 2011, algorithms 1 and 2).

use ndarray::{Array2, ArrayView2, Axis, Slice};

use super::matrix::{fold, reshape, unfold_left, unfold_right};
use super::{TtMatrix, TtShape};
use crate::Scalar;
use crate::config::Rank;
use crate::error::{Error, Result};
use crate::linalg::{Svd, svd};
use crate::modes::CutModes;

/// How far to truncate. Both limits hold; with neither, nothing but rounding noise is cut off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Truncation {
    /// largest inner ranks
    pub rank: Option<Rank>,
    /// largest error allowed for the tolerance's part, relative to the Frobenius norm of the matrix
    pub tolerance: f64,
}

/// A truncated train.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded<T = f32> {
    /// left-orthogonal but for its last core
    pub tt: TtMatrix<T>,
    /// Frobenius norm of what was cut off
    pub error: f64,
    /// Frobenius norm of the matrix before
    pub norm: f64,
}

impl Truncation {
    /// To inner ranks of at most `rank`.
    pub fn to_rank(rank: Rank) -> Self {
        Self { rank: Some(rank), tolerance: 0.0 }
    }

    /// To a relative error of at most `tolerance`.
    pub fn to_tolerance(tolerance: f64) -> Self {
        Self { rank: None, tolerance }
    }

    fn largest(&self, bond: usize) -> usize {
        match &self.rank {
            None => usize::MAX,
            Some(Rank::Uniform(rank)) => *rank,
            Some(Rank::PerBond(ranks)) => ranks.get(bond).copied().unwrap_or(usize::MAX),
        }
    }
}

/// The leading part of a decomposition within the limits, as U and S V^T, and the square of what is cut off.
fn truncate<T: Scalar>(full: Svd<T>, largest: usize, error: f64) -> (Array2<T>, Array2<T>, f64) {
    let Svd { u, s: values, vt } = full;
    let mut keep = values.len();
    let mut discarded = 0.0;
    while keep > 1 {
        let next = discarded + values[keep - 1].wide().powi(2);
        if keep <= largest && next.sqrt() > error {
            break;
        }
        discarded = next;
        keep -= 1;
    }
    let leading = Slice::from(..keep);
    let weights = values.slice_axis(Axis(0), leading).insert_axis(Axis(1));
    let rest = vt.slice_axis(Axis(0), leading).to_owned() * weights;
    (u.slice_axis(Axis(1), leading).to_owned(), rest, discarded)
}

fn norm<T: Scalar>(values: impl Iterator<Item = T>) -> f64 {
    values.map(|x| x.wide().powi(2)).sum::<f64>().sqrt()
}

impl<T: Scalar> TtMatrix<T> {
    /// The train of a dense matrix in x out: exact up to rounding without limits, else within sqrt(d - 1) of the best
    /// train of those ranks.
    ///
    /// # Errors
    /// Modes that do not multiply to the matrix's sides at the cut.
    pub fn from_dense(matrix: ArrayView2<'_, T>, modes: &CutModes, truncation: &Truncation) -> Result<Rounded<T>> {
        let shape = TtShape::new(modes.clone(), &vec![1; modes.modes.len().saturating_sub(1)])?;
        let (modes, cut) = (shape.modes(), shape.cut());
        if (shape.rows(), shape.columns()) != matrix.dim() {
            let reason = format!("{modes:?} cut at {cut} do not multiply to {} x {}", matrix.nrows(), matrix.ncols());
            return Err(Error::config("modes", reason));
        }
        let norm = norm(matrix.iter().copied());
        let per_bond = truncation.tolerance * norm / ((modes.len() - 1) as f64).sqrt();
        let mut cores = Vec::with_capacity(modes.len());
        let mut rest = reshape(matrix.to_owned(), 1, matrix.len());
        let mut discarded = 0.0;
        for (i, &k) in modes[..modes.len() - 1].iter().enumerate() {
            let rank = rest.nrows();
            let columns = rest.ncols() / k;
            let (u, next, cut_off) =
                truncate(svd(reshape(rest, rank * k, columns).view()), truncation.largest(i), per_bond);
            cores.push(fold(u, (rank, k, next.nrows())));
            discarded += cut_off;
            rest = next;
        }
        let last = (rest.nrows(), rest.ncols(), 1);
        cores.push(fold(rest, last));
        Ok(Rounded { tt: TtMatrix::from_cores(cores, cut)?, error: discarded.sqrt(), norm })
    }

    /// The train rounded to smaller ranks: a QR sweep from the right, an SVD sweep from the left. The truncations are
    /// nested orthogonal projections, so `error` is the exact distance, not a bound, up to rounding.
    pub fn rounded(&self, truncation: &Truncation) -> Rounded<T> {
        let orthogonal = self.right_orthogonal();
        let norm = norm(orthogonal.cores()[0].iter().copied());
        let mut cores = orthogonal.cores().to_vec();
        let per_bond = truncation.tolerance * norm / ((cores.len() - 1) as f64).sqrt();
        let mut discarded = 0.0;
        for i in 0..cores.len() - 1 {
            let (a, k, _) = cores[i].dim();
            let (u, rest, cut_off) = truncate(svd(unfold_left(&cores[i])), truncation.largest(i), per_bond);
            let (_, next_k, next_b) = cores[i + 1].dim();
            let rank = u.ncols();
            cores[i + 1] = fold(rest.dot(&unfold_right(&cores[i + 1])), (rank, next_k, next_b));
            cores[i] = fold(u, (a, k, rank));
            discarded += cut_off;
        }
        let tt = TtMatrix::from_cores(cores, self.shape().cut()).expect("truncation keeps neighbouring ranks equal");
        Rounded { tt, error: discarded.sqrt(), norm }
    }
}
