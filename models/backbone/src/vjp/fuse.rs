//! Decomposed activations and normalisations put back into one operator, whose rule keeps fewer intermediates and makes
//! fewer passes over them than the rules of the parts.

use std::collections::{HashMap, HashSet};
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use super::emit::constant_scalar;
use crate::ir::{Attr, Builder, Node};

/// Fuses every Gelu (exact or tanh) and layer normalisation whose intermediate values nobody else reads; those in
/// `keep` count as read. The nodes replaced stay behind, dead, where their values are not made anew.
pub(crate) fn fuse(b: &mut Builder, keep: &HashSet<&str>) {
    let view = View::of(b, keep);
    let found = (0..b.graph.nodes.len()).filter_map(|at| {
        let node = &b.graph.nodes[at];
        match node.op.as_str() {
            "Erf" => view.gelu(node),
            "Tanh" => view.tanh_gelu(node),
            "Sqrt" => view.layer_normalization(node),
            _ => None,
        }
    });
    let found: Vec<(usize, Node)> = found.collect();
    for (last, mut node) in found {
        node.name = b.graph.nodes[last].name.clone();
        b.graph.nodes[last] = node;
    }
}

/// The graph with its readers and producers at hand.
struct View<'a> {
    b: &'a Builder,
    keep: &'a HashSet<&'a str>,
    producers: HashMap<&'a str, usize>,
    consumers: HashMap<&'a str, Vec<usize>>,
}

impl<'a> View<'a> {
    fn of(b: &'a Builder, keep: &'a HashSet<&'a str>) -> Self {
        View { b, keep, producers: b.graph.producers(), consumers: b.graph.consumers() }
    }

    fn node(&self, at: usize) -> &'a Node {
        &self.b.graph.nodes[at]
    }

    fn producer(&self, value: &str, op: &str) -> Option<&'a Node> {
        self.producers.get(value).map(|&at| self.node(at)).filter(|node| node.is(op))
    }

    /// The operator `op` that alone reads `value`, with its place.
    fn sole_reader(&self, value: &str, op: &str) -> Option<(usize, &'a Node)> {
        let [at] = self.consumers.get(value)?.as_slice() else { return None };
        let node = self.node(*at);
        (node.is(op) && !self.is_kept(value)).then_some((*at, node))
    }

    fn is_kept(&self, value: &str) -> bool {
        self.keep.contains(value) || self.b.graph.outputs.iter().any(|port| port.name == value)
    }

    fn is_constant(&self, value: &str, number: f32) -> bool {
        constant_scalar(self.b, value).is_some_and(|found| (found - number).abs() <= 1e-3 * number.abs())
    }

    /// The other operand of a commutative `op` on `value`.
    fn other(&self, node: &'a Node, value: &str) -> Option<&'a str> {
        let (x, y) = (node.input(0)?, node.input(1)?);
        if x == value { Some(y) } else { (y == value).then_some(x) }
    }

    /// The value that `value` is `number` times of.
    fn multiplied(&self, value: &str, number: f32) -> Option<&'a str> {
        let node = self.producer(value, "Mul")?;
        let (x, y) = (node.input(0)?, node.input(1)?);
        if self.is_constant(y, number) { Some(x) } else { self.is_constant(x, number).then_some(y) }
    }

    /// x/2 (1 + f), given f: the place of the node that completes the product, if `x` and 1/2 are its only factors.
    fn completed(&self, f: &str, x: &str) -> Option<usize> {
        let (mut at, sum) = self.sole_reader(f, "Add")?;
        if !self.is_constant(self.other(sum, f)?, 1.0) {
            return None;
        }
        let mut value = sum.output(0)?;
        let (mut halved, mut multiplied) = (false, false);
        while !(halved && multiplied) {
            let (next, product) = self.sole_reader(value, "Mul")?;
            let factor = self.other(product, value)?;
            if !halved && self.is_constant(factor, 0.5) {
                halved = true;
            } else if !multiplied && factor == x {
                multiplied = true;
            } else if !halved && !multiplied && self.multiplied(factor, 0.5) == Some(x) {
                (halved, multiplied) = (true, true);
            } else {
                return None;
            }
            at = next;
            value = product.output(0)?;
        }
        Some(at)
    }

    /// x/2 (1 + erf(x / sqrt(2))).
    fn gelu(&self, erf: &Node) -> Option<(usize, Node)> {
        let scaled = erf.input(0)?;
        self.sole_reader(scaled, "Erf")?;
        let divided =
            self.producer(scaled, "Div").filter(|div| div.input(1).is_some_and(|c| self.is_constant(c, SQRT_2)));
        let x = divided.and_then(|div| div.input(0)).or_else(|| self.multiplied(scaled, FRAC_1_SQRT_2))?;
        let last = self.completed(erf.output(0)?, x)?;
        Some((last, self.replacement(last, "Gelu", &[x], &[])))
    }

    /// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
    fn tanh_gelu(&self, tanh: &Node) -> Option<(usize, Node)> {
        let inner = tanh.input(0)?;
        self.sole_reader(inner, "Tanh")?;
        let sum = self.multiplied(inner, 0.797_884_6)?;
        let add = self.producer(sum, "Add")?;
        let (left, right) = (add.input(0)?, add.input(1)?);
        let cubic = |x: &'a str, part: &'a str| {
            self.multiplied(part, 0.044_715).filter(|cube| self.is_cube(cube, x)).map(|_| x)
        };
        let x = cubic(left, right).or_else(|| cubic(right, left))?;
        let last = self.completed(tanh.output(0)?, x)?;
        Some((last, self.replacement(last, "Gelu", &[x], &[("approximate", Attr::Str("tanh".into()))])))
    }

    fn is_cube(&self, value: &str, x: &str) -> bool {
        let power = self
            .producer(value, "Pow")
            .is_some_and(|pow| pow.input(0) == Some(x) && pow.input(1).is_some_and(|p| self.is_constant(p, 3.0)));
        let product = || {
            let square = self.other(self.producer(value, "Mul")?, x)?;
            let square = self.producer(square, "Mul")?;
            Some(square.input(0) == Some(x) && square.input(1) == Some(x))
        };
        power || product().unwrap_or(false)
    }

    /// gain (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) + bias over the last axis.
    fn layer_normalization(&self, sqrt: &Node) -> Option<(usize, Node)> {
        let shifted = sqrt.input(0)?;
        let add = self.producer(shifted, "Add")?;
        let (left, right) = (add.input(0)?, add.input(1)?);
        let number = |value: &'a str, other: &'a str| constant_scalar(self.b, value).map(|epsilon| (epsilon, other));
        let (epsilon, variance) = number(right, left).or_else(|| number(left, right))?;
        let square = self.mean_over_last(variance)?;
        let centred = match (self.producer(square, "Pow"), self.producer(square, "Mul")) {
            (Some(pow), _) => pow.input(0).filter(|_| pow.input(1).is_some_and(|p| self.is_constant(p, 2.0)))?,
            (_, Some(mul)) => mul.input(0).filter(|x| mul.input(1) == Some(x))?,
            _ => return None,
        };
        let sub = self.producer(centred, "Sub")?;
        let x = sub.input(0)?;
        if self.mean_over_last(sub.input(1)?)? != x || self.consumers.get(centred)?.len() != 2 {
            return None;
        }
        let (_, div) = self.sole_reader(sqrt.output(0)?, "Div")?;
        let normal = div.output(0).filter(|_| div.input(0) == Some(centred))?;
        let (_, mul) = self.sole_reader(normal, "Mul")?;
        let gain = self.other(mul, normal)?;
        let (last, add) = self.sole_reader(mul.output(0)?, "Add")?;
        let bias = self.other(add, mul.output(0)?)?;
        let width = self.b.facts.shape(x)?.last()?;
        let fits = |value| self.b.facts.shape(value).is_some_and(|dims| dims.len() == 1 && dims[0] == *width);
        let inner = [shifted, variance, square, centred, sub.input(1)?];
        if width.as_known().is_none() || !fits(gain) || !fits(bias) || inner.iter().any(|value| self.is_kept(value)) {
            return None;
        }
        let attrs = [("axis", Attr::Int(-1)), ("epsilon", Attr::Float(epsilon))];
        Some((last, self.replacement(last, "LayerNormalization", &[x, gain, bias], &attrs)))
    }

    /// What `value` is the mean of, along the last axis, which is kept.
    fn mean_over_last(&self, value: &str) -> Option<&'a str> {
        let mean = self.producer(value, "ReduceMean")?;
        let x = mean.input(0)?;
        let [axis] = self.b.facts.ints(mean.input(1)?)?[..] else { return None };
        let last = self.b.facts.rank(x)? as i64 - 1;
        ((axis == -1 || axis == last) && mean.int("keepdims").unwrap_or(1) == 1).then_some(x)
    }

    fn replacement(&self, last: usize, op: &str, inputs: &[&str], attrs: &[(&str, Attr)]) -> Node {
        Node {
            op: op.to_string(),
            inputs: inputs.iter().map(|s| s.to_string()).collect(),
            outputs: self.node(last).outputs.clone(),
            attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
            ..Node::default()
        }
    }
}
