//! A matrix as a tensor train: contraction to its halves and the gradients back to its cores.

use ndarray::{Array2, Array3, ArrayBase, ArrayView2, Data, Ix3};

use super::TtShape;
use crate::Scalar;
use crate::error::{Error, Result};
use crate::modes::CutModes;

/// `W[(a_1..a_c), (a_{c+1}..a_d)] = G_1[a_1] .. G_d[a_d]`, in x out. Cores are contiguous, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct TtMatrix<T = f32> {
    shape: TtShape,
    cores: Vec<Array3<T>>,
}

/// A core as r_{i-1} x (k_i r_i).
pub(super) fn unfold_right<T, S: Data<Elem = T>>(core: &ArrayBase<S, Ix3>) -> ArrayView2<'_, T> {
    let (a, k, b) = core.dim();
    core.view().into_shape_with_order((a, k * b)).expect("cores are contiguous")
}

/// A core as (r_{i-1} k_i) x r_i.
pub(super) fn unfold_left<T, S: Data<Elem = T>>(core: &ArrayBase<S, Ix3>) -> ArrayView2<'_, T> {
    let (a, k, b) = core.dim();
    core.view().into_shape_with_order((a * k, b)).expect("cores are contiguous")
}

/// The same values in row-major order as rows x columns.
pub(super) fn reshape<T: Clone>(matrix: Array2<T>, rows: usize, columns: usize) -> Array2<T> {
    matrix.into_shape_clone((rows, columns)).expect("reshaping keeps the number of values")
}

/// The same values in row-major order as a core.
pub(super) fn fold<T: Clone>(matrix: Array2<T>, core: (usize, usize, usize)) -> Array3<T> {
    matrix.into_shape_clone(core).expect("folding keeps the number of values")
}

impl<T: Scalar> TtMatrix<T> {
    /// All cores zero.
    pub fn zeros(shape: TtShape) -> Self {
        let cores = shape.core_shapes().map(Array3::zeros).collect();
        Self { shape, cores }
    }

    /// From cores, the first `cut` of them on the input side.
    ///
    /// # Errors
    /// Neighbouring ranks that differ, end ranks other than 1, no core on one side of the cut, an empty core.
    pub fn from_cores(cores: Vec<Array3<T>>, cut: usize) -> Result<Self> {
        let modes = CutModes { modes: cores.iter().map(|c| c.dim().1).collect(), cut };
        let inner: Vec<usize> = cores.iter().skip(1).map(|c| c.dim().0).collect();
        let shape = TtShape::new(modes, &inner)?;
        for (i, core) in cores.iter().enumerate() {
            if core.dim() != shape.core(i) {
                let (a, k, b) = shape.core(i);
                let (expected, found) = (vec![a, k, b], core.shape().to_vec());
                return Err(Error::Shape { name: format!("core.{i}"), expected, found });
            }
        }
        let cores =
            cores.into_iter().map(|c| if c.is_standard_layout() { c } else { c.as_standard_layout().into_owned() });
        Ok(Self { shape, cores: cores.collect() })
    }

    /// Modes, ranks and cut.
    pub fn shape(&self) -> &TtShape {
        &self.shape
    }

    /// G_1 .. G_d, each r_{i-1} x k_i x r_i.
    pub fn cores(&self) -> &[Array3<T>] {
        &self.cores
    }

    pub(crate) fn cores_mut(&mut self) -> &mut [Array3<T>] {
        &mut self.cores
    }

    /// L, in x r, and R, r x out, with W = L R and r the rank at the cut.
    pub fn halves(&self) -> (Array2<T>, Array2<T>) {
        let standard = |m: Array2<T>| if m.is_standard_layout() { m } else { m.as_standard_layout().into_owned() };
        let left = self.prefixes().pop().expect("a train has a core left of the cut");
        let right = self.suffixes().swap_remove(0);
        (standard(left), standard(right))
    }

    /// The matrix, in x out.
    pub fn dense(&self) -> Array2<T> {
        let (left, right) = self.halves();
        left.dot(&right)
    }

    /// Gradients of the cores from those of the halves: `d_left` in x r, `d_right` r x out.
    pub fn pullback(&self, d_left: ArrayView2<'_, T>, d_right: ArrayView2<'_, T>) -> Vec<Array3<T>> {
        let cut = self.shape.cut();
        let mut gradients = Vec::with_capacity(self.cores.len());

        let prefixes = self.prefixes();
        let mut upstream = d_left.to_owned();
        for i in (0..cut).rev() {
            let (a, k, b) = self.shape.core(i);
            let rows = upstream.len() / (k * b);
            let unfolded = reshape(upstream, rows, k * b);
            if i == 0 {
                gradients.push(fold(unfolded, (a, k, b)));
                break;
            }
            gradients.push(fold(prefixes[i - 1].t().dot(&unfolded), (a, k, b)));
            upstream = unfolded.dot(&unfold_right(&self.cores[i]).t());
        }
        gradients.reverse();

        let suffixes = self.suffixes();
        let mut upstream = d_right.to_owned();
        for i in cut..self.cores.len() {
            let (a, k, b) = self.shape.core(i);
            let columns = upstream.len() / (a * k);
            let unfolded = reshape(upstream, a * k, columns);
            let Some(suffix) = suffixes.get(i - cut + 1) else {
                gradients.push(fold(unfolded, (a, k, b)));
                break;
            };
            gradients.push(fold(unfolded.dot(&suffix.t()), (a, k, b)));
            upstream = unfold_left(&self.cores[i]).t().dot(&unfolded);
        }
        gradients
    }

    /// G_1 .. G_i as (k_1 .. k_i) x r_i for each i up to the cut.
    fn prefixes(&self) -> Vec<Array2<T>> {
        let mut products: Vec<Array2<T>> = Vec::with_capacity(self.shape.cut());
        for core in &self.cores[..self.shape.cut()] {
            let (_, k, b) = core.dim();
            products.push(match products.last() {
                None => unfold_left(core).to_owned(),
                Some(prefix) => reshape(prefix.dot(&unfold_right(core)), prefix.nrows() * k, b),
            });
        }
        products
    }

    /// G_i .. G_d as r_{i-1} x (k_i .. k_d) for each i from the cut on.
    fn suffixes(&self) -> Vec<Array2<T>> {
        let mut products: Vec<Array2<T>> = Vec::with_capacity(self.cores.len() - self.shape.cut());
        for core in self.cores[self.shape.cut()..].iter().rev() {
            let (a, k, _) = core.dim();
            products.push(match products.last() {
                None => unfold_right(core).to_owned(),
                Some(suffix) => reshape(unfold_left(core).dot(suffix), a, k * suffix.ncols()),
            });
        }
        products.reverse();
        products
    }
}
