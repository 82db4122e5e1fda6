//! Loss scaling: the backward pass through a float16 backbone starts from a cotangent made as large as its numbers take.
//!
//! A mean over N tokens divides what arrives at the backbone's output by N, and for some hundreds of tokens it lies below 6e-5,
//! from where float16 loses bits until nothing is left at 6e-8. No one factor suits every loss: what saves a mean over
//! thousands of tokens takes a sum beyond 65504. So the factor is made in the graph, from the cotangent itself, once it has
//! passed head and loss in single precision: its largest element becomes [`LARGEST`], whatever the weights of the loss. The
//! gradients are divided by it in single precision, as they leave the graph.

use std::collections::HashMap;

use crate::backbone::Backbone;
use crate::ir::{Attr, Builder, DType};
use crate::vjp::{VjpError, differentiate};

/// The largest element of the cotangent that enters the backbone. Above it 12 bits are left for what grows on the way down
/// (behind norms of small deviation, where blocks add up); elements 2^18 times smaller still have all their bits, such as those
/// of unlikely tokens of a vocabulary of 128 thousand.
const LARGEST: f32 = 16.0;

/// Below this the cotangent is taken for zero.
const LEAST: f32 = 1e-30;

/// Whether activations at a site have the type `dtype`.
pub(crate) fn computes_in(backbone: &Backbone, dtype: DType) -> bool {
    backbone.anatomy.sites.iter().any(|site| backbone.facts.dtype(&site.tensor) == Some(dtype))
}

/// As [`differentiate`] from `seed`, with the pass below `output`, the backbone's in single precision, scaled: the cotangents of
/// `head` (above it) and of `trained` (f32 inputs below it) are as without, those of `others` are of unknown size.
pub(super) fn differentiate_scaled(
    b: &mut Builder,
    seed: (String, String),
    output: &str,
    head: &[String],
    trained: &[String],
    others: &[String],
) -> Result<HashMap<String, String>, VjpError> {
    let above = [head, &[output.to_string()]].concat();
    let mut cotangents = differentiate(b, &[seed], &above)?;
    let Some(arriving) = cotangents.remove(output) else { return Ok(cotangents) };
    let size = largest_of(b, &arriving);
    let largest = b.scalar(LARGEST);
    let factor = b.op("Div", &[&largest, &size], &[]);
    let scaled = b.op("Mul", &[&arriving, &factor], &[]);
    let below: Vec<String> = trained.iter().filter(|name| !head.contains(name)).cloned().collect();
    let mut made = differentiate(b, &[(output.to_string(), scaled)], &[&below, others].concat())?;
    let inverse = b.op("Div", &[&size, &largest], &[]);
    for name in below {
        if let Some(gradient) = made.get_mut(&name) {
            *gradient = b.op("Mul", &[gradient, &inverse], &[]);
        }
    }
    cotangents.extend(made);
    Ok(cotangents)
}

/// The largest absolute value in `x`, a scalar of at least [`LEAST`]; without a copy of `x`, which may be logits.
fn largest_of(b: &mut Builder, x: &str) -> String {
    let whole = [("keepdims", Attr::Int(0))];
    let highest = b.op("ReduceMax", &[x], &whole);
    let lowest = b.op("ReduceMin", &[x], &whole);
    let lowest = b.op("Neg", &[&lowest], &[]);
    let least = b.scalar(LEAST);
    b.op("Max", &[&highest, &lowest, &least], &[])
}
