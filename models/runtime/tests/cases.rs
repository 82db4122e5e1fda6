//! One suite of cases, forward and as gradients need them, over every engine.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Attr, Graph, bools, engines, f32s, i64s, numbers};
use fedtt_runtime::proto::tensor_proto::DataType;
use fedtt_runtime::{Model, Tensor};

use DataType::{Bool, Float, Int64};

/// A graph, what goes in and what must come out.
struct Case {
    name: &'static str,
    graph: Graph,
    inputs: Vec<(&'static str, Tensor)>,
    outputs: Vec<(&'static str, Tensor)>,
}

fn case(
    name: &'static str,
    graph: Graph,
    inputs: Vec<(&'static str, Tensor)>,
    outputs: Vec<(&'static str, Tensor)>,
) -> Case {
    let graph = outputs.iter().fold(graph, |graph, (name, _)| graph.output(name));
    Case { name, graph, inputs, outputs }
}

#[test]
fn every_engine_gives_the_exact_result() {
    let cases: Vec<Case> =
        products().into_iter().chain(normalisation()).chain(activations()).chain(weights()).collect();
    check(cases);
}

#[test]
fn every_engine_runs_what_masks_and_shapes_need() {
    let cases: Vec<Case> = shapes().into_iter().chain(indices()).chain(conditions()).collect();
    check(cases);
}

#[test]
fn every_engine_runs_what_gradients_need() {
    check(gradients());
}

fn check(cases: Vec<Case>) {
    let mut failures = Vec::new();
    for under_test in engines() {
        let engine = &under_test.engine;
        for case in &cases {
            if let Err(reason) = run(case, &**engine, under_test.tolerance) {
                failures.push(format!("{} on {}: {reason}", case.name, engine.name()));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn run(case: &Case, engine: &dyn fedtt_runtime::Engine, tolerance: f32) -> Result<(), String> {
    let model = case.graph.model();
    let mut session = engine.load(&model, &Default::default()).map_err(|e| e.to_string())?;
    let inputs: Vec<(&str, &Tensor)> = case.inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let names: Vec<&str> = case.outputs.iter().map(|(name, _)| *name).collect();
    let found = session.run(&inputs, &names).map_err(|e| e.to_string())?;
    for ((name, expected), found) in case.outputs.iter().zip(&found) {
        same(found, expected, tolerance).map_err(|reason| format!("{name}: {reason}"))?;
    }
    Ok(())
}

/// Floats within `tolerance` of the largest entry, everything else equal.
fn same(found: &Tensor, expected: &Tensor, tolerance: f32) -> Result<(), String> {
    if found.shape() != expected.shape() {
        return Err(format!("shape {:?}, expected {:?}", found.shape(), expected.shape()));
    }
    match (found, expected) {
        (Tensor::F32(f), Tensor::F32(e)) => {
            let scale = e.iter().fold(1.0_f32, |m, x| m.max(x.abs()));
            let off = f.iter().zip(e).map(|(f, e)| if f == e { 0.0 } else { (f - e).abs() });
            let worst = off.fold(0.0, |m: f32, d| if d.is_nan() { f32::INFINITY } else { m.max(d) });
            if worst <= tolerance * scale { Ok(()) } else { Err(format!("off by {worst}: {f:?}, expected {e:?}")) }
        }
        _ if found == expected => Ok(()),
        _ => Err(format!("{found:?}, expected {expected:?}")),
    }
}

/// `a` [m, k] times `b` [k, n].
fn product(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
    let entry =
        |i: usize, j: usize| (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum::<f64>() as f32;
    (0..m * n).map(|at| entry(at / n, at % n)).collect()
}

fn transposed(a: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|at| a[(at % rows) * columns + at / rows]).collect()
}

fn products() -> Vec<Case> {
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

fn normalisation() -> Vec<Case> {
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

fn activations() -> Vec<Case> {
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

/// Two 4-bit numbers a byte, the first in the low half.
fn packed(numbers: &[i8]) -> Vec<u8> {
    numbers.chunks(2).map(|pair| (pair[0] as u8 & 15) | ((pair.get(1).copied().unwrap_or(0) as u8 & 15) << 4)).collect()
}

fn weights() -> Vec<Case> {
    let x = numbers(3 * 32, 8);
    let input = || vec![("x", f32s(&[3, 32], &x))];
    let graph = |opset| Graph::new(opset).input("x", Float, &["n", "32"]);
    let int8: Vec<i8> = (0..32 * 4).map(|i| ((i * 37) % 255 - 127) as i8).collect();
    let bytes = |numbers: &[i8]| numbers.iter().map(|n| *n as u8).collect::<Vec<u8>>();
    let scale = [0.01, 0.02, 0.03, 0.04];
    let by_column: Vec<f32> = int8.iter().enumerate().map(|(i, q)| f32::from(*q) * scale[i % 4]).collect();
    let zeros: Vec<i8> = vec![1, -2, 3, -4];
    let shifted: Vec<f32> =
        int8.iter().enumerate().map(|(i, q)| (f32::from(*q) - f32::from(zeros[i % 4])) * scale[i % 4]).collect();
    let whole: Vec<f32> = int8.iter().map(|q| f32::from(*q) * 0.5).collect();
    let embedding = || Graph::new(13).input("ids", Int64, &["b", "s"]).raw("q", DataType::Int8, &[4, 32], bytes(&int8));
    let gathered = |graph: Graph| graph.node("Gather", &["table", "ids"], &["y"], &[]);
    let picks = || vec![("ids", i64s(&[1, 3], &[3, 0, 3]))];
    let picked = |scale: &dyn Fn(usize, usize) -> f32, zero: &dyn Fn(usize, usize) -> f32| {
        let rows = [3, 0, 3].into_iter().flat_map(|row| (0..32).map(move |column| (row, column)));
        let data: Vec<f32> = rows.map(|(r, c)| (f32::from(int8[r * 32 + c]) - zero(r, c)) * scale(r, c)).collect();
        vec![("y", f32s(&[1, 3, 32], &data))]
    };
    // 4 bits, blocks of 16 along K, K = 32, N = 4; as [K, N] for DequantizeLinear, as [N, K] for MatMulNBits.
    let int4: Vec<i8> = (0..32 * 4).map(|i| ((i * 7) % 16 - 8) as i8).collect();
    let scales: Vec<f32> = numbers(2 * 4, 9);
    let blocked: Vec<f32> =
        int4.iter().enumerate().map(|(i, q)| f32::from(*q) * scales[(i / 4 / 16) * 4 + i % 4]).collect();
    let scales_by_row = transposed(&scales, 2, 4);
    let row_major: Vec<f32> =
        int4.iter().enumerate().map(|(i, q)| f32::from(*q) * scales_by_row[(i / 32) * 2 + (i % 32) / 16]).collect();
    let unsigned: Vec<i8> = int4.iter().map(|q| q + 8).collect();
    let block = [("axis", Attr::Int(0)), ("block_size", Attr::Int(16))];
    let n_bits = [("K", Attr::Int(32)), ("N", Attr::Int(4)), ("bits", Attr::Int(4)), ("block_size", Attr::Int(16))];
    let n_bits_32 = [("K", Attr::Int(32)), ("N", Attr::Int(4)), ("bits", Attr::Int(4)), ("block_size", Attr::Int(32))];
    let rows_of_32: Vec<f32> =
        unsigned.iter().enumerate().map(|(i, q)| (f32::from(*q) - (7 + i / 32) as f32) * scales[i / 32]).collect();
    let y_biased: Vec<f32> = product(&x, &transposed(&rows_of_32, 4, 32), 3, 32, 4)
        .iter()
        .enumerate()
        .map(|(i, y)| y + scale[i % 4])
        .collect();
    let y_biased = vec![("y", f32s(&[3, 4], &y_biased))];
    let halves: Vec<half::f16> = numbers(32 * 4, 10).into_iter().map(half::f16::from_f32).collect();
    let floats: Vec<f32> = halves.iter().map(|h| h.to_f32()).collect();
    let half_bytes = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
    let y = |w: &[f32]| vec![("y", f32s(&[3, 4], &product(&x, w, 3, 32, 4)))];
    vec![
        case(
            "int8 weight, one scale a column",
            graph(13)
                .raw("q", DataType::Int8, &[32, 4], bytes(&int8))
                .f32("s", &[4], &scale)
                .raw("z", DataType::Int8, &[4], vec![0; 4])
                .node("DequantizeLinear", &["q", "s", "z"], &["w"], &[("axis", Attr::Int(1))])
                .node("MatMul", &["x", "w"], &["y"], &[]),
            input(),
            y(&by_column),
        ),
        case(
            "int8 weight, zero points",
            graph(13)
                .raw("q", DataType::Int8, &[32, 4], bytes(&int8))
                .f32("s", &[4], &scale)
                .raw("z", DataType::Int8, &[4], bytes(&zeros))
                .node("DequantizeLinear", &["q", "s", "z"], &["w"], &[("axis", Attr::Int(1))])
                .node("MatMul", &["x", "w"], &["y"], &[]),
            input(),
            y(&shifted),
        ),
        case(
            "int8 weight, one scale and no zero point",
            graph(13)
                .raw("q", DataType::Int8, &[32, 4], bytes(&int8))
                .f32("s", &[], &[0.5])
                .node("DequantizeLinear", &["q", "s"], &["w"], &[])
                .node("MatMul", &["x", "w"], &["y"], &[]),
            input(),
            y(&whole),
        ),
        case(
            "int8 weight read by rows and transposed, as the backward pass does",
            graph(13)
                .raw("q", DataType::Int8, &[32, 4], bytes(&int8))
                .f32("s", &[4], &scale)
                .node("DequantizeLinear", &["q", "s"], &["w"], &[("axis", Attr::Int(1))])
                .node("Gemm", &["x", "w"], &["y"], &[])
                .node("Gemm", &["y", "w"], &["dx"], &[("transB", Attr::Int(1))]),
            input(),
            vec![(
                "dx",
                f32s(&[3, 32], &product(&product(&x, &by_column, 3, 32, 4), &transposed(&by_column, 32, 4), 3, 4, 32)),
            )],
        ),
        case(
            "int8 embedding, a scale and a zero point for each row",
            gathered(embedding().f32("s", &[4], &scale).raw("z", DataType::Int8, &[4], bytes(&zeros)).node(
                "DequantizeLinear",
                &["q", "s", "z"],
                &["table"],
                &[("axis", Attr::Int(0))],
            )),
            picks(),
            picked(&|row, _| scale[row], &|row, _| f32::from(zeros[row])),
        ),
        case(
            "int8 embedding, a scale for each column",
            gathered(embedding().f32("s", &[32], &x[..32]).node(
                "DequantizeLinear",
                &["q", "s"],
                &["table"],
                &[("axis", Attr::Int(1))],
            )),
            picks(),
            picked(&|_, column| x[column], &|_, _| 0.0),
        ),
        case(
            "int8 embedding, one scale",
            gathered(embedding().f32("s", &[], &[0.5]).node("DequantizeLinear", &["q", "s"], &["table"], &[])),
            picks(),
            picked(&|_, _| 0.5, &|_, _| 0.0),
        ),
        case(
            "int4 weight in blocks",
            graph(21)
                .raw("q", DataType::Int4, &[32, 4], packed(&int4))
                .f32("s", &[2, 4], &scales)
                .node("DequantizeLinear", &["q", "s"], &["w"], &block)
                .node("MatMul", &["x", "w"], &["y"], &[]),
            input(),
            y(&blocked),
        ),
        case(
            "uint4 weight in blocks with zero points",
            graph(21)
                .raw("q", DataType::Uint4, &[32, 4], packed(&unsigned))
                .f32("s", &[2, 4], &scales)
                .raw("z", DataType::Uint4, &[2, 4], packed(&[8; 8]))
                .node("DequantizeLinear", &["q", "s", "z"], &["w"], &block)
                .node("MatMul", &["x", "w"], &["y"], &[]),
            input(),
            y(&blocked),
        ),
        case(
            "MatMulNBits and its transpose by DequantizeLinear",
            graph(21)
                .raw("q", DataType::Uint8, &[4, 2, 8], packed(&unsigned))
                .raw("q4", DataType::Uint4, &[4, 32], packed(&unsigned))
                .f32("s", &[8], &scales_by_row)
                .f32("s2", &[4, 2], &scales_by_row)
                .raw("z", DataType::Uint4, &[4, 2], packed(&[8; 8]))
                .node("com.microsoft::MatMulNBits", &["x", "q", "s"], &["y"], &n_bits)
                .node(
                    "DequantizeLinear",
                    &["q4", "s2", "z"],
                    &["w"],
                    &[("axis", Attr::Int(1)), ("block_size", Attr::Int(16))],
                )
                .node("MatMul", &["y", "w"], &["dx"], &[]),
            input(),
            vec![
                ("y", f32s(&[3, 4], &product(&x, &transposed(&row_major, 4, 32), 3, 32, 4))),
                (
                    "dx",
                    f32s(
                        &[3, 32],
                        &product(&product(&x, &transposed(&row_major, 4, 32), 3, 32, 4), &row_major, 3, 4, 32),
                    ),
                ),
            ],
        ),
        case(
            "MatMulNBits in blocks of 32 with zero points and a bias",
            graph(17)
                .raw("q", DataType::Uint8, &[4, 1, 16], packed(&unsigned))
                .f32("s", &[4], &scales[..4])
                .raw("z", DataType::Uint8, &[4, 1], vec![7, 8, 9, 10])
                .f32("b", &[4], &scale)
                .node("com.microsoft::MatMulNBits", &["x", "q", "s", "z", "", "b"], &["y"], &n_bits_32),
            input(),
            y_biased,
        ),
        case(
            "fp16 weight behind a Cast",
            graph(17)
                .raw("h", DataType::Float16, &[32, 4], half_bytes)
                .node("Cast", &["h"], &["w"], &[("to", Attr::Int(Float as i64))])
                .node("MatMul", &["x", "w"], &["y"], &[]),
            input(),
            y(&floats),
        ),
    ]
}

fn shapes() -> Vec<Case> {
    let x = numbers(24, 11);
    let input = || vec![("x", f32s(&[2, 3, 4], &x))];
    let graph = |opset| Graph::new(opset).input("x", Float, &["b", "s", "4"]);
    vec![
        case(
            "Reshape to a shape computed in the graph",
            graph(17)
                .i64("start", &[1], &[0])
                .i64("end", &[1], &[2])
                .i64("heads", &[2], &[2, 2])
                .node("Shape", &["x"], &["shape"], &[])
                .node("Slice", &["shape", "start", "end"], &["bs"], &[])
                .node("Concat", &["bs", "heads"], &["to"], &[("axis", Attr::Int(0))])
                .node("Reshape", &["x", "to"], &["y"], &[])
                .node("Transpose", &["y"], &["t"], &[("perm", Attr::Ints(&[0, 2, 1, 3]))])
                .node("Shape", &["t"], &["t_shape"], &[]),
            input(),
            vec![("y", f32s(&[2, 3, 2, 2], &x)), ("t_shape", i64s(&[4], &[2, 2, 3, 2]))],
        ),
        case(
            "Reshape with 0 and -1",
            graph(17).i64("to", &[4], &[0, -1, 2, 2]).node("Reshape", &["x", "to"], &["y"], &[]),
            input(),
            vec![("y", f32s(&[2, 3, 2, 2], &x))],
        ),
        case(
            "Shape between two axes, Range, Unsqueeze, Expand",
            graph(18)
                .node("Shape", &["x"], &["s"], &[("start", Attr::Int(1)), ("end", Attr::Int(2))])
                .i64("zero", &[], &[0])
                .i64("one", &[], &[1])
                .i64("axes", &[1], &[0])
                .node("Squeeze", &["s"], &["length"], &[])
                .node("Range", &["zero", "length", "one"], &["positions"], &[])
                .node("Unsqueeze", &["positions", "axes"], &["row"], &[])
                .i64("two", &[1], &[2])
                .node("Concat", &["two", "s"], &["to"], &[("axis", Attr::Int(0))])
                .node("Expand", &["row", "to"], &["y"], &[]),
            input(),
            vec![("y", i64s(&[2, 3], &[0, 1, 2, 0, 1, 2]))],
        ),
        case(
            "Expand by a shape that a mask of -1 chooses",
            graph(17)
                .node("Shape", &["x"], &["s"], &[])
                .i64("minus", &[3], &[2, -1, -1])
                .i64("minus_one", &[], &[-1])
                .node("Equal", &["minus", "minus_one"], &["open"], &[])
                .node("Where", &["open", "s", "minus"], &["to"], &[])
                .i64("axis", &[1], &[0])
                .node("ReduceSum", &["x", "axis"], &["sum"], &[("keepdims", Attr::Int(1))])
                .node("Expand", &["sum", "to"], &["y"], &[]),
            input(),
            vec![("y", f32s(&[2, 3, 4], &(0..24).map(|i| x[i % 12] + x[12 + i % 12]).collect::<Vec<_>>()))],
        ),
        case(
            "Split by sizes and into equal parts",
            graph(18)
                .i64("sizes", &[2], &[1, 3])
                .node("Split", &["x", "sizes"], &["a", "b"], &[("axis", Attr::Int(2))])
                .node("Split", &["x"], &["c", "d"], &[("axis", Attr::Int(-1)), ("num_outputs", Attr::Int(2))]),
            input(),
            vec![
                ("a", f32s(&[2, 3, 1], &(0..6).map(|i| x[4 * i]).collect::<Vec<_>>())),
                ("b", f32s(&[2, 3, 3], &(0..6).flat_map(|i| x[4 * i + 1..4 * i + 4].to_vec()).collect::<Vec<_>>())),
                ("d", f32s(&[2, 3, 2], &(0..6).flat_map(|i| x[4 * i + 2..4 * i + 4].to_vec()).collect::<Vec<_>>())),
            ],
        ),
        case(
            "Slice to the end, from the end, and Pad back",
            graph(17)
                .i64("from", &[1], &[1])
                .i64("to", &[1], &[i64::MAX])
                .i64("axis", &[1], &[2])
                .i64("pads", &[6], &[0, 0, 1, 0, 0, 0])
                .node("Slice", &["x", "from", "to", "axis"], &["a"], &[])
                .node("Pad", &["a", "pads"], &["y"], &[]),
            input(),
            vec![("y", f32s(&[2, 3, 4], &(0..24).map(|i| if i % 4 == 0 { 0.0 } else { x[i] }).collect::<Vec<_>>()))],
        ),
        case(
            "Slice to an end that is cast to int64 in the graph",
            graph(17)
                .i64("from", &[1], &[1])
                .i64("end", &[], &[i64::MAX])
                .i64("axis", &[1], &[1])
                .i64("flat", &[1], &[-1])
                .node("Cast", &["end"], &["cast"], &[("to", Attr::Int(Int64 as i64))])
                .node("Reshape", &["cast", "flat"], &["to"], &[])
                .node("Slice", &["x", "from", "to", "axis"], &["y"], &[]),
            input(),
            vec![("y", f32s(&[2, 2, 4], &[&x[4..12], &x[16..]].concat()))],
        ),
        case(
            "Tile, Flatten, ConstantOfShape",
            graph(17)
                .i64("times", &[3], &[1, 1, 2])
                .i64("two", &[1], &[2])
                .node("Tile", &["x", "times"], &["t"], &[])
                .node("Flatten", &["t"], &["y"], &[("axis", Attr::Int(1))])
                .node("ConstantOfShape", &["two"], &["z"], &[]),
            input(),
            vec![
                ("y", f32s(&[2, 24], &x.chunks(4).flat_map(|r| [r, r].concat()).collect::<Vec<_>>())),
                ("z", f32s(&[2], &[0.0, 0.0])),
            ],
        ),
    ]
}

fn indices() -> Vec<Case> {
    let table = numbers(5 * 3, 12);
    let ids = [4, 0, 2, 2];
    let rows: Vec<f32> = ids.iter().flat_map(|id| table[*id as usize * 3..*id as usize * 3 + 3].to_vec()).collect();
    let square = numbers(9, 13);
    let at = |keep: &dyn Fn(usize, usize) -> bool| {
        (0..9).map(|i| if keep(i / 3, i % 3) { square[i] } else { 0.0 }).collect::<Vec<f32>>()
    };
    vec![
        case(
            "Gather from an embedding",
            Graph::new(17).input("ids", Int64, &["b", "s"]).f32("table", &[5, 3], &table).node(
                "Gather",
                &["table", "ids"],
                &["y"],
                &[],
            ),
            vec![("ids", i64s(&[2, 2], &ids))],
            vec![("y", f32s(&[2, 2, 3], &rows))],
        ),
        case(
            "Gather of one position, negative",
            Graph::new(17).input("x", Float, &["b", "3", "3"]).i64("last", &[], &[-1]).node(
                "Gather",
                &["x", "last"],
                &["y"],
                &[("axis", Attr::Int(1))],
            ),
            vec![("x", f32s(&[1, 3, 3], &square))],
            vec![("y", f32s(&[1, 3], &square[6..]))],
        ),
        case(
            "GatherElements and its gradient by ScatterElements",
            Graph::new(18)
                .input("x", Float, &["n", "3"])
                .input("ids", Int64, &["n", "2"])
                .f32("zero", &[3, 3], &[0.0; 9])
                .node("GatherElements", &["x", "ids"], &["y"], &[("axis", Attr::Int(1))])
                .node(
                    "ScatterElements",
                    &["zero", "ids", "y"],
                    &["dx"],
                    &[("axis", Attr::Int(1)), ("reduction", Attr::Text("add"))],
                ),
            vec![("x", f32s(&[3, 3], &square)), ("ids", i64s(&[3, 2], &[0, 0, 2, 1, 1, 0]))],
            vec![
                ("y", f32s(&[3, 2], &[square[0], square[0], square[5], square[4], square[7], square[6]])),
                (
                    "dx",
                    f32s(&[3, 3], &[2.0 * square[0], 0.0, 0.0, 0.0, square[4], square[5], square[6], square[7], 0.0]),
                ),
            ],
        ),
        case(
            "GatherND over rows and columns",
            Graph::new(17).input("x", Bool, &["b", "s"]).i64("at", &[3, 2], &[0, 1, 1, 0, 1, 2]).node(
                "GatherND",
                &["x", "at"],
                &["y"],
                &[],
            ),
            vec![("x", bools(&[2, 3], &[false, true, false, true, false, true]))],
            vec![("y", bools(&[3], &[true, true, true]))],
        ),
        case(
            "ScatterND of rows",
            Graph::new(17)
                .input("x", Float, &["3", "3"])
                .i64("at", &[1, 1], &[1])
                .f32("row", &[1, 3], &[1.0, 2.0, 3.0])
                .node("ScatterND", &["x", "at", "row"], &["y"], &[]),
            vec![("x", f32s(&[3, 3], &square))],
            vec![("y", f32s(&[3, 3], &[&square[..3], &[1.0, 2.0, 3.0], &square[6..]].concat()))],
        ),
        case(
            "Trilu",
            Graph::new(17)
                .input("x", Float, &["3", "3"])
                .i64("one", &[], &[1])
                .node("Trilu", &["x", "one"], &["upper"], &[("upper", Attr::Int(1))])
                .node("Trilu", &["x"], &["lower"], &[("upper", Attr::Int(0))]),
            vec![("x", f32s(&[3, 3], &square))],
            vec![("upper", f32s(&[3, 3], &at(&|i, j| j > i))), ("lower", f32s(&[3, 3], &at(&|i, j| j <= i)))],
        ),
        case(
            "CumSum and Mod over integers",
            Graph::new(17)
                .input("x", Int64, &["b", "s"])
                .i64("axis", &[], &[1])
                .i64("three", &[], &[3])
                .node("CumSum", &["x", "axis"], &["sum"], &[])
                .node("Mod", &["sum", "three"], &["rest"], &[]),
            vec![("x", i64s(&[2, 3], &[1, 1, 0, 0, 1, 4]))],
            vec![("sum", i64s(&[2, 3], &[1, 2, 2, 0, 1, 5])), ("rest", i64s(&[2, 3], &[1, 2, 2, 0, 1, 2]))],
        ),
        case(
            "positions from a mask: Cast, CumSum, Sub",
            Graph::new(17)
                .input("mask", Bool, &["b", "s"])
                .i64("axis", &[], &[1])
                .i64("one", &[], &[1])
                .node("Cast", &["mask"], &["ones"], &[("to", Attr::Int(Int64 as i64))])
                .node("CumSum", &["ones", "axis"], &["count"], &[])
                .node("Sub", &["count", "one"], &["y"], &[]),
            vec![("mask", bools(&[2, 3], &[true, true, false, false, true, true]))],
            vec![("y", i64s(&[2, 3], &[0, 1, 1, -1, 0, 1]))],
        ),
        case(
            "OneHot of labels",
            Graph::new(17).input("ids", Int64, &["n"]).i64("depth", &[], &[3]).f32("values", &[2], &[0.0, 1.0]).node(
                "OneHot",
                &["ids", "depth", "values"],
                &["y"],
                &[],
            ),
            vec![("ids", i64s(&[2], &[2, 0]))],
            vec![("y", f32s(&[2, 3], &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]))],
        ),
    ]
}

fn conditions() -> Vec<Case> {
    let scores = f32s(&[2, 2], &[1.0, f32::NAN, f32::NEG_INFINITY, 2.0]);
    let branch = |op: &str| Graph::new(17).node(op, &["x", "y"], &["out"], &[]).output("out");
    let choose = |train: bool, out: [f32; 2]| {
        case(
            "If over outer tensors",
            Graph::new(17)
                .input("train", Bool, &[])
                .input("x", Float, &["n"])
                .f32("two", &[1], &[2.0])
                .node("Mul", &["x", "two"], &["y"], &[])
                .node(
                    "If",
                    &["train"],
                    &["z"],
                    &[("then_branch", Attr::Graph(branch("Add"))), ("else_branch", Attr::Graph(branch("Sub")))],
                ),
            vec![("train", bools(&[], &[train])), ("x", f32s(&[2], &[1.0, -3.0]))],
            vec![("z", f32s(&[2], &out))],
        )
    };
    vec![
        choose(true, [3.0, -9.0]),
        choose(false, [-1.0, 3.0]),
        case(
            "IsNaN and Where",
            Graph::new(17)
                .input("x", Float, &["a", "b"])
                .f32("zero", &[], &[0.0])
                .node("IsNaN", &["x"], &["nan"], &[])
                .node("Where", &["nan", "zero", "x"], &["y"], &[]),
            vec![("x", scores)],
            vec![("y", f32s(&[2, 2], &[1.0, 0.0, f32::NEG_INFINITY, 2.0]))],
        ),
        case(
            "comparisons of positions and a padding mask",
            Graph::new(17)
                .input("mask", Int64, &["b", "s"])
                .i64("rows", &[3, 1], &[0, 1, 2])
                .i64("columns", &[1, 3], &[0, 1, 2])
                .f32("low", &[], &[-1e9])
                .f32("zero", &[], &[0.0])
                .node("LessOrEqual", &["columns", "rows"], &["causal"], &[])
                .node("Cast", &["mask"], &["kept"], &[("to", Attr::Int(Bool as i64))])
                .node("And", &["causal", "kept"], &["both"], &[])
                .node("Not", &["both"], &["hidden"], &[])
                .node("Where", &["hidden", "low", "zero"], &["y"], &[]),
            vec![("mask", i64s(&[1, 3], &[0, 1, 1]))],
            vec![("y", f32s(&[3, 3], &[-1e9, -1e9, -1e9, -1e9, 0.0, -1e9, -1e9, 0.0, 0.0]))],
        ),
    ]
}

fn gradients() -> Vec<Case> {
    let (p, g) = (numbers(2 * 3 * 4, 14), numbers(2 * 3 * 4, 15));
    let attention: Vec<f32> = p
        .chunks(4)
        .zip(g.chunks(4))
        .flat_map(|(p, g)| {
            let inner: f32 = p.iter().zip(g).map(|(p, g)| p * g).sum();
            p.iter().zip(g).map(move |(p, g)| p * (g - inner)).collect::<Vec<_>>()
        })
        .collect();
    let over_rows: Vec<f32> = (0..4).map(|j| (0..6).map(|i| g[4 * i + j]).sum()).collect();
    let pair = || Graph::new(18).input("p", Float, &["b", "s", "4"]).input("g", Float, &["b", "s", "4"]);
    let inputs = || vec![("p", f32s(&[2, 3, 4], &p)), ("g", f32s(&[2, 3, 4], &g))];
    let labels = [2_usize, 0, 3];
    let probabilities: Vec<f32> = p[..12]
        .chunks(4)
        .flat_map(|r| {
            let sum: f32 = r.iter().map(|x| x.exp()).sum();
            r.iter().map(move |x| x.exp() / sum).collect::<Vec<_>>()
        })
        .collect();
    let loss = labels.iter().enumerate().map(|(i, l)| -probabilities[4 * i + l].ln()).sum::<f32>() / 3.0;
    let slope: Vec<f32> = probabilities
        .iter()
        .enumerate()
        .map(|(at, p)| (p - if labels[at / 4] == at % 4 { 1.0 } else { 0.0 }) / 3.0)
        .collect();
    vec![
        case(
            "the gradient of Softmax",
            pair()
                .i64("last", &[1], &[-1])
                .node("Mul", &["p", "g"], &["pg"], &[])
                .node("ReduceSum", &["pg", "last"], &["inner"], &[("keepdims", Attr::Int(1))])
                .node("Sub", &["g", "inner"], &["centred"], &[])
                .node("Mul", &["p", "centred"], &["dx"], &[]),
            inputs(),
            vec![("dx", f32s(&[2, 3, 4], &attention))],
        ),
        case(
            "the gradient of a bias: sums over batch and sequence",
            pair()
                .i64("axes", &[2], &[0, 1])
                .node("ReduceSum", &["g", "axes"], &["db"], &[("keepdims", Attr::Int(0))])
                .node("ReduceMean", &["g", "axes"], &["mean"], &[("keepdims", Attr::Int(1))]),
            inputs(),
            vec![
                ("db", f32s(&[4], &over_rows)),
                ("mean", f32s(&[1, 1, 4], &over_rows.iter().map(|s| s / 6.0).collect::<Vec<_>>())),
            ],
        ),
        case(
            "a sum over axes that the graph computes from shapes",
            Graph::new(18)
                .input("g", Float, &["b", "s", "4"])
                .input("small", Float, &["b", "1", "4"])
                .node("Shape", &["g"], &["big_shape"], &[])
                .node("Shape", &["small"], &["small_shape"], &[])
                .i64("s_at", &[1], &[1])
                .node("Gather", &["big_shape", "s_at"], &["s"], &[])
                .node("ReduceSum", &["g", "s_at"], &["sum"], &[("keepdims", Attr::Int(1))])
                .node("Reshape", &["sum", "small_shape"], &["y"], &[]),
            vec![("g", f32s(&[2, 3, 4], &g)), ("small", f32s(&[2, 1, 4], &p[..8]))],
            vec![(
                "y",
                f32s(
                    &[2, 1, 4],
                    &(0..8).map(|i| (0..3).map(|s| g[(i / 4) * 12 + s * 4 + i % 4]).sum()).collect::<Vec<f32>>(),
                ),
            )],
        ),
        case(
            "cross-entropy and its gradient",
            Graph::new(18)
                .input("z", Float, &["n", "4"])
                .input("label", Int64, &["n"])
                .i64("one_axis", &[1], &[1])
                .i64("depth", &[], &[4])
                .f32("values", &[2], &[0.0, 1.0])
                .node("LogSoftmax", &["z"], &["logp"], &[("axis", Attr::Int(-1))])
                .node("Unsqueeze", &["label", "one_axis"], &["column"], &[])
                .node("GatherElements", &["logp", "column"], &["picked"], &[("axis", Attr::Int(1))])
                .node("ReduceMean", &["picked"], &["mean"], &[("keepdims", Attr::Int(0))])
                .node("Neg", &["mean"], &["loss"], &[])
                .node("Exp", &["logp"], &["prob"], &[])
                .node("OneHot", &["label", "depth", "values"], &["target"], &[])
                .node("Sub", &["prob", "target"], &["off"], &[])
                .node("Shape", &["label"], &["count"], &[])
                .node("Cast", &["count"], &["n_float"], &[("to", Attr::Int(Float as i64))])
                .node("Div", &["off", "n_float"], &["dz"], &[]),
            vec![("z", f32s(&[3, 4], &p[..12])), ("label", i64s(&[3], &[2, 0, 3]))],
            vec![("loss", f32s(&[], &[loss])), ("dz", f32s(&[3, 4], &slope))],
        ),
        case(
            "the gradient of an embedding by ScatterND",
            Graph::new(18)
                .input("ids", Int64, &["n", "1"])
                .input("g", Float, &["n", "2"])
                .f32("zero", &[3, 2], &[0.0; 6])
                .node("ScatterND", &["zero", "ids", "g"], &["dw"], &[("reduction", Attr::Text("add"))]),
            vec![("ids", i64s(&[3, 1], &[2, 0, 2])), ("g", f32s(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))],
            vec![("dw", f32s(&[3, 2], &[3.0, 4.0, 0.0, 0.0, 6.0, 8.0]))],
        ),
    ]
}

#[test]
fn one_session_takes_many_shapes_and_any_of_its_outputs() {
    let w = numbers(8 * 5, 2);
    let graph = Graph::new(17)
        .input("x", Float, &["b", "s", "8"])
        .input("scale", Float, &[])
        .f32("w", &[8, 5], &w)
        .node("MatMul", &["x", "w"], &["y"], &[])
        .node("Mul", &["y", "scale"], &["z"], &[])
        .output("y")
        .output("z");
    for under_test in engines() {
        let mut session = under_test.engine.load(&graph.model(), &Default::default()).unwrap();
        let scale = f32s(&[], &[2.0]);
        for round in 0..2 {
            for (b, s) in [(1, 1), (2, 3), (3, 2), (4, 5), (1, 7), (2, 2)] {
                let x = numbers(b * s * 8, (b * 10 + s + round) as u32);
                let y = product(&x, &w, b * s, 8, 5);
                let z: Vec<f32> = y.iter().map(|y| 2.0 * y).collect();
                let x = f32s(&[b, s, 8], &x);
                let found = session.run(&[("scale", &scale), ("x", &x)], &["z", "y"]).unwrap();
                same(&found[0], &f32s(&[b, s, 5], &z), under_test.tolerance).unwrap();
                same(&found[1], &f32s(&[b, s, 5], &y), under_test.tolerance).unwrap();
                let found = session.run(&[("x", &x), ("scale", &scale)], &["y"]).unwrap();
                same(&found[0], &f32s(&[b, s, 5], &y), under_test.tolerance).unwrap();
            }
        }
    }
}

#[test]
fn inputs_and_outputs_that_do_not_fit_are_errors() {
    let graph = Graph::new(17)
        .input("x", Float, &["n", "4"])
        .input("c", Float, &["n", "4"])
        .node("Add", &["x", "c"], &["y"], &[])
        .output("y");
    let (good, wide, ids) = (f32s(&[1, 4], &[0.0; 4]), f32s(&[1, 5], &[0.0; 5]), i64s(&[1, 4], &[0; 4]));
    for under_test in engines() {
        let mut session = under_test.engine.load(&graph.model(), &Default::default()).unwrap();
        let mut message =
            |inputs: &[(&str, &Tensor)], outputs: &[&str]| session.run(inputs, outputs).unwrap_err().to_string();
        assert!(message(&[("x", &good)], &["y"]).contains('c'));
        assert!(message(&[("x", &good), ("c", &good), ("d", &good)], &["y"]).contains("no input `d`; it has x, c"));
        assert!(message(&[("x", &good), ("c", &good)], &["q"]).contains("no output `q`; it has y"));
        assert!(message(&[("x", &good), ("c", &wide)], &["y"]).contains('5'));
        message(&[("x", &good), ("c", &ids)], &["y"]);
        session.run(&[("x", &good), ("c", &good)], &["y"]).unwrap();
    }
}

#[test]
fn bytes_that_are_no_model_are_refused() {
    let half_a_model = {
        let mut bytes = Graph::new(17).input("x", Float, &["4"]).node("Exp", &["x"], &["y"], &[]).output("y").bytes();
        bytes.truncate(bytes.len() / 2);
        bytes
    };
    let unknown =
        Graph::new(17).input("x", Float, &["4"]).node("NoSuchOperator", &["x"], &["y"], &[]).output("y").bytes();
    let x = f32s(&[4], &[0.0; 4]);
    for under_test in engines() {
        for bytes in [vec![], b"not a model at all".to_vec(), half_a_model.clone(), unknown.clone()] {
            let model = Model { bytes, weights_dir: None };
            let run = under_test
                .engine
                .load(&model, &Default::default())
                .and_then(|mut session| session.run(&[("x", &x)], &["y"]).map(|_| ()));
            assert!(run.is_err(), "{}", under_test.engine.name());
        }
    }
}

#[test]
fn weights_beside_the_model_are_read_from_their_folder() {
    let dir = tempfile::tempdir().unwrap();
    let w = numbers(8 * 5, 2);
    let bytes: Vec<u8> = w.iter().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::write(dir.path().join("weights.bin"), [vec![0; 4096], bytes.clone()].concat()).unwrap();
    let mut graph = Graph::new(17).input("x", Float, &["n", "8"]).f32("w", &[8, 5], &[]);
    let entry =
        |key: &str, value: &str| fedtt_runtime::proto::StringStringEntryProto { key: key.into(), value: value.into() };
    let constant = graph.last_constant();
    constant.data_location = Some(1);
    constant.external_data =
        vec![entry("location", "weights.bin"), entry("offset", "4096"), entry("length", &bytes.len().to_string())];
    let graph = graph.node("MatMul", &["x", "w"], &["y"], &[]).output("y");
    let x = numbers(3 * 8, 1);
    let expected = f32s(&[3, 5], &product(&x, &w, 3, 8, 5));
    for under_test in engines() {
        let model = Model { bytes: graph.bytes(), weights_dir: Some(dir.path().to_path_buf()) };
        let mut session = under_test.engine.load(&model, &Default::default()).unwrap();
        let found = session.run(&[("x", &f32s(&[3, 8], &x))], &["y"]).unwrap();
        same(&found[0], &expected, under_test.tolerance).unwrap();
        let elsewhere = Model { bytes: graph.bytes(), weights_dir: Some(dir.path().join("missing")) };
        assert!(under_test.engine.load(&elsewhere, &Default::default()).is_err(), "{}", under_test.engine.name());
    }
}
