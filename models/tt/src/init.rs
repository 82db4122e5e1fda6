//! Seeded start values, LoRETTA's formulae.

use ndarray::{Array1, Array2};
use rand::Rng;
use rand_distr::StandardNormal;

use crate::adapter::{Adapter, Bottleneck, Branch};
use crate::config::{AdapterConfig, HeadConfig, HeadKind, Init, Method, Rank};
use crate::error::{Error, Result};
use crate::head::Head;
use crate::linalg::qr;
use crate::linear::{Factor, Linear, Weight};
use crate::model::{HeadSize, Site};
use crate::modes::{self, CutModes};
use crate::{Scalar, TtMatrix, TtShape};

/// Largest train accepted where the dense matrix is smaller: a rank far too large for the modes.
const LARGEST_TRAIN: usize = 1 << 24;

/// What is left of `up` in a start near the identity.
const NEAR: f64 = 0.1;

/// The adapter `config` puts at `site`.
///
/// # Errors
/// Widths that the method or the given modes do not fit; errors name the setting.
pub fn adapter<T: Scalar>(config: &AdapterConfig, site: &Site, rng: &mut impl Rng) -> Result<Box<dyn Adapter<T>>> {
    if site.input == 0 || site.output == 0 {
        return Err(Error::config("sites", format!("site `{}` is {} x {}", site.id, site.input, site.output)));
    }
    if config.is_branch() {
        return Ok(Box::new(branch(config, site.input, site.output, rng)?));
    }
    if site.input != site.output {
        let reason =
            format!("site `{}` changes the width {} to {}, a bottleneck cannot", site.id, site.input, site.output);
        return Err(Error::config("sites", reason));
    }
    Ok(Box::new(bottleneck(config, site.input, rng)?))
}

/// A bottleneck adapter on `hidden`, of tensor trains or dense.
///
/// # Errors
/// Modes or ranks that do not fit the widths.
pub fn bottleneck<T: Scalar>(config: &AdapterConfig, hidden: usize, rng: &mut impl Rng) -> Result<Bottleneck<T>> {
    let width = config.bottleneck;
    let (down, mut up) = match config.method {
        Method::Dense => (dense(hidden, width, config.bias, rng), dense(width, hidden, config.bias, rng)),
        _ => {
            let up_rank = match config.tt_rank() {
                Rank::PerBond(ranks) => Rank::PerBond(modes::mirrored(&ranks)),
                uniform => uniform,
            };
            let down_modes = given_or_automatic(config.down_modes.as_deref(), hidden, width, "down_modes")?;
            let up_modes = match (&config.up_modes, &config.down_modes) {
                (Some(list), _) => given_or_automatic(Some(list), width, hidden, "up_modes")?,
                (None, Some(list)) => given_or_automatic(Some(&modes::mirrored(list)), width, hidden, "down_modes")?,
                (None, None) => modes::automatic(width, hidden),
            };
            (
                train(down_modes, &config.tt_rank(), config.bias, "rank", rng)?,
                train(up_modes, &up_rank, config.bias, "rank", rng)?,
            )
        }
    };
    start(&mut up, config.init);
    Ok(Bottleneck { down, activation: config.activation, up, scaling: config.scaling.unwrap_or(1.0) })
}

/// Takes a map as far back towards zero as `init` says.
fn start<T: Scalar>(map: &mut Linear<T>, init: Init) {
    match init {
        Init::Loretta => {}
        Init::Near => map.scale_last(T::of(NEAR)),
        Init::Identity => map.scale_last(T::zero()),
    }
}

/// A LoRA branch: A ~ U(+-1 / sqrt(in)), in x r; B = 0, r x out. A is frozen in FFA-LoRA; a tensor train stands for A B in
/// TT-LoRA; a core between two frozen ones of orthonormal columns and rows, which starts at zero, in TT-core.
///
/// # Errors
/// A list of ranks for LoRA; modes or ranks that do not fit the widths.
pub fn branch<T: Scalar>(config: &AdapterConfig, rows: usize, columns: usize, rng: &mut impl Rng) -> Result<Branch<T>> {
    if config.method == Method::TtCore {
        return core_branch(config, rows, columns, rng);
    }
    let map = if config.method == Method::TtLora {
        let modes = given_or_automatic(config.down_modes.as_deref(), rows, columns, "down_modes")?;
        let mut map = train(modes, &config.tt_rank(), false, "rank", rng)?;
        start(&mut map, config.init);
        map
    } else {
        let rank = config.matrix_rank()?;
        let limit = 1.0 / (rows as f64).sqrt();
        let a = Factor { matrix: uniform((rows, rank), limit, rng), trainable: config.method != Method::FfaLora };
        let b = Factor { matrix: Array2::zeros((rank, columns)), trainable: true };
        Linear { weight: Weight::Dense(vec![a, b]), bias: None }
    };
    let rank = map.form().factors[0].1;
    Ok(Branch { map, scaling: config.scaling.unwrap_or(16.0 / rank as f32) })
}

/// U M V with U^T U = V V^T = 1 frozen and M = 0, r x r.
fn core_branch<T: Scalar>(
    config: &AdapterConfig,
    rows: usize,
    columns: usize,
    rng: &mut impl Rng,
) -> Result<Branch<T>> {
    let rank = config.matrix_rank()?.min(rows).min(columns);
    // In double precision, so that every machine comes to the same values.
    let mut orthonormal = |size: usize| {
        let (q, _) = qr(Array2::<f64>::from_shape_simple_fn((size, rank), || normal(1.0, rng)).view());
        q.mapv(T::of)
    };
    let frozen = |matrix| Factor { matrix, trainable: false };
    let (left, right) = (orthonormal(rows), orthonormal(columns).reversed_axes());
    let core = Factor { matrix: Array2::zeros((rank, rank)), trainable: true };
    let right = frozen(right.as_standard_layout().into_owned());
    let map = Linear { weight: Weight::Dense(vec![frozen(left), core, right]), bias: None };
    Ok(Branch { map, scaling: config.scaling.unwrap_or(2.0) })
}

/// A head; its projection ~ U(+-1 / sqrt(in)) with a zero bias.
///
/// # Errors
/// Widths of 0; modes or ranks that do not fit.
pub fn head<T: Scalar>(config: &HeadConfig, size: HeadSize, rng: &mut impl Rng) -> Result<Head<T>> {
    let HeadSize { input, outputs } = size;
    if input == 0 || outputs == 0 {
        return Err(Error::config("head", format!("{input} hidden values to {outputs} outputs")));
    }
    let hidden = match config.kind {
        HeadKind::Dense => None,
        HeadKind::Tt => {
            let cut = given_or_automatic(config.modes.as_deref(), input, input, "head.modes")?;
            Some((train(cut, &config.rank, config.bias, "head.rank", rng)?, config.activation))
        }
    };
    let matrix = uniform((input, outputs), 1.0 / (input as f64).sqrt(), rng);
    let weight = Weight::Dense(vec![Factor { matrix, trainable: true }]);
    Ok(Head { hidden, out: Linear { weight, bias: config.bias.then(|| Array1::zeros(outputs)) } })
}

/// A tensor train with cores ~ N(0, 1) / sqrt(r_i) * s^(1/d), s = sqrt(1 / (in + out)), so that Var W_ij = 1 / (in + out);
/// bias ~ U(+-1 / sqrt(out)).
fn train<T: Scalar>(cut: CutModes, rank: &Rank, bias: bool, field: &str, rng: &mut impl Rng) -> Result<Linear<T>> {
    let bonds = rank.bonds(cut.modes.len(), field)?;
    let shape = TtShape::new(cut, &bonds)?;
    let (rows, columns) = (shape.rows(), shape.columns());
    if shape.parameters() > LARGEST_TRAIN.max(rows.saturating_mul(columns)) {
        let reason = format!("{bonds:?} makes {} values of a {rows} x {columns} matrix; lower it", shape.parameters());
        return Err(Error::config(field, reason));
    }
    let share = (1.0 / (rows + columns) as f64).sqrt().powf(1.0 / shape.modes().len() as f64);
    let mut tt = TtMatrix::zeros(shape);
    for core in tt.cores_mut() {
        let deviation = share / (core.dim().2 as f64).sqrt();
        core.mapv_inplace(|_| normal(deviation, rng));
    }
    Ok(Linear { weight: Weight::Tt(tt), bias: bias.then(|| bias_of(columns, rng)) })
}

/// A dense layer of the same variance: W_ij ~ N(0, 1 / (in + out)), bias ~ U(+-1 / sqrt(out)).
fn dense<T: Scalar>(rows: usize, columns: usize, bias: bool, rng: &mut impl Rng) -> Linear<T> {
    let deviation = (1.0 / (rows + columns) as f64).sqrt();
    let matrix = Array2::from_shape_simple_fn((rows, columns), || normal(deviation, rng));
    let weight = Weight::Dense(vec![Factor { matrix, trainable: true }]);
    Linear { weight, bias: bias.then(|| bias_of(columns, rng)) }
}

fn given_or_automatic(given: Option<&[usize]>, rows: usize, columns: usize, field: &str) -> Result<CutModes> {
    let Some(list) = given else { return Ok(modes::automatic(rows, columns)) };
    modes::cut(list, rows, columns).ok_or_else(|| {
        let reason = format!(
            "no cut of {list:?} gives {rows} x {columns}: a prefix must multiply to {rows} and the rest to {columns}; \
             leave it out to have modes found"
        );
        Error::config(field, reason)
    })
}

fn normal<T: Scalar>(deviation: f64, rng: &mut impl Rng) -> T {
    T::of(rng.sample::<f64, _>(StandardNormal) * deviation)
}

fn uniform<T: Scalar>(dim: (usize, usize), limit: f64, rng: &mut impl Rng) -> Array2<T> {
    Array2::from_shape_simple_fn(dim, || T::of(rng.random_range(-limit..limit)))
}

fn bias_of<T: Scalar>(columns: usize, rng: &mut impl Rng) -> Array1<T> {
    let limit = 1.0 / (columns as f64).sqrt();
    Array1::from_shape_simple_fn(columns, || T::of(rng.random_range(-limit..limit)))
}
