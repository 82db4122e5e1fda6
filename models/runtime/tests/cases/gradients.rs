//! Pieces of backward passes.

use super::{Case, case};
use crate::common::{Attr, Graph, f32s, i64s, numbers};
use fedtt_runtime::proto::tensor_proto::DataType::{Float, Int64};

pub(crate) fn gradients() -> Vec<Case> {
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
