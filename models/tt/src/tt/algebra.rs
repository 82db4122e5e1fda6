//! Sums, multiples and changes of representation that keep the matrix.

use std::ops::Range;

use ndarray::{Array3, ArrayViewMut3, Slice};

use super::TtMatrix;
use super::matrix::{fold, unfold_left, unfold_right};
use crate::Scalar;
use crate::error::{Error, Result};
use crate::linalg::qr;

/// `core[rows, .., columns]`.
fn block_mut<T>(core: &mut Array3<T>, rows: Range<usize>, columns: Range<usize>) -> ArrayViewMut3<'_, T> {
    core.slice_each_axis_mut(|axis| match axis.axis.index() {
        0 => Slice::from(rows.clone()),
        1 => Slice::from(..),
        _ => Slice::from(columns.clone()),
    })
}

impl<T: Scalar> TtMatrix<T> {
    /// The sum of trains of the same modes and cut, exactly: block-diagonal cores, so that ranks add.
    ///
    /// # Errors
    /// No train, or modes or cuts that differ.
    pub fn sum(terms: &[TtMatrix<T>]) -> Result<Self> {
        let first = terms.first().ok_or(Error::Count { what: "terms of a sum", expected: 1, found: 0 })?;
        let modes = first.shape().cut_modes();
        if let Some(other) = terms.iter().find(|t| t.shape().cut_modes() != modes) {
            let (expected, found) = (modes.modes, other.shape().modes().to_vec());
            return Err(Error::Shape { name: "modes of a sum's terms".into(), expected, found });
        }
        let last = modes.modes.len() - 1;
        let cores = (0..=last).map(|i| {
            let blocks: Vec<&Array3<T>> = terms.iter().map(|t| &t.cores()[i]).collect();
            let rows = if i == 0 { 1 } else { blocks.iter().map(|b| b.dim().0).sum() };
            let columns = if i == last { 1 } else { blocks.iter().map(|b| b.dim().2).sum() };
            let mut core = Array3::zeros((rows, modes.modes[i], columns));
            let (mut row, mut column) = (0, 0);
            for block in blocks {
                let (a, _, b) = block.dim();
                block_mut(&mut core, row..row + a, column..column + b).assign(block);
                row += if i == 0 { 0 } else { a };
                column += if i == last { 0 } else { b };
            }
            core
        });
        TtMatrix::from_cores(cores.collect(), modes.cut)
    }

    /// `factor` times the matrix.
    pub fn scaled(mut self, factor: T) -> Self {
        self.cores_mut()[0].mapv_inplace(|x| x * factor);
        self
    }

    /// The same matrix with zeros added to reach the inner ranks given; a rank already larger is kept.
    pub fn padded(&self, inner_ranks: &[usize]) -> Self {
        let last = self.cores().len() - 1;
        let wanted = |bond: usize, own: usize| inner_ranks.get(bond).map_or(own, |&r| r.max(own));
        let cores = self.cores().iter().enumerate().map(|(i, core)| {
            let (a, k, b) = core.dim();
            let rows = if i == 0 { 1 } else { wanted(i - 1, a) };
            let columns = if i == last { 1 } else { wanted(i, b) };
            let mut padded = Array3::zeros((rows, k, columns));
            block_mut(&mut padded, 0..a, 0..b).assign(core);
            padded
        });
        TtMatrix::from_cores(cores.collect(), self.shape().cut()).expect("padding keeps neighbouring ranks equal")
    }

    /// The same matrix in the other float type.
    pub fn cast<U: Scalar>(&self) -> TtMatrix<U> {
        let cores = self.cores().iter().map(|core| core.mapv(|x| U::of(x.wide()))).collect();
        TtMatrix::from_cores(cores, self.shape().cut()).expect("casting keeps shapes")
    }

    /// The same matrix with every core but the last left-orthogonal: unfolded (r_{i-1} k_i) x r_i, its columns are
    /// orthonormal. Ranks larger than r_{i-1} k_i shrink to it.
    pub fn left_orthogonal(&self) -> Self {
        let mut cores = self.cores().to_vec();
        for i in 0..cores.len() - 1 {
            let (a, k, _) = cores[i].dim();
            let (q, r) = qr(unfold_left(&cores[i]));
            let (_, next_k, next_b) = cores[i + 1].dim();
            let rank = q.ncols();
            cores[i + 1] = fold(r.dot(&unfold_right(&cores[i + 1])), (rank, next_k, next_b));
            cores[i] = fold(q, (a, k, rank));
        }
        TtMatrix::from_cores(cores, self.shape().cut()).expect("QR keeps neighbouring ranks equal")
    }

    /// The same matrix with every core but the first right-orthogonal: unfolded r_{i-1} x (k_i r_i), its rows are
    /// orthonormal. Ranks larger than k_i r_i shrink to it.
    pub fn right_orthogonal(&self) -> Self {
        let mut cores = self.cores().to_vec();
        for i in (1..cores.len()).rev() {
            let (_, k, b) = cores[i].dim();
            let (q, r) = qr(unfold_right(&cores[i]).t());
            let (previous_a, previous_k, _) = cores[i - 1].dim();
            let rank = q.ncols();
            cores[i - 1] = fold(unfold_left(&cores[i - 1]).dot(&r.t()), (previous_a, previous_k, rank));
            cores[i] = fold(q.t().to_owned(), (rank, k, b));
        }
        TtMatrix::from_cores(cores, self.shape().cut()).expect("QR keeps neighbouring ranks equal")
    }
}
