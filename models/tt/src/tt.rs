//! Tensor-train matrices: plain trains of 3-way cores r_{i-1} x k_i x r_i, cut at in|out.

mod algebra;
mod matrix;
mod round;
mod shape;

pub use matrix::TtMatrix;
pub use round::{Rounded, Truncation};
pub use shape::TtShape;
