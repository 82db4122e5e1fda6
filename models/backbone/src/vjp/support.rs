//! What is known of each operator: a rule, no gradient by nature, or a reason to refuse it.

use super::call::Rule;
use super::rules::rule;
use crate::ir::Node;

/// How an operator takes part in differentiation.
pub enum Support {
    /// It has a rule.
    Rule(Rule),
    /// Its outputs are integers, booleans, or piecewise constant: gradients end there.
    Stops,
    /// It cannot be differentiated; the text says what to do.
    Refused(&'static str),
}

/// How `node`'s operator takes part in differentiation.
pub fn support(node: &Node) -> Support {
    if let Some(rule) = rule(node) {
        return Support::Rule(rule);
    }
    if node.domain.is_empty() && STOPS.contains(&node.op.as_str()) {
        return Support::Stops;
    }
    Support::Refused(refusal(node).unwrap_or(UNKNOWN))
}

/// Why a node's operator is refused wherever a gradient must pass, for operators known to stand for a form of export
/// that cannot be fine-tuned; `None` for all others.
pub fn refusal(node: &Node) -> Option<&'static str> {
    let op = node.op.as_str();
    if op == "MatMulNBits" {
        return None;
    }
    if computes_quantised(node) {
        return Some(QUANTISED_ADVICE);
    }
    if CONTROL_FLOW.contains(&op) && node.domain.is_empty() {
        return Some(CONTROL_FLOW_ADVICE);
    }
    let fused_here = FUSED.contains(&op) || op.starts_with("Fused");
    if node.domain.starts_with("com.microsoft") || fused_here {
        return Some(FUSED_ADVICE);
    }
    (!node.domain.is_empty()).then_some(FOREIGN_ADVICE)
}

/// Whether a node's integers stand for real numbers, so that a gradient would have to pass through them.
pub(crate) fn computes_quantised(node: &Node) -> bool {
    let op = node.op.as_str();
    op.starts_with("QLinear") || op.starts_with("DynamicQuantize") || QUANTISED.contains(&op)
}

const STOPS: &[&str] = &[
    "And",
    "ArgMax",
    "ArgMin",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Ceil",
    "ConstantOfShape",
    "Equal",
    "EyeLike",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "IsInf",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "NonZero",
    "Not",
    "OneHot",
    "Or",
    "RandomNormalLike",
    "RandomUniformLike",
    "Range",
    "Round",
    "Shape",
    "Sign",
    "Size",
    "Xor",
];

const QUANTISED: &[&str] = &[
    "ConvInteger",
    "DequantizeLinear",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QAttention",
    "QGemm",
    "QuantizeLinear",
];
const QUANTISED_ADVICE: &str = "it computes with quantised activations, which have no useful gradient; use the float \
    model or weight-only quantisation (DequantizeLinear on the weights, or MatMulNBits)";

const CONTROL_FLOW: &[&str] = &["If", "Loop", "Scan", "SequenceMap"];
const CONTROL_FLOW_ADVICE: &str =
    "gradients do not pass through control flow; re-export the model so that the branch is resolved at export";

const FUSED: &[&str] = &[
    "Attention",
    "BiasGelu",
    "EmbedLayerNormalization",
    "FastGelu",
    "GroupQueryAttention",
    "MultiHeadAttention",
    "QuickGelu",
    "RotaryEmbedding",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];
const FUSED_ADVICE: &str = "it is a fused operator, which has no rule; export without fusion (leave out \
    onnxruntime.transformers.optimizer and ONNX Runtime's optimised-model output), so that the graph holds plain ONNX \
    operators";

const FOREIGN_ADVICE: &str = "it is not one of ONNX's own operators; re-export the model to plain ONNX operators";
const UNKNOWN: &str = "it has no rule; re-export the model without it, or place the adapters above it (fewer blocks)";
