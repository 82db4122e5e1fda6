//! Which rule speaks for which operator.

use fedtt_runtime::rows::{DOMAIN, OPERATOR};

use super::context::{Context, Rule};
use super::{
    Fact, Facts, compose, convolution, elementwise, index, linear, movement, programs, reductions, reshape, slice,
};
use crate::ir::Node;

pub(super) fn infer(facts: &Facts, node: &Node) -> Option<Vec<Fact>> {
    rule(node)?(&Context { facts, node })
}

/// Whether anything can be told of what `node` makes.
pub(crate) fn has_rule(node: &Node) -> bool {
    node.is("If") || rule(node).is_some()
}

fn rule(node: &Node) -> Option<Rule> {
    match node.domain.as_str() {
        "" | "ai.onnx" => standard(&node.op),
        "com.microsoft" => microsoft(&node.op),
        DOMAIN if node.op == OPERATOR => Some(programs::rows),
        _ => None,
    }
}

fn standard(op: &str) -> Option<Rule> {
    Some(match op {
        "Identity" | "Abs" | "Neg" | "Sign" | "Not" | "Floor" | "Ceil" | "Round" => elementwise::unary,
        "Acos"
        | "Acosh"
        | "Asin"
        | "Asinh"
        | "Atan"
        | "Atanh"
        | "BitwiseNot"
        | "Celu"
        | "Cos"
        | "Cosh"
        | "CumSum"
        | "Elu"
        | "Erf"
        | "Exp"
        | "Gelu"
        | "HardSigmoid"
        | "HardSwish"
        | "Hardmax"
        | "LeakyRelu"
        | "Log"
        | "LogSoftmax"
        | "LpNormalization"
        | "Mish"
        | "PRelu"
        | "Reciprocal"
        | "Relu"
        | "ReverseSequence"
        | "Selu"
        | "Shrink"
        | "Sigmoid"
        | "Sin"
        | "Sinh"
        | "Softmax"
        | "Softplus"
        | "Softsign"
        | "Sqrt"
        | "Tan"
        | "Tanh"
        | "ThresholdedRelu"
        | "Trilu"
        | "Scatter"
        | "ScatterElements"
        | "ScatterND"
        | "GroupNormalization"
        | "InstanceNormalization" => elementwise::like_first,
        "RandomNormalLike" | "RandomUniformLike" | "EyeLike" | "Bernoulli" => elementwise::like_first_typed,
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "BitShift" => {
            elementwise::arithmetic
        }
        "Min" | "Max" | "Sum" | "Mean" => elementwise::variadic,
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "And" | "Or" | "Xor" => elementwise::compare,
        "IsNaN" | "IsInf" => elementwise::predicate,
        "Where" => elementwise::choose,
        "Clip" => elementwise::clip,
        "Cast" | "CastLike" => elementwise::cast,
        "Dropout" => elementwise::dropout,
        "Shape" => compose::shape,
        "Size" => compose::size,
        "Range" => compose::range,
        "Constant" => compose::constant,
        "ConstantOfShape" => compose::constant_of_shape,
        "Reshape" => reshape::reshape,
        "Flatten" => reshape::flatten,
        "Squeeze" => reshape::squeeze,
        "Unsqueeze" => reshape::unsqueeze,
        "Slice" => slice::slice,
        "Transpose" => movement::transpose,
        "Expand" => movement::expand,
        "Concat" => movement::concat,
        "Split" => movement::split,
        "Pad" => movement::pad,
        "Tile" => movement::tile,
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean" | "ReduceMin"
        | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => reductions::reduce,
        "ArgMax" | "ArgMin" => reductions::arg,
        "TopK" => reductions::top_k,
        "LayerNormalization" => reductions::layer_normalization,
        "SoftmaxCrossEntropyLoss" | "NegativeLogLikelihoodLoss" => reductions::loss,
        "MatMul" | "MatMulInteger" => linear::mat_mul,
        "Gemm" => linear::gemm,
        "Conv" => convolution::conv,
        "Einsum" => linear::einsum,
        "DequantizeLinear" => linear::dequantize,
        "QuantizeLinear" => linear::quantize,
        "DynamicQuantizeLinear" => linear::dynamic_quantize,
        "Gather" => index::gather,
        "GatherElements" => index::gather_elements,
        "GatherND" => index::gather_nd,
        "OneHot" => index::one_hot,
        "NonZero" => index::non_zero,
        _ => return None,
    })
}

fn microsoft(op: &str) -> Option<Rule> {
    Some(match op {
        "MatMulNBits" => linear::mat_mul_n_bits,
        "DequantizeLinear" => linear::dequantize,
        "Gelu" | "FastGelu" | "QuickGelu" => elementwise::like_first,
        _ => return None,
    })
}
