//! Trains against the dense matrices they stand for.

use fedtt_tt::config::Rank;
use fedtt_tt::linalg::{qr, svd};
use fedtt_tt::tt::Truncation;
use fedtt_tt::{TtMatrix, TtShape, modes};
use ndarray::{Array2, ArrayView2, Axis};
use proptest::prelude::*;

use crate::support::{norm, random_matrix, random_tt, rng, shapes};

/// Every entry as a product of core slices, the definition.
fn by_definition(tt: &TtMatrix<f64>) -> Array2<f64> {
    let modes = tt.shape().modes();
    Array2::from_shape_fn((tt.shape().rows(), tt.shape().columns()), |(row, column)| {
        let mut flat = row * tt.shape().columns() + column;
        let mut index = vec![0; modes.len()];
        for (i, &k) in modes.iter().enumerate().rev() {
            index[i] = flat % k;
            flat /= k;
        }
        let mut product = Array2::eye(1);
        for (core, &a) in tt.cores().iter().zip(&index) {
            product = product.dot(&core.index_axis(Axis(1), a));
        }
        product[[0, 0]]
    })
}

fn has_orthonormal_columns(matrix: ArrayView2<'_, f64>) -> bool {
    norm(&(matrix.t().dot(&matrix) - Array2::<f64>::eye(matrix.ncols()))) < 1e-12 * matrix.len() as f64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn halves_multiply_to_the_definition(shape in shapes(), seed: u64) {
        let tt = random_tt::<f64>(&shape, &mut rng(seed));
        let (left, right) = tt.halves();
        prop_assert!(left.is_standard_layout() && right.is_standard_layout());
        prop_assert_eq!(left.dim(), (shape.rows(), shape.cut_rank()));
        prop_assert_eq!(right.dim(), (shape.cut_rank(), shape.columns()));
        let expected = by_definition(&tt);
        prop_assert!(norm(&(left.dot(&right) - &expected)) <= 1e-12 * norm(&expected).max(1.0));
        prop_assert!(norm(&(tt.dense() - &expected)) <= 1e-12 * norm(&expected).max(1.0));
    }

    #[test]
    fn sums_and_multiples_are_those_of_the_matrices(shape in shapes(), seed: u64, factor in -3.0f64..3.0) {
        let rng = &mut rng(seed);
        let terms: Vec<TtMatrix<f64>> = (0..3).map(|_| random_tt(&shape, rng)).collect();
        let dense = terms.iter().fold(Array2::<f64>::zeros((shape.rows(), shape.columns())), |sum, t| sum + t.dense());
        let sum = TtMatrix::sum(&terms).unwrap();
        prop_assert!(norm(&(sum.dense() - &dense)) <= 1e-12 * norm(&dense).max(1.0));
        for (i, rank) in sum.shape().ranks().iter().enumerate().skip(1).take(shape.modes().len() - 1) {
            prop_assert_eq!(*rank, 3 * shape.ranks()[i]);
        }
        let scaled = sum.scaled(factor);
        prop_assert!(norm(&(scaled.dense() - dense * factor)) <= 1e-11 * norm(&scaled.dense()).max(1.0));
    }

    #[test]
    fn padding_and_casting_keep_the_matrix(shape in shapes(), seed: u64) {
        let tt = random_tt::<f64>(&shape, &mut rng(seed));
        let padded = tt.padded(&vec![5; shape.modes().len() - 1]);
        prop_assert!(padded.shape().ranks()[1..shape.modes().len()].iter().all(|&r| r == 5));
        prop_assert!(norm(&(padded.dense() - tt.dense())) <= 1e-12 * norm(&tt.dense()).max(1.0));
        let narrow = tt.cast::<f32>().cast::<f64>();
        prop_assert!(norm(&(narrow.dense() - tt.dense())) <= 1e-5 * norm(&tt.dense()).max(1.0));
    }

    #[test]
    fn orthogonal_forms_keep_the_matrix(shape in shapes(), seed: u64) {
        let tt = random_tt::<f64>(&shape, &mut rng(seed));
        let bound = 1e-11 * norm(&tt.dense()).max(1.0);
        let left = tt.left_orthogonal();
        prop_assert!(norm(&(left.dense() - tt.dense())) <= bound);
        for core in &left.cores()[..left.cores().len() - 1] {
            let (a, k, b) = core.dim();
            prop_assert!(has_orthonormal_columns(core.to_shape((a * k, b)).unwrap().view()));
        }
        let right = tt.right_orthogonal();
        prop_assert!(norm(&(right.dense() - tt.dense())) <= bound);
        for core in &right.cores()[1..] {
            let (a, k, b) = core.dim();
            prop_assert!(has_orthonormal_columns(core.to_shape((a, k * b)).unwrap().t()));
        }
    }

    #[test]
    fn tt_svd_is_exact_at_full_rank(rows in 1usize..40, columns in 1usize..40, seed: u64) {
        let matrix = random_matrix::<f64>(rows, columns, &mut rng(seed));
        let found = TtMatrix::from_dense(matrix.view(), &modes::automatic(rows, columns), &Truncation::default()).unwrap();
        prop_assert!(norm(&(found.tt.dense() - &matrix)) <= 1e-12 * norm(&matrix));
        prop_assert!(found.error <= 1e-12 * norm(&matrix));
        prop_assert!((found.norm - norm(&matrix)).abs() <= 1e-12 * norm(&matrix));
    }

    #[test]
    fn truncation_reports_its_exact_error(shape in shapes(), seed: u64, rank in 1usize..4, tolerance in 0.0f64..0.6) {
        let tt = random_tt::<f64>(&shape, &mut rng(seed));
        let dense = tt.dense();
        let cut = modes::CutModes { modes: shape.modes().to_vec(), cut: shape.cut() };
        for truncation in [Truncation::to_rank(Rank::Uniform(rank)), Truncation::to_tolerance(tolerance)] {
            let from_dense = TtMatrix::from_dense(dense.view(), &cut, &truncation).unwrap();
            for found in [tt.rounded(&truncation), from_dense] {
                let distance = norm(&(found.tt.dense() - &dense));
                prop_assert!((distance - found.error).abs() <= 1e-11 * norm(&dense).max(1.0));
                if truncation.rank.is_some() {
                    prop_assert!(found.tt.shape().ranks().iter().all(|&r| r <= rank));
                } else {
                    prop_assert!(distance <= tolerance * norm(&dense) + 1e-11);
                }
            }
        }
    }

    #[test]
    fn rounding_the_mean_of_equal_trains_returns_their_ranks(shape in shapes(), seed: u64) {
        let tt = random_tt::<f64>(&shape, &mut rng(seed));
        let mean = TtMatrix::sum(&[tt.clone(), tt.clone(), tt.clone()]).unwrap().scaled(1.0 / 3.0);
        let found = mean.rounded(&Truncation::default());
        for (after, before) in found.tt.shape().ranks().iter().zip(shape.ranks()) {
            prop_assert!(after <= before);
        }
        prop_assert!(norm(&(found.tt.dense() - tt.dense())) <= 1e-11 * norm(&tt.dense()).max(1.0));
    }

    #[test]
    fn if_one_core_differs_the_mean_of_products_is_the_product_of_means(shape in shapes(), seed: u64, pick: usize) {
        let rng = &mut rng(seed);
        let base = random_tt::<f64>(&shape, rng);
        let trained = pick % shape.modes().len();
        let clients: Vec<TtMatrix<f64>> = (0..4).map(|_| {
            let mut cores = base.cores().to_vec();
            cores[trained] = random_tt::<f64>(&shape, rng).cores()[trained].clone();
            TtMatrix::from_cores(cores, shape.cut()).unwrap()
        }).collect();
        let mean_of_products = clients.iter().fold(Array2::<f64>::zeros(base.dense().dim()), |sum, c| sum + c.dense()) / 4.0;
        let mut cores = base.cores().to_vec();
        cores[trained] = clients.iter().fold(cores[trained].clone() * 0.0, |sum, c| sum + &c.cores()[trained]) / 4.0;
        let product_of_means = TtMatrix::from_cores(cores, shape.cut()).unwrap().dense();
        prop_assert!(norm(&(mean_of_products - &product_of_means)) <= 1e-12 * norm(&product_of_means).max(1.0));
    }

    #[test]
    fn qr_and_svd_reproduce_the_matrix(rows in 1usize..30, columns in 1usize..30, rank in 1usize..30, seed: u64) {
        let rng = &mut rng(seed);
        let matrix = random_matrix::<f64>(rows, rank, rng).dot(&random_matrix(rank, columns, rng));
        let bound = 1e-12 * norm(&matrix);
        let (q, r) = qr(matrix.view());
        prop_assert!(has_orthonormal_columns(q.view()));
        prop_assert!(norm(&(q.dot(&r) - &matrix)) <= bound);
        prop_assert!(r.indexed_iter().all(|((i, j), &x)| i <= j || x == 0.0));
        let found = svd(matrix.view());
        prop_assert_eq!(found.s.len(), rank.min(rows).min(columns));
        prop_assert!(has_orthonormal_columns(found.u.view()) && has_orthonormal_columns(found.vt.t()));
        prop_assert!(found.s.windows(2).into_iter().all(|pair| pair[0] >= pair[1]));
        let weighted = &found.vt * &found.s.view().insert_axis(Axis(1));
        prop_assert!(norm(&(found.u.dot(&weighted) - &matrix)) <= bound);
    }
}

#[test]
fn singular_values_of_known_matrices() {
    for (rows, columns) in [(3, 5), (6, 21), (21, 6), (2, 2)] {
        let found = svd(Array2::<f64>::ones((rows, columns)).view());
        assert_eq!(found.s.len(), 1);
        assert!((found.s[0] - ((rows * columns) as f64).sqrt()).abs() < 1e-13);
    }
    let zero = svd(Array2::<f32>::zeros((4, 3)).view());
    assert_eq!((zero.s.to_vec(), zero.u.dim(), zero.vt.dim()), (vec![0.0], (4, 1), (1, 3)));
}

#[test]
fn single_precision_is_exact_to_its_own_rounding() {
    let matrix = random_matrix::<f32>(384, 64, &mut rng(1));
    let found = TtMatrix::from_dense(matrix.view(), &modes::automatic(384, 64), &Truncation::default()).unwrap();
    assert_eq!(found.tt.shape().ranks(), [1, 6, 48, 64, 8, 1]);
    assert!(norm(&(found.tt.dense() - &matrix)) <= 1e-6 * norm(&matrix));
}

#[test]
fn values_that_are_not_finite_neither_hang_nor_panic() {
    let mut matrix = Array2::<f32>::ones((8, 8));
    matrix[[3, 3]] = f32::NAN;
    matrix[[4, 4]] = f32::INFINITY;
    svd(matrix.view());
    let cut = modes::automatic(8, 8);
    assert!(TtMatrix::from_dense(matrix.view(), &cut, &Truncation::default()).is_ok());
}

#[test]
fn cores_that_do_not_fit_are_refused() {
    let shape = TtShape::new(modes::automatic(384, 64), &[5; 4]).unwrap();
    let tt = random_tt::<f32>(&shape, &mut rng(0));
    let mut cores = tt.cores().to_vec();
    cores.swap(1, 0);
    assert!(TtMatrix::from_cores(cores, 3).is_err());
    assert!(TtMatrix::from_cores(tt.cores().to_vec(), 0).is_err());
    assert!(TtMatrix::from_cores(tt.cores().to_vec(), 5).is_err());
    assert!(TtMatrix::<f32>::from_cores(Vec::new(), 0).is_err());
    assert!(TtMatrix::<f32>::sum(&[]).is_err());
}
