//! Row programs: chains of element-wise operators and reductions along the last axis, computed in one pass.
//!
//! Engines run each operator of such a chain over whole tensors, so that most of its time goes into writing values to memory
//! and reading them back. A [`Program`] takes some rows at a time through all its steps while they are in the cache. It is one
//! operator of a model, [`OPERATOR`] in [`DOMAIN`], which both engines run with the code here.
//!
//! All values of a program have one shape `[.., width]`, or `[.., 1]` where a row has one value; inputs are broadcast to the
//! shape that they have in common. Sums are taken in an order that depends on the width alone, so that results do not depend
//! on threads.

mod maths;
mod program;
mod run;
mod shape;
mod tile;

pub use program::{Binary, Program, ProgramError, Reduce, Source, Step, Ternary, Unary};
pub(crate) use run::output_extents;
pub use run::{Input, run};
pub use shape::{Extent, RowShape};

/// The operator set of row programs.
pub const DOMAIN: &str = "fedtt";
/// The operator: any number of float32 inputs and outputs.
pub const OPERATOR: &str = "Rows";
/// Its attribute, a program's text.
pub const PROGRAM: &str = "program";

#[cfg(test)]
mod tests;
