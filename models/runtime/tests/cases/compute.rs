//! Products, normalisation, activations.

use super::{Case, case, product, transposed};
use crate::common::{Attr, Graph, f32s, numbers};
use fedtt_runtime::proto::tensor_proto::DataType::Float;

pub(crate) fn products() -> Vec<Case> {
    let (x, w, b) = (numbers(6 * 8, 1), numbers(8 * 5, 2), numbers(5, 3));
    let y = product(&x, &w, 6, 8, 5);
    let biased: Vec<f32> = y.iter().enumerate().map(|(at, y)| y + b[at % 5]).collect();
    let batched: Vec<f32> = [product(&x[..24], &w[..20], 6, 4, 5), product(&x[24..], &w[20..], 6, 4, 5)].concat();
    vec![
        case(
            "MatMul with a constant, over batch and sequence",
            Graph::new(17).input("x", Float, &["b", "s", "8"]).f32("w", &[8, 5], &w).node(
                "MatMul",
                &["x", "w"],
                &["y"],
                &[],
            ),
            vec![("x", f32s(&[2, 3, 8], &x))],
            vec![("y", f32s(&[2, 3, 5], &y))],
        ),
        case(
            "MatMul of two inputs, batched",
            Graph::new(17).input("a", Float, &["b", "m", "4"]).input("c", Float, &["b", "4", "n"]).node(
                "MatMul",
                &["a", "c"],
                &["y"],
                &[],
            ),
            vec![("a", f32s(&[2, 6, 4], &x)), ("c", f32s(&[2, 4, 5], &w))],
            vec![("y", f32s(&[2, 6, 5], &batched))],
        ),
        case(
            "Gemm with bias",
            Graph::new(17).input("x", Float, &["n", "8"]).f32("w", &[8, 5], &w).f32("b", &[5], &b).node(
                "Gemm",
                &["x", "w", "b"],
                &["y"],
                &[],
            ),
            vec![("x", f32s(&[6, 8], &x))],
            vec![("y", f32s(&[6, 5], &biased))],
        ),
        case(
            "Gemm that reads its constant transposed, forward and backward from one weight",
            Graph::new(17)
                .input("x", Float, &["n", "8"])
                .input("dy", Float, &["n", "5"])
                .f32("w", &[8, 5], &w)
                .node("Gemm", &["x", "w"], &["y"], &[])
                .node("Gemm", &["dy", "w"], &["dx"], &[("transB", Attr::Int(1))])
                .node("Gemm", &["x", "dy"], &["dw"], &[("transA", Attr::Int(1))]),
            vec![("x", f32s(&[6, 8], &x)), ("dy", f32s(&[6, 5], &y))],
            vec![
                ("y", f32s(&[6, 5], &y)),
                ("dx", f32s(&[6, 8], &product(&y, &transposed(&w, 8, 5), 6, 5, 8))),
                ("dw", f32s(&[8, 5], &product(&transposed(&x, 6, 8), &y, 8, 6, 5))),
            ],
        ),
    ]
}

pub(crate) fn normalisation() -> Vec<Case> {
    let (x, gain, bias) = (numbers(6 * 8, 4), numbers(8, 5), numbers(8, 6));
    let rows: Vec<&[f32]> = x.chunks(8).collect();
    let mean: Vec<f32> = rows.iter().map(|r| r.iter().sum::<f32>() / 8.0).collect();
    let inverse: Vec<f32> = rows
        .iter()
        .zip(&mean)
        .map(|(r, m)| 1.0 / (r.iter().map(|x| (x - m).powi(2)).sum::<f32>() / 8.0 + 1e-5).sqrt())
        .collect();
    let y: Vec<f32> =
        (0..48).map(|at| (x[at] - mean[at / 8]) * inverse[at / 8] * gain[at % 8] + bias[at % 8]).collect();
    let softmax: Vec<f32> = rows
        .iter()
        .flat_map(|r| {
            let sum: f32 = r.iter().map(|x| x.exp()).sum();
            r.iter().map(move |x| x.exp() / sum)
        })
        .collect();
    let log_softmax: Vec<f32> = softmax.iter().map(|p| p.ln()).collect();
    let with_norm = || Graph::new(17).input("x", Float, &["b", "s", "8"]).f32("g", &[8], &gain).f32("c", &[8], &bias);
    vec![
        case(
            "LayerNormalization",
            with_norm().node("LayerNormalization", &["x", "g", "c"], &["y"], &[("axis", Attr::Int(-1))]),
            vec![("x", f32s(&[2, 3, 8], &x))],
            vec![("y", f32s(&[2, 3, 8], &y))],
        ),
        case(
            "LayerNormalization with mean and inverse deviation",
            with_norm().node("LayerNormalization", &["x", "g", "c"], &["y", "m", "i"], &[("axis", Attr::Int(-1))]),
            vec![("x", f32s(&[2, 3, 8], &x))],
            vec![("y", f32s(&[2, 3, 8], &y)), ("m", f32s(&[2, 3, 1], &mean)), ("i", f32s(&[2, 3, 1], &inverse))],
        ),
        case(
            "LayerNormalization with the inverse deviation alone",
            with_norm().node("LayerNormalization", &["x", "g", "c"], &["y", "", "i"], &[("axis", Attr::Int(-1))]),
            vec![("x", f32s(&[2, 3, 8], &x))],
            vec![("i", f32s(&[2, 3, 1], &inverse))],
        ),
        case(
            "Softmax",
            Graph::new(17).input("x", Float, &["b", "s", "8"]).node(
                "Softmax",
                &["x"],
                &["y"],
                &[("axis", Attr::Int(-1))],
            ),
            vec![("x", f32s(&[2, 3, 8], &x))],
            vec![("y", f32s(&[2, 3, 8], &softmax))],
        ),
        case(
            "LogSoftmax",
            Graph::new(17).input("x", Float, &["n", "8"]).node(
                "LogSoftmax",
                &["x"],
                &["y"],
                &[("axis", Attr::Int(-1))],
            ),
            vec![("x", f32s(&[6, 8], &x))],
            vec![("y", f32s(&[6, 8], &log_softmax))],
        ),
    ]
}

/// One operator of one input.
fn unary(name: &'static str, graph: Graph, of: impl Fn(f64) -> f64) -> Case {
    let x: Vec<f32> = numbers(12, 7).iter().map(|x| 3.0 * x).collect();
    let y: Vec<f32> = x.iter().map(|x| of(f64::from(*x)) as f32).collect();
    case(name, graph.input("x", Float, &["n", "4"]), vec![("x", f32s(&[3, 4], &x))], vec![("y", f32s(&[3, 4], &y))])
}

pub(crate) fn activations() -> Vec<Case> {
    // Abramowitz and Stegun's series for erf, summed until it no longer changes.
    fn erf(x: f64) -> f64 {
        let mut term = x;
        let mut sum = x;
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }
    let gelu = |x: f64| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()));
    let tanh_gelu =
        |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh());
    let op = |op: &str| Graph::new(20).node(op, &["x"], &["y"], &[]);
    vec![
        unary("Gelu", op("Gelu"), gelu),
        unary(
            "Gelu by tanh",
            Graph::new(20).node("Gelu", &["x"], &["y"], &[("approximate", Attr::Text("tanh"))]),
            tanh_gelu,
        ),
        unary("Erf", op("Erf"), erf),
        unary("Tanh", op("Tanh"), f64::tanh),
        unary("Sigmoid", op("Sigmoid"), |x| 1.0 / (1.0 + (-x).exp())),
        unary("Relu", op("Relu"), |x| x.max(0.0)),
        unary("Exp", op("Exp"), f64::exp),
        unary("Sin", op("Sin"), f64::sin),
        unary("Cos", op("Cos"), f64::cos),
        unary("Neg", op("Neg"), |x| -x),
        unary("Abs", op("Abs"), f64::abs),
        unary("Sign", op("Sign"), f64::signum),
        unary("Reciprocal", op("Reciprocal"), |x| 1.0 / x),
        unary("Pow by an integer", Graph::new(20).i64("e", &[], &[2]).node("Pow", &["x", "e"], &["y"], &[]), |x| x * x),
        unary("Pow by a float", Graph::new(20).f32("e", &[], &[3.0]).node("Pow", &["x", "e"], &["y"], &[]), |x| {
            x.powi(3)
        }),
        unary("Mul of one tensor by itself", Graph::new(20).node("Mul", &["x", "x"], &["y"], &[]), |x| x * x),
    ]
}
