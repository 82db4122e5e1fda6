//! Weights that are not float32.

use super::{Case, case, product, transposed};
use crate::common::{Attr, Graph, f32s, i64s, numbers};
use fedtt_runtime::proto::tensor_proto::DataType::{self, Float, Int64};

/// Two 4-bit numbers a byte, the first in the low half.
fn packed(numbers: &[i8]) -> Vec<u8> {
    numbers.chunks(2).map(|pair| (pair[0] as u8 & 15) | ((pair.get(1).copied().unwrap_or(0) as u8 & 15) << 4)).collect()
}

pub(crate) fn weights() -> Vec<Case> {
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
        case(
            "bfloat16 from the weight to the choice between products",
            Graph::new(17)
                .raw("n", DataType::Bfloat16, &[2, 2], narrow(&[1.0, -2.0, 3.0, 0.5]))
                .raw("zero", DataType::Bfloat16, &[], narrow(&[0.0]))
                .input("a", Float, &["m", "2"])
                .node("Cast", &["a"], &["b"], &[("to", Attr::Int(DataType::Bfloat16 as i64))])
                .node("MatMul", &["b", "n"], &["c"], &[])
                .node("Greater", &["c", "zero"], &["positive"], &[])
                .node("Where", &["positive", "c", "n"], &["d"], &[])
                .node("Cast", &["d"], &["y"], &[("to", Attr::Int(Float as i64))]),
            vec![("a", f32s(&[2, 2], &[1.0, 2.0, -3.0, 4.0]))],
            vec![("y", f32s(&[2, 2], &[7.0, -2.0, 9.0, 8.0]))],
        ),
    ]
}

/// The bytes of bfloat16 numbers.
fn narrow(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect()
}
