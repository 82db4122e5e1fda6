//! Reverse-mode differentiation over ONNX nodes.
//!
//! Each operator has one rule: from the cotangents of a node's outputs, append the nodes that compute the cotangents
//! of its inputs. [`differentiate`] walks the graph backwards from given cotangents and applies the rules wherever a
//! wanted value is upstream.

mod call;
mod emit;
mod fuse;
mod path;
mod rules;
mod share;
mod support;
mod unbroadcast;

use std::collections::{HashMap, HashSet};

use crate::ir::Builder;

pub use call::{Call, Rule, VjpError};
pub use path::check;
pub use rules::differentiable;
pub use support::{Support, refusal, support};

use emit::{add, expand_to};
use path::Path;
use share::Before;

/// Appends the backward pass: given the cotangents of some values, makes those of the `wrt` values.
///
/// `seeds` pairs a value with the name of its cotangent, which has the value's type and shape; contributions to one
/// value add up. Only nodes between a `wrt` value and a seeded value are differentiated. Returns the name of each
/// `wrt` value's cotangent; a value that no seed depends on is absent. Decomposed Gelus and layer normalisations whose
/// inner values only serve themselves become one operator first, so that the forward pass is cheaper as well.
///
/// # Errors
/// Names the first node whose operator has no rule, or whose rule does not cover the form met.
pub fn differentiate(
    builder: &mut Builder,
    seeds: &[(String, String)],
    wrt: &[String],
) -> Result<HashMap<String, String>, VjpError> {
    let keep: HashSet<&str> = seeds.iter().map(|(value, _)| value).chain(wrt).map(String::as_str).collect();
    fuse::fuse(builder, &keep);
    let seeded: Vec<String> = seeds.iter().map(|(value, _)| value.clone()).collect();
    let path = Path::between(&builder.graph, &builder.facts, &seeded, wrt);
    path.check(&builder.graph)?;

    let before = Before::of(builder);
    let mut cotangents = Cotangents::default();
    for (value, cotangent) in seeds {
        cotangents.contribute(value, cotangent.clone());
    }
    for &index in path.nodes.iter().rev() {
        let node = builder.graph.nodes[index].clone();
        let Support::Rule(rule) = support(&node) else { continue };
        let broadcasts = rules::takes_broadcast(builder, &node);
        let arriving: Vec<Option<String>> =
            node.outputs.iter().map(|output| cotangents.total(builder, output, broadcasts)).collect();
        if arriving.iter().all(Option::is_none) {
            continue;
        }
        let wanted: Vec<bool> = node.inputs.iter().map(|input| path.carries_gradient(input)).collect();
        let made = rule(builder, &Call { node: &node, cotangents: &arriving, wanted: &wanted })?;
        for (input, cotangent) in node.inputs.iter().zip(made) {
            if let Some(cotangent) = cotangent {
                cotangents.contribute(input, cotangent);
            }
        }
    }

    let mut result = HashMap::new();
    for value in wrt {
        if let Some(cotangent) = cotangents.total(builder, value, false) {
            result.insert(value.clone(), cotangent);
        }
    }
    share::merge_equal_nodes(builder, &before, &mut result);
    Ok(result)
}

/// The cotangents gathered so far, each a list of contributions until it is asked for.
#[derive(Default)]
struct Cotangents {
    contributions: HashMap<String, Vec<String>>,
}

impl Cotangents {
    fn contribute(&mut self, value: &str, cotangent: String) {
        self.contributions.entry(value.to_string()).or_default().push(cotangent);
    }

    /// The sum of all contributions to `value`. A reduction's cotangent may still have extent 1 where the value has
    /// more; it is expanded unless `may_broadcast`.
    fn total(&mut self, builder: &mut Builder, value: &str, may_broadcast: bool) -> Option<String> {
        let mut parts = self.contributions.remove(value)?;
        parts.sort_by_key(|part| emit::is_narrower(builder, part, value));
        // Not one `Sum`: engines take longer over it than over as many additions.
        let mut total = parts.into_iter().reduce(|total, part| add(builder, &total, &part))?;
        if !may_broadcast && emit::is_narrower(builder, &total, value) {
            total = expand_to(builder, &total, value);
        }
        self.contributions.insert(value.to_string(), vec![total.clone()]);
        Some(total)
    }
}
