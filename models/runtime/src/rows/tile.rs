//! One step on some rows.

use super::maths;
use super::program::{Binary, Reduce, Ternary, Unary};
use super::shape::Extent;

/// A value of a tile.
#[derive(Clone, Copy)]
pub(super) enum Operand<'a> {
    /// Row after row.
    Rows(&'a [f32]),
    /// One number for each row.
    Ones(&'a [f32]),
    /// One number for all.
    Number(f32),
}

impl<'a> Operand<'a> {
    pub(super) fn of(extent: Extent, values: &'a [f32]) -> Self {
        match extent {
            Extent::Row => Operand::Rows(values),
            Extent::One => Operand::Ones(values),
        }
    }
}

/// The operator on every number of the tile.
#[inline(always)]
pub(super) fn unary<const FUSED: bool>(op: Unary, x: Operand<'_>, out: &mut [f32]) {
    match op {
        Unary::Neg => map(x, out, |x| -x),
        Unary::Abs => map(x, out, f32::abs),
        Unary::Exp => map(x, out, maths::exp::<FUSED>),
        Unary::Erf => map(x, out, maths::erf::<FUSED>),
        Unary::Gelu => map(x, out, maths::gelu::<FUSED>),
        Unary::GeluSlope => map(x, out, maths::gelu_slope::<FUSED>),
        Unary::IsNan => map(x, out, |x| if x.is_nan() { 1.0 } else { 0.0 }),
        Unary::Reciprocal => map(x, out, |x| 1.0 / x),
        Unary::Relu => map(x, out, |x| if x < 0.0 { 0.0 } else { x }),
        Unary::Sigmoid => map(x, out, maths::sigmoid::<FUSED>),
        Unary::Sign => map(x, out, maths::sign),
        Unary::Sqrt => map(x, out, f32::sqrt),
        Unary::Tanh => map(x, out, maths::tanh::<FUSED>),
    }
}

/// The operator on the numbers of two values; one of a row's values meets all of the other's.
#[inline(always)]
pub(super) fn binary(op: Binary, a: Operand<'_>, b: Operand<'_>, width: usize, out: &mut [f32]) {
    match op {
        Binary::Add => zip(a, b, width, out, |a, b| a + b),
        Binary::Sub => zip(a, b, width, out, |a, b| a - b),
        Binary::Mul => zip(a, b, width, out, |a, b| a * b),
        Binary::Div => zip(a, b, width, out, |a, b| a / b),
        Binary::Max => zip(a, b, width, out, |a, b| if b > a || b.is_nan() { b } else { a }),
        Binary::Min => zip(a, b, width, out, |a, b| if b < a || b.is_nan() { b } else { a }),
    }
}

/// The operator on the numbers of three values.
#[inline(always)]
pub(super) fn ternary(op: Ternary, sources: [Operand<'_>; 3], width: usize, out: &mut [f32]) {
    let Ternary::Where = op;
    let choose = |condition: f32, a: f32, b: f32| if condition != 0.0 { a } else { b };
    // As where a softmax's rows are guarded.
    if let [Operand::Rows(condition), Operand::Number(a), Operand::Rows(b)] = sources {
        return zip(Operand::Rows(condition), Operand::Rows(b), width, out, |condition, b| choose(condition, a, b));
    }
    let [condition, a, b] = sources;
    for (row, out) in out.chunks_mut(width.max(1)).enumerate() {
        let [condition, a, b] = [condition, a, b].map(|value| part(value, row, width));
        for (place, out) in out.iter_mut().enumerate() {
            *out = choose(condition.at(place), a.at(place), b.at(place));
        }
    }
}

/// The reduction of every row; a row of one number is that number.
#[inline(always)]
pub(super) fn reduce(op: Reduce, x: Operand<'_>, width: usize, out: &mut [f32]) {
    let n = width as f32;
    match (op, x) {
        (Reduce::Sum, Operand::Rows(x)) => by_row(x, width, out, maths::sum),
        (Reduce::Mean, Operand::Rows(x)) => by_row(x, width, out, |row| maths::sum(row) / n),
        (Reduce::Max, Operand::Rows(x)) => by_row(x, width, out, maths::largest),
        (_, x) => map(x, out, |x| x),
    }
}

#[inline(always)]
fn by_row(x: &[f32], width: usize, out: &mut [f32], f: impl Fn(&[f32]) -> f32) {
    for (out, row) in out.iter_mut().zip(x.chunks(width.max(1))) {
        *out = f(row);
    }
}

#[inline(always)]
fn map(x: Operand<'_>, out: &mut [f32], f: impl Fn(f32) -> f32) {
    match x {
        Operand::Rows(x) | Operand::Ones(x) => {
            for (out, &x) in out.iter_mut().zip(x) {
                *out = f(x);
            }
        }
        Operand::Number(x) => out.fill(f(x)),
    }
}

#[inline(always)]
fn zip(a: Operand<'_>, b: Operand<'_>, width: usize, out: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    match (a, b) {
        (Operand::Rows(a), Operand::Rows(b)) | (Operand::Ones(a), Operand::Ones(b)) => {
            for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                *out = f(a, b);
            }
        }
        (Operand::Rows(a), Operand::Ones(b)) => {
            for ((out, a), &b) in out.chunks_mut(width).zip(a.chunks(width)).zip(b) {
                map(Operand::Rows(a), out, |a| f(a, b));
            }
        }
        (Operand::Ones(a), Operand::Rows(b)) => {
            for ((out, &a), b) in out.chunks_mut(width).zip(a).zip(b.chunks(width)) {
                map(Operand::Rows(b), out, |b| f(a, b));
            }
        }
        (a, Operand::Number(b)) => map(a, out, |a| f(a, b)),
        (Operand::Number(a), b) => map(b, out, |b| f(a, b)),
    }
}

/// A row of an operand.
#[derive(Clone, Copy)]
enum Part<'a> {
    Row(&'a [f32]),
    Number(f32),
}

impl Part<'_> {
    #[inline(always)]
    fn at(&self, place: usize) -> f32 {
        match *self {
            Part::Row(row) => row[place],
            Part::Number(number) => number,
        }
    }
}

#[inline(always)]
fn part(value: Operand<'_>, row: usize, width: usize) -> Part<'_> {
    match value {
        Operand::Rows(values) => Part::Row(&values[row * width..(row + 1) * width]),
        Operand::Ones(values) => Part::Number(values[row]),
        Operand::Number(number) => Part::Number(number),
    }
}
