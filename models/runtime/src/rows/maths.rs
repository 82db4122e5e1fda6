//! Elementary functions without branches, which compilers turn into vector instructions, to about 1e-7.
//!
//! `FUSED` says whether the processor multiplies and adds at once; where it does not, asking for it is very slow.

/// a b + c.
#[inline(always)]
fn mul_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// The polynomial in x of the coefficients given, highest first.
#[inline(always)]
fn polynomial<const FUSED: bool>(x: f32, coefficients: &[f32]) -> f32 {
    coefficients[1..].iter().fold(coefficients[0], |sum, &next| mul_add::<FUSED>(sum, x, next))
}

/// e^x. (Cephes' polynomial after reduction to |r| <= ln(2)/2.)
#[inline(always)]
pub(super) fn exp<const FUSED: bool>(x: f32) -> f32 {
    const LOW: f32 = -87.336_54;
    // Beyond, 2^n would not be a finite number.
    const HIGH: f32 = 88.02;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to an integer, which the sum's lowest bits hold.
    const MAGIC: f32 = 12_582_912.0;
    let within = if x < LOW { LOW } else { x };
    let within = if within > HIGH { HIGH } else { within };
    let rounded = mul_add::<FUSED>(within, std::f32::consts::LOG2_E, MAGIC);
    let n = rounded - MAGIC;
    let r = mul_add::<FUSED>(n, -LN_2_LOW, mul_add::<FUSED>(n, -LN_2_HIGH, within));
    let p = [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0, 1.0];
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    let result = polynomial::<FUSED>(r, &p) * power;
    let result = if x < LOW { 0.0 } else { result };
    if x > HIGH { f32::INFINITY } else { result }
}

/// The complement of the error function at |x|, given e^(-x^2). (Abramowitz & Stegun 7.1.26.)
#[inline(always)]
fn erfc_of_size<const FUSED: bool>(size: f32, bell: f32) -> f32 {
    let t = 1.0 / mul_add::<FUSED>(0.327_591_1, size, 1.0);
    let p = [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6, 0.0];
    polynomial::<FUSED>(t, &p) * bell
}

/// The error function.
#[inline(always)]
pub(super) fn erf<const FUSED: bool>(x: f32) -> f32 {
    let size = x.abs();
    (1.0 - erfc_of_size::<FUSED>(size, exp::<FUSED>(-size * size))).copysign(x)
}

/// The standard normal distribution below x, and e^(-x^2/2).
#[inline(always)]
fn normal<const FUSED: bool>(x: f32) -> (f32, f32) {
    let size = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let bell = exp::<FUSED>(-size * size);
    let tail = 0.5 * erfc_of_size::<FUSED>(size, bell);
    (if x < 0.0 { tail } else { 1.0 - tail }, bell)
}

/// x/2 (1 + erf(x / sqrt(2))).
#[inline(always)]
pub(super) fn gelu<const FUSED: bool>(x: f32) -> f32 {
    x * normal::<FUSED>(x).0
}

/// The derivative of [`gelu`].
#[inline(always)]
pub(super) fn gelu_slope<const FUSED: bool>(x: f32) -> f32 {
    const INVERSE_ROOT_2_PI: f32 = 0.398_942_3;
    let (below, bell) = normal::<FUSED>(x);
    mul_add::<FUSED>(x * bell, INVERSE_ROOT_2_PI, below)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(super) fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FUSED>(-x))
}

/// The hyperbolic tangent; near 0 by its series, where 1 - 2 / (e^2x + 1) loses digits.
#[inline(always)]
pub(super) fn tanh<const FUSED: bool>(x: f32) -> f32 {
    let near = x * polynomial::<FUSED>(x * x, &[-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0]);
    let size = x.abs();
    let far = (1.0 - 2.0 / (exp::<FUSED>(2.0 * size) + 1.0)).copysign(x);
    if size < 0.125 { near } else { far }
}

/// -1, 0 or 1.
#[inline(always)]
pub(super) fn sign(x: f32) -> f32 {
    let negative = if x < 0.0 { -1.0 } else { x };
    if x > 0.0 { 1.0 } else { negative }
}

/// Numbers summed side by side: the order of a sum depends on its length alone.
const LANES: usize = 16;

/// The values reduced in [`LANES`] lanes, then those in halves.
#[inline(always)]
fn reduce(values: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = f(*lane, value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = f(*lane, value);
    }
    let mut half = LANES;
    while half > 1 {
        half /= 2;
        for lane in 0..half {
            lanes[lane] = f(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

/// The sum.
#[inline(always)]
pub(super) fn sum(values: &[f32]) -> f32 {
    reduce(values, 0.0, |a, b| a + b)
}

/// The largest.
#[inline(always)]
pub(super) fn largest(values: &[f32]) -> f32 {
    reduce(values, f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}
