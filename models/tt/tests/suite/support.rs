//! Random trains and matrices, and the sites of a made-up backbone.

use fedtt_tt::modes::CutModes;
use fedtt_tt::{Scalar, Site, SiteKind, TtMatrix, TtShape};
use ndarray::{Array2, Array3, ArrayD, IxDyn};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A generator for one test case.
pub(crate) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A train with values in -1..1.
pub(crate) fn random_tt<T: Scalar>(shape: &TtShape, rng: &mut ChaCha8Rng) -> TtMatrix<T> {
    let cores = shape.core_shapes().map(|dim| Array3::from_shape_simple_fn(dim, || T::of(rng.random_range(-1.0..1.0))));
    TtMatrix::from_cores(cores.collect(), shape.cut()).unwrap()
}

/// A matrix with values in -1..1.
pub(crate) fn random_matrix<T: Scalar>(rows: usize, columns: usize, rng: &mut ChaCha8Rng) -> Array2<T> {
    Array2::from_shape_simple_fn((rows, columns), || T::of(rng.random_range(-1.0..1.0)))
}

/// A tensor with values in -1..1.
pub(crate) fn random_tensor<T: Scalar>(shape: &[usize], rng: &mut ChaCha8Rng) -> ArrayD<T> {
    ArrayD::from_shape_simple_fn(IxDyn(shape), || T::of(rng.random_range(-1.0..1.0)))
}

/// Shapes of 2 to 6 cores with small modes and ranks, cut anywhere.
pub(crate) fn shapes() -> impl Strategy<Value = TtShape> {
    (2usize..=6)
        .prop_flat_map(|d| (prop::collection::vec(1usize..=4, d), prop::collection::vec(1usize..=4, d - 1), 1..d))
        .prop_map(|(modes, ranks, cut)| TtShape::new(CutModes { modes, cut }, &ranks).unwrap())
}

/// Frobenius norm.
pub(crate) fn norm<T: Scalar>(matrix: &Array2<T>) -> f64 {
    matrix.iter().map(|x| x.wide().powi(2)).sum::<f64>().sqrt()
}

/// All four kinds of site in each of `blocks` blocks of width `hidden`.
pub(crate) fn sites(blocks: usize, hidden: usize) -> Vec<Site> {
    let kinds = [SiteKind::Query, SiteKind::Value, SiteKind::Attention, SiteKind::Mlp];
    let name = |kind| match kind {
        SiteKind::Query => "query",
        SiteKind::Value => "value",
        SiteKind::Attention => "attention",
        SiteKind::Mlp => "mlp",
    };
    let all = (0..blocks).flat_map(|block| kinds.map(|kind| (block, kind)));
    all.map(|(block, kind)| Site {
        id: format!("block.{block}.{}", name(kind)),
        kind,
        block,
        input: hidden,
        output: hidden,
    })
    .collect()
}
