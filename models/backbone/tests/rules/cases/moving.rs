//! Operators that move values and compute none.

use super::*;

const END: i64 = i64::MAX;

fn slice(b: &mut Builder, x: &str, starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]) -> String {
    let (starts, ends, axes, steps) = (b.ints(starts), b.ints(ends), b.ints(axes), b.ints(steps));
    b.op("Slice", &[x, &starts, &ends, &axes, &steps], &[])
}

pub(super) fn layout() -> Vec<Case> {
    let signed = (Signed, Unknown);
    let x: &[&[usize]] = &[&[2, 3, 4]];
    vec![
        case("reshape", x, signed, |b| {
            let target = b.ints(&[0, -1]);
            let y = b.op("Reshape", &["x0", &target], &[]);
            b.op("Tanh", &[&y], &[])
        }),
        case("reshape to a computed shape", &[&[2, 12], &[2, 3, 4]], signed, |b| {
            let target = b.op("Shape", &["x1"], &[]);
            let y = b.op("Reshape", &["x0", &target], &[]);
            b.op("Mul", &[&y, "x1"], &[])
        }),
        case("flatten", x, signed, |b| b.op("Flatten", &["x0"], &axis(2))),
        case("squeeze", &[&[2, 1, 3]], (Signed, Unknown), |b| {
            let axes = b.ints(&[1]);
            b.op("Squeeze", &["x0", &axes], &[])
        }),
        case("unsqueeze", x, signed, |b| {
            let axes = b.ints(&[0, -1]);
            b.op("Unsqueeze", &["x0", &axes], &[])
        }),
        case("transpose", x, signed, |b| b.op("Transpose", &["x0"], &[("perm", ints(&[2, 0, 1]))])),
        case("transpose reversed", x, signed, |b| b.op("Transpose", &["x0"], &[])),
        case("expand", &[&[2, 1, 3]], signed, |b| {
            let shape = b.ints(&[4, 2, 5, 3]);
            b.op("Expand", &["x0", &shape], &[])
        }),
        case("expand as for grouped queries", &[&[2, 2, 3, 4]], (Signed, Symbols), |b| {
            let two = b.ints(&[2]);
            let x = b.op("Unsqueeze", &["x0", &two], &[]);
            let shape = b.ints(&[1, 1, 2, 1, 1]);
            let y = b.op("Expand", &[&x, &shape], &[]);
            let target = b.ints(&[0, 4, -1, 4]);
            b.op("Reshape", &[&y, &target], &[])
        }),
        case("tile", &[&[2, 3]], signed, |b| {
            let repeats = b.ints(&[2, 3]);
            b.op("Tile", &["x0", &repeats], &[])
        }),
        case("trilu", &[&[3, 4]], signed, |b| {
            let k = b.constant("k", Weight::i64s(&[], &[1]));
            b.op("Trilu", &["x0", &k], &[("upper", Attr::Int(0))])
        }),
        case("cumulative sum", &[&[2, 4]], signed, |b| {
            let axis = b.constant("axis", Weight::i64s(&[], &[1]));
            b.op("CumSum", &["x0", &axis], &[("exclusive", Attr::Int(1))])
        }),
    ]
}

pub(super) fn slicing() -> Vec<Case> {
    let signed = (Signed, Unknown);
    let x: &[&[usize]] = &[&[2, 7]];
    vec![
        case("slice", x, signed, |b| slice(b, "x0", &[2], &[5], &[1], &[1])),
        case("slice to the end", x, signed, |b| slice(b, "x0", &[3], &[END], &[-1], &[1])),
        case("slice from the end", x, signed, |b| slice(b, "x0", &[-3], &[END], &[1], &[1])),
        case("slice before the end", x, signed, |b| slice(b, "x0", &[1], &[-2], &[1], &[1])),
        case("slice of two axes", x, signed, |b| slice(b, "x0", &[1, -4], &[2, -1], &[0, 1], &[1, 1])),
        case("slice at a computed place", &[&[2, 7], &[3]], signed, |b| {
            let start = b.op("Shape", &["x1"], &[]);
            let (end, axes) = (b.ints(&[6]), b.ints(&[1]));
            let y = b.op("Slice", &["x0", &start, &end, &axes], &[]);
            b.op("Mul", &[&y, "x1"], &[])
        }),
        case("slice without axes", x, signed, |b| {
            let (starts, ends) = (b.ints(&[0, 1]), b.ints(&[2, 4]));
            b.op("Slice", &["x0", &starts, &ends], &[])
        }),
        case("slice by twos", x, (Signed, Known), |b| slice(b, "x0", &[1], &[END], &[1], &[2])),
        case("slice backwards", x, (Signed, Known), |b| slice(b, "x0", &[-1], &[i64::MIN], &[1], &[-1])),
        case("concat", &[&[2, 3], &[2, 2]], signed, |b| b.op("Concat", &["x0", "x1"], &axis(-1))),
        case("concat with a constant", &[&[2, 3]], signed, |b| {
            let w = f32s(b, &[2, 2]);
            b.op("Concat", &[&w, "x0"], &axis(1))
        }),
        case("concat as in rotary embedding", &[&[2, 4]], (Signed, Unknown), |b| {
            let low = slice(b, "x0", &[0], &[2], &[1], &[1]);
            let high = slice(b, "x0", &[2], &[END], &[1], &[1]);
            let turned = b.op("Neg", &[&high], &[]);
            let rotated = b.op("Concat", &[&turned, &low], &axis(-1));
            b.op("Mul", &["x0", &rotated], &[])
        }),
        case("split", &[&[2, 6]], signed, |b| {
            let sizes = b.ints(&[1, 3, 2]);
            let parts = b.op_n("Split", &["x0", &sizes], 3, &axis(1));
            let y = b.op("Tanh", &[&parts[0]], &[]);
            b.op("Mul", &[&y, &parts[2]], &[])
        }),
        case("split into equal parts", &[&[2, 6]], (Signed, Symbols), |b| {
            let attrs = [("axis", Attr::Int(1)), ("num_outputs", Attr::Int(2))];
            let parts = b.op_n("Split", &["x0"], 2, &attrs);
            b.op("Mul", &[&parts[0], &parts[1]], &[])
        }),
        case("pad", &[&[2, 3]], signed, |b| {
            let pads = b.ints(&[0, 2, 1, 0]);
            b.op("Pad", &["x0", &pads], &[])
        }),
        case("pad along one axis", &[&[2, 3]], signed, |b| {
            let (pads, axes) = (b.ints(&[1, 2]), b.ints(&[1]));
            let value = b.scalar(0.5);
            b.op("Pad", &["x0", &pads, &value, &axes], &[])
        }),
    ]
}

pub(super) fn indexing() -> Vec<Case> {
    let signed = (Signed, Unknown);
    let x: &[&[usize]] = &[&[2, 4, 3]];
    vec![
        case("gather one", x, signed, |b| {
            let index = b.constant("i", Weight::i64s(&[], &[1]));
            b.op("Gather", &["x0", &index], &axis(1))
        }),
        case("gather the last", x, signed, |b| {
            let index = b.ints(&[-1]);
            b.op("Gather", &["x0", &index], &axis(1))
        }),
        case("gather some", x, signed, |b| {
            let indices = b.ints(&[2, 0, 2]);
            b.op("Gather", &["x0", &indices], &axis(1))
        }),
        case("gather rows by a matrix of indices", &[&[4, 3]], signed, |b| {
            let indices = b.constant("i", Weight::i64s(&[2, 2], &[1, 3, 1, 0]));
            b.op("Gather", &["x0", &indices], &axis(0))
        }),
        case("gather columns by a matrix of indices", x, signed, |b| {
            let indices = b.constant("i", Weight::i64s(&[2, 2], &[1, 3, 1, 0]));
            b.op("Gather", &["x0", &indices], &axis(1))
        }),
        case("gather elements", &[&[2, 3]], signed, |b| {
            let indices = b.constant("i", Weight::i64s(&[2, 2], &[2, 0, 1, 1]));
            b.op("GatherElements", &["x0", &indices], &axis(1))
        }),
        case("gather n-dimensional", &[&[2, 3, 2]], signed, |b| {
            let indices = b.constant("i", Weight::i64s(&[3, 2], &[0, 2, 1, 1, 0, 2]));
            b.op("GatherND", &["x0", &indices], &[])
        }),
        case("scatter n-dimensional", &[&[4, 2], &[2, 2]], signed, |b| {
            let indices = b.constant("i", Weight::i64s(&[2, 1], &[3, 1]));
            b.op("ScatterND", &["x0", &indices, "x1"], &[])
        }),
        case("scatter elements", &[&[2, 3], &[2, 1]], signed, |b| {
            let indices = b.constant("i", Weight::i64s(&[2, 1], &[2, 0]));
            b.op("ScatterElements", &["x0", &indices, "x1"], &axis(1))
        }),
        case("scatter elements, adding", &[&[2, 3], &[2, 2]], signed, |b| {
            let indices = b.constant("i", Weight::i64s(&[2, 2], &[2, 2, 0, 1]));
            let attrs = [("axis", Attr::Int(1)), ("reduction", Attr::Str("add".into()))];
            b.op("ScatterElements", &["x0", &indices, "x1"], &attrs)
        }),
    ]
}
