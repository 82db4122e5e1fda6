//! One entry per operator and form.

mod moving;

use fedtt_backbone::ir::{Attr, Builder, Node, Weight};

use crate::check::Case;
use crate::check::Knowledge::{self, Known, Symbols, Unknown};
use crate::check::Range::{self, Positive, Signed};

fn case(
    name: &'static str,
    inputs: &[&[usize]],
    (range, least): (Range, Knowledge),
    build: fn(&mut Builder) -> String,
) -> Case {
    Case { name, inputs: inputs.iter().map(|shape| shape.to_vec()).collect(), range, least, build }
}

fn ints(values: &[i64]) -> Attr {
    Attr::Ints(values.to_vec())
}

fn axis(axis: i64) -> [(&'static str, Attr); 1] {
    [("axis", Attr::Int(axis))]
}

fn f32s(b: &mut Builder, shape: &[usize]) -> String {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| ((i * 7 % 11) as f32 - 4.5) / 5.0).collect();
    b.constant("w", Weight::f32s(shape, &values))
}

/// All cases.
pub(crate) fn all_cases() -> Vec<Case> {
    let mut cases = elementwise();
    cases.extend(broadcasting());
    cases.extend(products());
    cases.extend(normalisation());
    cases.extend(reductions());
    cases.extend(moving::layout());
    cases.extend(moving::slicing());
    cases.extend(moving::indexing());
    cases
}

fn elementwise() -> Vec<Case> {
    let x: &[&[usize]] = &[&[2, 5]];
    let signed = (Signed, Unknown);
    let positive = (Positive, Unknown);
    vec![
        case("abs", x, signed, |b| b.op("Abs", &["x0"], &[])),
        case("neg", x, signed, |b| b.op("Neg", &["x0"], &[])),
        case("identity", x, signed, |b| {
            let y = b.op("Identity", &["x0"], &[]);
            b.op("Tanh", &[&y], &[])
        }),
        case("dropout", x, signed, |b| {
            let y = b.op("Dropout", &["x0"], &[]);
            b.op("Tanh", &[&y], &[])
        }),
        case("cast", x, signed, |b| {
            let wide = b.op("Cast", &["x0"], &[("to", Attr::Int(11))]);
            b.op("Cast", &[&wide], &[("to", Attr::Int(1))])
        }),
        case("cast like", x, signed, |b| {
            let y = b.op("Tanh", &["x0"], &[]);
            b.op("CastLike", &[&y, "x0"], &[])
        }),
        case("sqrt", x, positive, |b| b.op("Sqrt", &["x0"], &[])),
        case("reciprocal", x, positive, |b| b.op("Reciprocal", &["x0"], &[])),
        case("exp", x, signed, |b| b.op("Exp", &["x0"], &[])),
        case("log", x, positive, |b| b.op("Log", &["x0"], &[])),
        case("erf", x, signed, |b| b.op("Erf", &["x0"], &[])),
        case("tanh", x, signed, |b| b.op("Tanh", &["x0"], &[])),
        case("sigmoid", x, signed, |b| b.op("Sigmoid", &["x0"], &[])),
        case("sin", x, signed, |b| b.op("Sin", &["x0"], &[])),
        case("cos", x, signed, |b| b.op("Cos", &["x0"], &[])),
        case("clip", x, signed, |b| {
            let (low, high) = (b.scalar(-0.6), b.scalar(0.9));
            b.op("Clip", &["x0", &low, &high], &[])
        }),
        case("relu", x, signed, |b| b.op("Relu", &["x0"], &[])),
        case("leaky relu", x, signed, |b| b.op("LeakyRelu", &["x0"], &[("alpha", Attr::Float(0.2))])),
        case("elu", x, signed, |b| b.op("Elu", &["x0"], &[("alpha", Attr::Float(0.7))])),
        case("softplus", x, signed, |b| b.op("Softplus", &["x0"], &[])),
        case("softsign", x, signed, |b| b.op("Softsign", &["x0"], &[])),
        case("hard sigmoid", x, signed, |b| b.op("HardSigmoid", &["x0"], &[("alpha", Attr::Float(0.5))])),
        case("hard swish", x, signed, |b| b.op("HardSwish", &["x0"], &[])),
        case("gelu", x, signed, |b| b.op("Gelu", &["x0"], &[])),
        case("gelu tanh", x, signed, |b| b.op("Gelu", &["x0"], &[("approximate", Attr::Str("tanh".into()))])),
        case("gelu decomposed", x, signed, gelu_decomposed),
        case("gelu tanh decomposed", x, signed, tanh_gelu_decomposed),
        case("a value read twice", x, signed, |b| {
            let y = b.op("Tanh", &["x0"], &[]);
            let z = b.op("Exp", &[&y], &[]);
            b.op("Add", &[&y, &z], &[])
        }),
        case("a value read three times", x, signed, |b| {
            let (u, v) = (b.op("Tanh", &["x0"], &[]), b.op("Exp", &["x0"], &[]));
            let w = b.op("Mul", &[&u, &v], &[]);
            b.op("Add", &[&w, "x0"], &[])
        }),
    ]
}

/// Gelu as TorchScript writes it.
pub(crate) fn gelu_decomposed(b: &mut Builder) -> String {
    let (root, one, half) = (b.scalar(std::f32::consts::SQRT_2), b.scalar(1.0), b.scalar(0.5));
    let scaled = b.op("Div", &["x0", &root], &[]);
    let erf = b.op("Erf", &[&scaled], &[]);
    let sum = b.op("Add", &[&erf, &one], &[]);
    let product = b.op("Mul", &["x0", &sum], &[]);
    b.op("Mul", &[&product, &half], &[])
}

/// Gelu's tanh form as GPT-2 writes it.
pub(crate) fn tanh_gelu_decomposed(b: &mut Builder) -> String {
    let (three, c, k) = (b.scalar(3.0), b.scalar(0.044_715), b.scalar(0.797_884_6));
    let (one, half) = (b.scalar(1.0), b.scalar(0.5));
    let halved = b.op("Mul", &["x0", &half], &[]);
    let cube = b.op("Pow", &["x0", &three], &[]);
    let cubic = b.op("Mul", &[&cube, &c], &[]);
    let sum = b.op("Add", &["x0", &cubic], &[]);
    let inner = b.op("Mul", &[&sum, &k], &[]);
    let tanh = b.op("Tanh", &[&inner], &[]);
    let shifted = b.op("Add", &[&tanh, &one], &[]);
    b.op("Mul", &[&halved, &shifted], &[])
}

/// Layer normalisation as exporters write it before opset 17.
pub(crate) fn layer_normalisation_decomposed(b: &mut Builder) -> String {
    let width = f32s(b, &[4]);
    let gain = b.op("Tanh", &[&width], &[]);
    let bias = f32s(b, &[4]);
    let (two, epsilon, axes) = (b.scalar(2.0), b.scalar(1e-5), b.ints(&[-1]));
    // The width has to be known for the fusion, whatever is known of the input.
    let target = b.ints(&[2, 3, 4]);
    let x = b.op("Reshape", &["x0", &target], &[]);
    let mean = b.op("ReduceMean", &[&x, &axes], &[]);
    let centred = b.op("Sub", &[&x, &mean], &[]);
    let square = b.op("Pow", &[&centred, &two], &[]);
    let variance = b.op("ReduceMean", &[&square, &axes], &[]);
    let shifted = b.op("Add", &[&variance, &epsilon], &[]);
    let deviation = b.op("Sqrt", &[&shifted], &[]);
    let normal = b.op("Div", &[&centred, &deviation], &[]);
    let scaled = b.op("Mul", &[&normal, &gain], &[]);
    b.op("Add", &[&scaled, &bias], &[])
}

fn broadcasting() -> Vec<Case> {
    let same: &[&[usize]] = &[&[2, 3], &[2, 3]];
    let row: &[&[usize]] = &[&[2, 3, 4], &[4]];
    let inner: &[&[usize]] = &[&[2, 1, 4], &[3, 1]];
    let signed = (Signed, Unknown);
    let positive = (Positive, Unknown);
    vec![
        case("add", same, signed, |b| b.op("Add", &["x0", "x1"], &[])),
        case("add row", row, signed, |b| b.op("Add", &["x0", "x1"], &[])),
        case("add both broadcast", inner, signed, |b| b.op("Add", &["x0", "x1"], &[])),
        case("add to itself", &[&[3]], signed, |b| b.op("Add", &["x0", "x0"], &[])),
        case("sub both broadcast", inner, signed, |b| b.op("Sub", &["x0", "x1"], &[])),
        case("mul", same, signed, |b| b.op("Mul", &["x0", "x1"], &[])),
        case("mul both broadcast", inner, signed, |b| b.op("Mul", &["x0", "x1"], &[])),
        case("mul column", &[&[2, 3, 4], &[2, 3, 1]], signed, |b| b.op("Mul", &["x0", "x1"], &[])),
        case("square", &[&[2, 3]], signed, |b| b.op("Mul", &["x0", "x0"], &[])),
        case("mul scalar", &[&[2, 3], &[]], signed, |b| b.op("Mul", &["x0", "x1"], &[])),
        case("div", same, positive, |b| b.op("Div", &["x0", "x1"], &[])),
        case("div row", row, positive, |b| b.op("Div", &["x0", "x1"], &[])),
        case("div column", &[&[2, 3, 4], &[2, 3, 1]], positive, |b| b.op("Div", &["x0", "x1"], &[])),
        case("one divided", &[&[4]], positive, |b| {
            let one = b.scalar(1.0);
            b.op("Div", &[&one, "x0"], &[])
        }),
        case("pow 2", &[&[5]], signed, |b| {
            let p = b.scalar(2.0);
            b.op("Pow", &["x0", &p], &[])
        }),
        case("pow integer 3", &[&[5]], signed, |b| {
            let p = b.constant("p", Weight::i64s(&[], &[3]));
            b.op("Pow", &["x0", &p], &[])
        }),
        case("pow 1", &[&[5]], signed, |b| {
            let p = b.scalar(1.0);
            let y = b.op("Tanh", &["x0"], &[]);
            b.op("Pow", &[&y, &p], &[])
        }),
        case("pow -1.5", &[&[5]], positive, |b| {
            let p = b.scalar(-1.5);
            b.op("Pow", &["x0", &p], &[])
        }),
        case("pow of two values", &[&[2, 3], &[3]], positive, |b| b.op("Pow", &["x0", "x1"], &[])),
        case("max", &[&[2, 3], &[3]], signed, |b| b.op("Max", &["x0", "x1"], &[])),
        case("max with a constant", &[&[5]], signed, |b| {
            let floor = b.scalar(-0.3);
            b.op("Max", &["x0", &floor], &[])
        }),
        case("min of three", &[&[2, 3], &[3], &[2, 1]], signed, |b| b.op("Min", &["x0", "x1", "x2"], &[])),
        case("sum", &[&[2, 3], &[3], &[2, 1]], signed, |b| b.op("Sum", &["x0", "x1", "x2"], &[])),
        case("mean", &[&[2, 3], &[3]], signed, |b| b.op("Mean", &["x0", "x1"], &[])),
        case("where", &[&[2, 3], &[3]], signed, |b| {
            let zero = b.scalar(0.0);
            let condition = b.op("Greater", &["x0", &zero], &[]);
            b.op("Where", &[&condition, "x0", "x1"], &[])
        }),
    ]
}

fn products() -> Vec<Case> {
    let signed = (Signed, Unknown);
    vec![
        case("conv", &[&[2, 4, 5]], signed, |b| {
            let (w, bias) = (f32s(b, &[3, 4, 3]), f32s(b, &[3]));
            b.op("Conv", &["x0", &w, &bias], &[("pads", ints(&[1, 1])), ("kernel_shape", ints(&[3]))])
        }),
        case("conv grouped, dilated, padded on one side", &[&[2, 4, 6]], signed, |b| {
            let w = f32s(b, &[6, 2, 2]);
            let attrs = [("group", Attr::Int(2)), ("dilations", ints(&[2])), ("pads", ints(&[1, 0]))];
            b.op("Conv", &["x0", &w], &attrs)
        }),
        case("conv of two dimensions, narrowing", &[&[1, 2, 4, 5]], signed, |b| {
            let w = f32s(b, &[3, 2, 3, 2]);
            b.op("Conv", &["x0", &w], &[])
        }),
        case("matmul 2d", &[&[2, 3], &[3, 4]], signed, |b| b.op("MatMul", &["x0", "x1"], &[])),
        case("matmul 3d by 2d", &[&[2, 2, 3], &[3, 4]], signed, |b| b.op("MatMul", &["x0", "x1"], &[])),
        case("matmul by a constant", &[&[2, 2, 3]], signed, |b| {
            let w = f32s(b, &[3, 4]);
            b.op("MatMul", &["x0", &w], &[])
        }),
        case("matmul batched", &[&[2, 2, 3], &[2, 3, 2]], signed, |b| b.op("MatMul", &["x0", "x1"], &[])),
        case("matmul broadcast batch", &[&[2, 1, 2, 3], &[2, 3, 2]], signed, |b| b.op("MatMul", &["x0", "x1"], &[])),
        case("matmul of a transpose", &[&[2, 2, 3], &[2, 2, 3]], signed, |b| {
            let t = b.op("Transpose", &["x1"], &[("perm", ints(&[0, 2, 1]))]);
            b.op("MatMul", &["x0", &t], &[])
        }),
        case("matmul 2d by 3d", &[&[2, 3], &[2, 3, 2]], signed, |b| b.op("MatMul", &["x0", "x1"], &[])),
        case("matmul vector left", &[&[3], &[2, 3, 2]], signed, |b| b.op("MatMul", &["x0", "x1"], &[])),
        case("matmul vector right", &[&[2, 2, 3], &[3]], signed, |b| b.op("MatMul", &["x0", "x1"], &[])),
        case("matmul vector by matrix", &[&[3], &[3, 2]], signed, |b| b.op("MatMul", &["x0", "x1"], &[])),
        case("gemm", &[&[2, 3], &[3, 4], &[4]], signed, |b| b.op("Gemm", &["x0", "x1", "x2"], &[])),
        case("gemm scaled, B transposed", &[&[2, 3], &[4, 3], &[2, 1]], signed, |b| {
            let attrs = [("alpha", Attr::Float(0.5)), ("beta", Attr::Float(2.0)), ("transB", Attr::Int(1))];
            b.op("Gemm", &["x0", "x1", "x2"], &attrs)
        }),
        case("gemm, A transposed", &[&[3, 2], &[3, 4]], signed, |b| {
            b.op("Gemm", &["x0", "x1"], &[("transA", Attr::Int(1)), ("alpha", Attr::Float(0.5))])
        }),
        case("gemm, both transposed", &[&[3, 2], &[4, 3]], signed, |b| {
            b.op("Gemm", &["x0", "x1"], &[("transA", Attr::Int(1)), ("transB", Attr::Int(1))])
        }),
        case("einsum", &[&[2, 3, 4], &[2, 5, 4]], signed, |b| {
            b.op("Einsum", &["x0", "x1"], &[("equation", Attr::Str("bid,bjd->bij".into()))])
        }),
        case("weight behind DequantizeLinear", &[&[2, 2, 3]], signed, |b| {
            let packed =
                b.constant("q", Weight::raw(fedtt_backbone::ir::DType::I8, &[3, 2], vec![3, 250, 7, 1, 255, 9]));
            let scale = b.constant("s", Weight::f32s(&[2], &[0.1, 0.2]));
            let w = b.op("DequantizeLinear", &[&packed, &scale], &axis(1));
            b.op("MatMul", &["x0", &w], &[])
        }),
        case("4-bit MatMulNBits", &[&[2, 2, 32]], signed, |b| nbits(b, 32, 3, 16, 4)),
        case("4-bit MatMulNBits, odd blocks", &[&[2, 40]], signed, |b| nbits(b, 40, 3, 16, 4)),
        case("8-bit MatMulNBits", &[&[2, 32]], signed, |b| nbits(b, 32, 3, 16, 8)),
    ]
}

fn nbits(b: &mut Builder, k: usize, n: usize, block: usize, bits: usize) -> String {
    use fedtt_backbone::ir::DType;
    let blocks = k.div_ceil(block);
    let bytes = |count: usize, seed: usize| (0..count).map(|i| ((i * 89 + seed) % 251) as u8).collect::<Vec<u8>>();
    let blob = block * bits / 8;
    let packed = b.constant("packed", Weight::raw(DType::U8, &[n, blocks, blob], bytes(n * blocks * blob, 3)));
    let scales: Vec<f32> = (0..n * blocks).map(|i| (1.0 + i as f32) * if bits == 4 { 0.02 } else { 0.002 }).collect();
    let scales = b.constant("scales", Weight::f32s(&[n * blocks], &scales));
    let zeros = n * (blocks * bits).div_ceil(8);
    let zeros = b.constant("zeros", Weight::raw(DType::U8, &[zeros], bytes(zeros, 11)));
    let output = b.fresh("MatMulNBits");
    let number = |v: usize| Attr::Int(v as i64);
    b.push_node(Node {
        op: "MatMulNBits".into(),
        domain: "com.microsoft".into(),
        inputs: vec!["x0".into(), packed, scales, zeros],
        outputs: vec![output.clone()],
        attrs: [("K", number(k)), ("N", number(n)), ("bits", number(bits)), ("block_size", number(block))]
            .into_iter()
            .map(|(name, value)| (name.to_string(), value))
            .collect(),
        ..Node::default()
    });
    output
}

fn normalisation() -> Vec<Case> {
    let signed = (Signed, Unknown);
    vec![
        case("softmax", &[&[2, 3, 4]], signed, |b| b.op("Softmax", &["x0"], &[])),
        case("softmax middle axis", &[&[2, 3, 4]], signed, |b| b.op("Softmax", &["x0"], &axis(1))),
        case("log softmax", &[&[2, 4]], signed, |b| b.op("LogSoftmax", &["x0"], &axis(-1))),
        case("softmax with rows that mask everything", &[&[3, 4]], signed, |b| {
            let mask = b.constant(
                "mask",
                Weight::raw(fedtt_backbone::ir::DType::Bool, &[3, 4], vec![1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0]),
            );
            let blocked = b.scalar(f32::NEG_INFINITY);
            let scores = b.op("Where", &[&mask, "x0", &blocked], &[]);
            let p = b.op("Softmax", &[&scores], &axis(-1));
            let is_nan = b.op("IsNaN", &[&p], &[]);
            let zero = b.scalar(0.0);
            b.op("Where", &[&is_nan, &zero, &p], &[])
        }),
        case("layer normalisation", &[&[2, 3, 4], &[4], &[4]], signed, |b| {
            b.op("LayerNormalization", &["x0", "x1", "x2"], &[("epsilon", Attr::Float(1e-5))])
        }),
        case("layer normalisation of a constant gain", &[&[2, 4]], signed, |b| {
            let gain = f32s(b, &[4]);
            b.op("LayerNormalization", &["x0", &gain], &axis(-1))
        }),
        case("layer normalisation over two axes", &[&[2, 3, 2], &[3, 2]], signed, |b| {
            b.op("LayerNormalization", &["x0", "x1"], &axis(1))
        }),
        case("layer normalisation decomposed", &[&[2, 3, 4]], signed, |b| {
            let axes = b.ints(&[-1]);
            let mean = b.op("ReduceMean", &["x0", &axes], &[]);
            let centred = b.op("Sub", &["x0", &mean], &[]);
            let two = b.scalar(2.0);
            let square = b.op("Pow", &[&centred, &two], &[]);
            let variance = b.op("ReduceMean", &[&square, &axes], &[]);
            let epsilon = b.scalar(1e-3);
            let variance = b.op("Add", &[&variance, &epsilon], &[]);
            let deviation = b.op("Sqrt", &[&variance], &[]);
            b.op("Div", &[&centred, &deviation], &[])
        }),
        case(
            "layer normalisation decomposed, with gain and bias",
            &[&[2, 3, 4]],
            signed,
            layer_normalisation_decomposed,
        ),
        case("RMS normalisation decomposed", &[&[2, 3, 4]], signed, |b| {
            let axes = b.ints(&[-1]);
            let square = b.op("Mul", &["x0", "x0"], &[]);
            let mean = b.op("ReduceMean", &[&square, &axes], &[]);
            let root = b.op("Sqrt", &[&mean], &[]);
            let inverse = b.op("Reciprocal", &[&root], &[]);
            b.op("Mul", &["x0", &inverse], &[])
        }),
    ]
}

fn reductions() -> Vec<Case> {
    let signed = (Signed, Unknown);
    let x: &[&[usize]] = &[&[2, 3, 4]];
    fn reduce(b: &mut Builder, op: &str, axes: &[i64], keepdims: i64) -> String {
        let axes = b.ints(axes);
        let y = b.op(op, &["x0", &axes], &[("keepdims", Attr::Int(keepdims))]);
        b.op("Tanh", &[&y], &[])
    }
    vec![
        case("reduce sum", x, signed, |b| reduce(b, "ReduceSum", &[1], 1)),
        case("reduce sum, axes dropped", x, signed, |b| reduce(b, "ReduceSum", &[0, -1], 0)),
        case("reduce sum of all", x, signed, |b| b.op("ReduceSum", &["x0"], &[("keepdims", Attr::Int(0))])),
        case("reduce mean", x, signed, |b| reduce(b, "ReduceMean", &[-1], 1)),
        case("reduce mean, axes dropped", x, signed, |b| reduce(b, "ReduceMean", &[1, 2], 0)),
        case("reduce mean after Tanh", x, signed, |b| {
            let y = b.op("Tanh", &["x0"], &[]);
            let axes = b.ints(&[1]);
            b.op("ReduceMean", &[&y, &axes], &[])
        }),
        case("reduce sum read twice", x, signed, |b| {
            let axes = b.ints(&[1]);
            let (u, v) = (b.op("ReduceSum", &["x0", &axes], &[]), b.op("ReduceMean", &["x0", &axes], &[]));
            b.op("Mul", &[&u, &v], &[])
        }),
        case("reduce max", x, signed, |b| reduce(b, "ReduceMax", &[-1], 1)),
        case("reduce min, axes dropped", x, signed, |b| reduce(b, "ReduceMin", &[1], 0)),
        case("reduce L1", x, signed, |b| reduce(b, "ReduceL1", &[-1], 0)),
        case("reduce L2", x, signed, |b| reduce(b, "ReduceL2", &[-1], 1)),
        case("reduce sum of squares", x, signed, |b| reduce(b, "ReduceSumSquare", &[2], 0)),
        case("reduce log sum exp", x, signed, |b| reduce(b, "ReduceLogSumExp", &[2], 0)),
    ]
}
