//! Thin QR (Householder) and SVD (one-sided Jacobi) of the small matrices that trains unfold to.
//!
//! Written out because rank-deficient matrices are the rule here (the sum of trains that began equal), where the pure
//! Rust library at hand, nalgebra, returns wrong singular values (its issue 1172). Only +, *, / and sqrt are used in a
//! fixed order, so results are the same on every machine up to the matrix product's own.

use ndarray::{Array1, Array2, ArrayView2, Axis, Slice, Zip};

use crate::Scalar;

/// Sweeps of the Jacobi method before it is taken as converged; it needs about 10.
const SWEEPS: usize = 60;

/// A = Q R with Q m x k of orthonormal columns, R k x n upper triangular, k = min(m, n).
pub fn qr<T: Scalar>(matrix: ArrayView2<'_, T>) -> (Array2<T>, Array2<T>) {
    let (m, n) = matrix.dim();
    let k = m.min(n);
    let mut r = matrix.to_owned();
    let mut reflectors: Vec<Array1<T>> = Vec::with_capacity(k);
    for j in 0..k {
        let mut v = r.column(j).slice_axis(Axis(0), Slice::from(j..)).to_owned();
        let length = v.dot(&v).sqrt();
        let sign = if v[0] < T::zero() { -T::one() } else { T::one() };
        v[0] += sign * length;
        let norm = v.dot(&v).sqrt();
        if norm > T::zero() {
            v.mapv_inplace(|x| x / norm);
        }
        reflect(&mut r, j, &v);
        reflectors.push(v);
    }
    let mut q = Array2::from_shape_fn((m, k), |(i, j)| if i == j { T::one() } else { T::zero() });
    for (j, v) in reflectors.iter().enumerate().rev() {
        reflect(&mut q, j, v);
    }
    let upper = Array2::from_shape_fn((k, n), |(i, j)| if i <= j { r[[i, j]] } else { T::zero() });
    (q, upper)
}

/// `A[j.., ..] -= 2 v v^T A[j.., ..]`.
fn reflect<T: Scalar>(matrix: &mut Array2<T>, j: usize, v: &Array1<T>) {
    let mut rows = matrix.slice_axis_mut(Axis(0), Slice::from(j..));
    let projection = v.dot(&rows);
    for (mut row, &x) in rows.axis_iter_mut(Axis(0)).zip(v) {
        row.scaled_add(-(x + x), &projection);
    }
}

/// A = U diag(s) V^T, s descending and cut off at rounding noise: p = s.len() is the numerical rank, at least 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Svd<T> {
    /// m x p, orthonormal columns
    pub u: Array2<T>,
    /// p singular values
    pub s: Array1<T>,
    /// p x n, orthonormal rows
    pub vt: Array2<T>,
}

/// Singular value decomposition without the null space; f32 is decomposed in f64. Values that are not finite come out
/// as they fall; nothing hangs.
pub fn svd<T: Scalar>(matrix: ArrayView2<'_, T>) -> Svd<T> {
    if matrix.nrows() < matrix.ncols() {
        let Svd { u, s, vt } = svd(matrix.t());
        return Svd { u: vt.t().to_owned(), s, vt: u.t().to_owned() };
    }
    let Svd { u, s, vt } = jacobi(&matrix.mapv(T::wide), T::epsilon().wide());
    Svd { u: u.mapv(T::of), s: s.mapv(T::of), vt: vt.mapv(T::of) }
}

/// The SVD of m x n with m >= n, whose values carry a relative error of `precision`.
fn jacobi(matrix: &Array2<f64>, precision: f64) -> Svd<f64> {
    let (q, r) = qr(matrix.view());
    let (m, n) = matrix.dim();
    // Rows of `w` are the columns of R, rotated until orthogonal; rows of `v` gather the rotations: R V = W.
    let mut w = r.t().to_owned();
    let mut v: Array2<f64> = Array2::eye(n);
    let norm = w.iter().map(|x| x * x).sum::<f64>().sqrt();
    // How rounding errors grow with the length of a sum.
    let angle = f64::EPSILON * (m as f64).sqrt();
    for _ in 0..SWEEPS {
        let mut rotated = false;
        for p in 0..n {
            for q in p + 1..n {
                rotated |= orthogonalise(&mut w, &mut v, p, q, f64::EPSILON * norm, angle);
            }
        }
        if !rotated {
            break;
        }
    }
    let lengths: Vec<f64> = w.rows().into_iter().map(|row| row.dot(&row).sqrt()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| lengths[b].total_cmp(&lengths[a]));
    let cut_off = 8.0 * angle.max(precision) * norm;
    let rank = order.iter().take_while(|&&i| lengths[i] > cut_off).count();
    if rank == 0 {
        // The zero matrix: any direction will do.
        let unit = |length| Array2::from_shape_fn((length, 1), |(i, _)| if i == 0 { 1.0 } else { 0.0 });
        return Svd { u: unit(m), s: Array1::from_elem(1, lengths[order[0]]), vt: unit(n).t().to_owned() };
    }
    order.truncate(rank);
    let s: Array1<f64> = order.iter().map(|&i| lengths[i]).collect();
    let directions = w.select(Axis(0), &order) / s.view().insert_axis(Axis(1));
    Svd { u: q.dot(&directions.t()), s, vt: v.select(Axis(0), &order) }
}

/// Rotates rows `p` and `q` to be orthogonal; false if they are to within `angle`, or if one is no longer than `noise`.
fn orthogonalise(w: &mut Array2<f64>, v: &mut Array2<f64>, p: usize, q: usize, noise: f64, angle: f64) -> bool {
    let (row_p, row_q) = (w.row(p), w.row(q));
    let (pp, qq, pq) = (row_p.dot(&row_p), row_q.dot(&row_q), row_p.dot(&row_q));
    let apart = pp > noise * noise && qq > noise * noise && pq.abs() > angle * pp.sqrt() * qq.sqrt();
    if !apart {
        return false;
    }
    let zeta = (qq - pp) / (2.0 * pq);
    let tangent = 1f64.copysign(zeta) / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
    let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
    let sine = cosine * tangent;
    for matrix in [w, v] {
        let (mut before, mut from_q) = matrix.view_mut().split_at(Axis(0), q);
        Zip::from(before.row_mut(p)).and(from_q.row_mut(0)).for_each(|a, b| {
            let (x, y) = (*a, *b);
            *a = cosine * x - sine * y;
            *b = sine * x + cosine * y;
        });
    }
    true
}
