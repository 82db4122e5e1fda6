//! The table of rules, one small function per operator.

mod activation;
mod binary;
mod convolution;
mod einsum;
mod indexing;
mod layout;
mod matmul;
mod normalise;
mod quantised;
mod reduction;
mod slicing;
mod unary;

use super::call::{Call, Grads, Rule};
use super::emit;
use super::unbroadcast::unbroadcast;
use crate::ir::{Builder, Node};

/// ONNX's own operators that have a rule, in alphabetical order.
const RULES: &[(&str, Rule)] = &[
    ("Abs", unary::abs),
    ("Add", binary::add),
    ("Cast", unary::cast),
    ("CastLike", unary::cast),
    ("Clip", unary::clip),
    ("Concat", slicing::concat),
    ("Conv", convolution::conv),
    ("Cos", unary::cos),
    ("CumSum", indexing::cum_sum),
    ("Div", binary::div),
    ("Dropout", unary::dropout),
    ("Einsum", einsum::einsum),
    ("Elu", activation::elu),
    ("Erf", unary::erf),
    ("Exp", unary::exp),
    ("Expand", layout::expand),
    ("Flatten", layout::reshape),
    ("Gather", indexing::gather),
    ("GatherElements", indexing::gather_elements),
    ("GatherND", indexing::gather_nd),
    ("Gelu", activation::gelu),
    ("Gemm", matmul::gemm),
    ("HardSigmoid", activation::hard_sigmoid),
    ("HardSwish", activation::hard_swish),
    ("Identity", unary::identity),
    ("LayerNormalization", normalise::layer_normalization),
    ("LeakyRelu", activation::leaky_relu),
    ("Log", unary::log),
    ("LogSoftmax", normalise::log_softmax),
    ("MatMul", matmul::matmul),
    ("Max", binary::extremum),
    ("Mean", binary::mean),
    ("Min", binary::extremum),
    ("Mul", binary::mul),
    ("Neg", unary::neg),
    ("Pad", slicing::pad),
    ("Pow", binary::pow),
    ("Reciprocal", unary::reciprocal),
    ("ReduceL1", reduction::l1),
    ("ReduceL2", reduction::l2),
    ("ReduceLogSumExp", reduction::log_sum_exp),
    ("ReduceMax", reduction::extremum),
    ("ReduceMean", reduction::mean),
    ("ReduceMin", reduction::extremum),
    ("ReduceSum", reduction::sum),
    ("ReduceSumSquare", reduction::sum_square),
    ("Relu", activation::relu),
    ("Reshape", layout::reshape),
    ("ScatterElements", indexing::scatter_elements),
    ("ScatterND", indexing::scatter_nd),
    ("Sigmoid", unary::sigmoid),
    ("Sin", unary::sin),
    ("Slice", slicing::slice),
    ("Softmax", normalise::softmax),
    ("Softplus", activation::softplus),
    ("Softsign", activation::softsign),
    ("Split", slicing::split),
    ("Sqrt", unary::sqrt),
    ("Squeeze", layout::reshape),
    ("Sub", binary::sub),
    ("Sum", binary::sum),
    ("Tanh", unary::tanh),
    ("Tile", layout::tile),
    ("Transpose", layout::transpose),
    ("Trilu", layout::trilu),
    ("Unsqueeze", layout::reshape),
    ("Where", binary::choose),
];

/// The rule of a node's operator.
pub(crate) fn rule(node: &Node) -> Option<Rule> {
    if node.domain == "com.microsoft" && node.op == "MatMulNBits" {
        return Some(quantised::matmul_nbits);
    }
    let index = RULES.binary_search_by_key(&node.op.as_str(), |(op, _)| op).ok()?;
    node.domain.is_empty().then_some(RULES[index].1)
}

/// Names of ONNX's own operators that have a rule.
pub fn differentiable() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(op, _)| *op)
}

/// Whether the rule multiplies the cotangent by a value of the full shape, so that it may arrive with extent 1 where
/// the output has more: a reduction's gradient then needs no expansion of its own.
pub(crate) fn takes_broadcast(b: &Builder, node: &Node) -> bool {
    match node.op.as_str() {
        "Pow" => binary::constant_exponent(b, node).is_some_and(|p| p != 1.0),
        "Mul" => node.input(0) == node.input(1),
        _ => false,
    }
}
