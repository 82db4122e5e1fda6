//! Which of the many trains of one matrix: the one nearest to a reference.
//!
//! A train stays the same matrix when an invertible A is inserted at a bond, G_i A and A^{-1} G_{i+1}. Rounding returns
//! left-orthogonal cores, whose numbers have nothing to do with the global ones: their difference would be as large as
//! the adapter itself, so that the next publication cannot be coded as a small change, moments kept by any optimiser
//! point nowhere, and the growth of all but the last core is lost. The reference here is the plain mean of the clients'
//! cores. All clients began from the same cores, so it differs from the rounded mean only in the second order of their
//! changes; brought to it, the cores move from the global ones as far as clients moved them and keep the balance of
//! norms that training gave them. With a single client, or equal ones, the result is that client's cores.

use fedtt_tt::TtMatrix;
use fedtt_tt::linalg::{Svd, svd};
use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, Slice, concatenate};

/// Singular values of the change of basis below this share of the largest are raised to it.
const CONDITION: f64 = 1e-3;

fn unfold_left(core: &Array3<f64>) -> Array2<f64> {
    let (a, k, b) = core.dim();
    core.to_shape((a * k, b)).expect("unfolding keeps the number of values").into_owned()
}

fn unfold_right(core: &Array3<f64>) -> Array2<f64> {
    let (a, k, b) = core.dim();
    core.to_shape((a, k * b)).expect("unfolding keeps the number of values").into_owned()
}

fn fold(matrix: &Array2<f64>, core: (usize, usize, usize)) -> Array3<f64> {
    matrix.to_shape(core).expect("folding keeps the number of values").into_owned()
}

/// `matrix` times a core from the left.
fn through(matrix: &Array2<f64>, core: &Array3<f64>) -> Array3<f64> {
    let (_, k, b) = core.dim();
    fold(&matrix.dot(&unfold_right(core)), (matrix.nrows(), k, b))
}

/// Orthonormal columns, extended to `count` by directions among those of `candidates` that are orthogonal to them.
fn extended(columns: Array2<f64>, candidates: ArrayView2<'_, f64>, count: usize) -> Array2<f64> {
    let missing = count.saturating_sub(columns.ncols());
    if missing == 0 {
        return columns;
    }
    let rest = &candidates - &columns.dot(&columns.t().dot(&candidates));
    let directions = svd(rest.view()).u;
    let added = directions.slice_axis(Axis(1), Slice::from(..missing));
    concatenate(Axis(1), &[columns.view(), added]).expect("both have the same number of rows")
}

/// A = U diag(s) V^T of m x n, m <= n, with m columns in both U and V, also where A is singular.
fn full(matrix: &Array2<f64>) -> (Array2<f64>, Array1<f64>, Array2<f64>) {
    let (m, n) = matrix.dim();
    let Svd { u, s, vt } = svd(matrix.view());
    let u = extended(u, Array2::eye(m).view(), m);
    let v = extended(vt.t().to_owned(), Array2::eye(n).view(), m);
    let values = Array1::from_shape_fn(m, |i| s.get(i).copied().unwrap_or(0.0));
    (u, values, v)
}

/// The orthogonal matrix nearest to a square one (Procrustes).
fn nearest_orthogonal(matrix: &Array2<f64>) -> Array2<f64> {
    let (u, _, v) = full(matrix);
    u.dot(&v.t())
}

/// B of full row rank near `basis` (m x n, m <= n), and its right inverse.
fn invertible(basis: &Array2<f64>) -> (Array2<f64>, Array2<f64>) {
    let (u, s, v) = full(basis);
    let least = if s[0] > 0.0 { s[0] * CONDITION } else { 1.0 };
    let s = s.mapv(|x| x.max(least));
    ((&u * &s).dot(&v.t()), (&v / &s).dot(&u.t()))
}

/// The cores of `train`, which is left-orthogonal and of no larger ranks, in the gauge nearest to `reference`, with its
/// ranks: `product` unchanged.
///
/// From left to right the orthonormal frame of each bond is rotated to overlap most with that of the reference's
/// left-orthogonal form; then each bond gets the change of basis that leads from that form to the reference itself.
/// Where the train has smaller rank, its frame is extended by the reference's directions with zeros in the core behind,
/// so that they can still be learnt.
pub(super) fn align(train: &TtMatrix<f64>, reference: &TtMatrix<f64>) -> Vec<Array3<f64>> {
    let frame = reference.left_orthogonal();
    let last = frame.cores().len() - 1;
    let mut aligned = Vec::with_capacity(last + 1);
    let mut core = train.cores()[0].clone();
    // At the bond left of the current core: the frames' overlap, the reference in terms of its frame, and the right
    // inverse of what is used of that.
    let mut overlap = Array2::eye(1);
    let mut basis = Array2::eye(1);
    let mut inverse = Array2::eye(1);
    for (i, frame_core) in frame.cores()[..last].iter().enumerate() {
        let (a, k, b) = frame_core.dim();
        let own_rank = core.dim().2;
        let frame_columns = unfold_left(frame_core);
        let columns = extended(unfold_left(&core), frame_columns.view(), b);

        let carried = unfold_left(&through(&overlap, frame_core));
        let rotation = nearest_orthogonal(&columns.t().dot(&carried));
        let columns = columns.dot(&rotation);
        overlap = columns.t().dot(&carried);

        basis = frame_columns.t().dot(&unfold_left(&through(&basis, &reference.cores()[i])));
        let (used, next_inverse) = invertible(&basis);
        let from_left = through(&inverse, &fold(&columns, (a, k, b)));
        let (rows, columns) = (from_left.dim().0, used.ncols());
        aligned.push(fold(&unfold_left(&from_left).dot(&used), (rows, k, columns)));
        inverse = next_inverse;

        let kept = rotation.slice_axis(Axis(0), Slice::from(..own_rank));
        core = through(&kept.t().to_owned(), &train.cores()[i + 1]);
    }
    aligned.push(through(&inverse, &core));
    aligned
}
