//! Shapes, indices and conditions, as masks and head splits need them.

use super::{Case, case};
use crate::common::{Attr, Graph, bools, f32s, i64s, numbers};
use fedtt_runtime::proto::tensor_proto::DataType::{Bool, Float, Int64};

pub(crate) fn shapes() -> Vec<Case> {
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

pub(crate) fn indices() -> Vec<Case> {
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

pub(crate) fn conditions() -> Vec<Case> {
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
                    &[
                        ("then_branch", Attr::Graph(Box::new(branch("Add")))),
                        ("else_branch", Attr::Graph(Box::new(branch("Sub")))),
                    ],
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
