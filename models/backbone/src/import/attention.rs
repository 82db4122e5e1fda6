//! ONNX's `Attention` as two products and the softmax between them.

use super::newer::{names, type_of, width};
use crate::ir::{Attr, Builder, DType, Node};

/// The last dimension of a head, its number and the value `[batch, heads, sequence, width]`.
struct Heads {
    value: String,
    heads: i64,
    width: i64,
}

/// `Softmax(scale Q K' + mask) V`. A query that may attend to nothing gets zeros.
pub(super) fn attention(b: &mut Builder, node: &Node) -> Result<(), &'static str> {
    let ([q, k, v], y) = names(node)?;
    if (4..7).any(|i| node.input(i).is_some()) {
        return Err("takes a key-value cache");
    }
    if ["left_window_size", "right_window_size"].iter().any(|side| node.int(side).unwrap_or(-1) != -1) {
        return Err("attends within a window");
    }
    let flat = b.facts.rank(q) == Some(3);
    let q = heads(b, q, node.int("q_num_heads"))?;
    let [k, v] = [k, v].map(|value| heads(b, value, node.int("kv_num_heads")));
    let (k, v) = (repeated(b, k?, q.heads)?, repeated(b, v?, q.heads)?);

    let scale = node.float("scale").unwrap_or(1.0 / (q.width as f32).sqrt());
    let scale = b.scalar_like(scale, &q.value);
    let scaled = b.op("Mul", &[&q.value, &scale], &[]);
    let keys = b.op("Transpose", &[&k.value], &[("perm", Attr::Ints(vec![0, 1, 3, 2]))]);
    let mut scores = b.op("MatMul", &[&scaled, &keys], &[]);
    let cap = node.float("softcap").unwrap_or(0.0);
    if cap > 0.0 {
        let cap = b.scalar_like(cap, &scores);
        scores = b.op("Div", &[&scores, &cap], &[]);
        scores = b.op("Tanh", &[&scores], &[]);
        scores = b.op("Mul", &[&scores, &cap], &[]);
    }
    let mask = match node.input(3) {
        Some(mask) => Some((mask, b.facts.dtype(mask).ok_or("has a mask of unknown type")? == DType::Bool)),
        None => None,
    };
    let own = b.facts.dtype(&q.value).ok_or("reads a value of unknown type")?;
    let lowest = b.scalar(if own == DType::F16 { -65504.0 } else { -3e38 });
    let lowest = b.cast(&lowest, own);
    let mut allowed = None;
    if let Some((mask, is_boolean)) = mask {
        if is_boolean {
            allowed = Some(mask.to_string());
        } else {
            // The infinite would leave nothing to divide by where a query may attend to nothing.
            let finite = b.op("Max", &[mask, &lowest], &[]);
            scores = b.op("Add", &[&scores, &finite], &[]);
            let infinite = b.scalar_like(f32::NEG_INFINITY, mask);
            allowed = Some(b.op("Greater", &[mask, &infinite], &[]));
        }
    }
    if node.int("is_causal").unwrap_or(0) != 0 {
        let causal = causal(b, &q.value, &k.value);
        allowed = Some(match &allowed {
            Some(allowed) => b.op("And", &[allowed, &causal], &[]),
            None => causal,
        });
    }
    if let Some(allowed) = &allowed {
        scores = b.op("Where", &[allowed, &scores, &lowest], &[]);
    }
    let inner = type_of(b, node, "softmax_precision", &scores)?;
    let scores = b.cast(&scores, inner);
    let shares = b.op("Softmax", &[&scores], &[("axis", Attr::Int(-1))]);
    let shares = b.cast(&shares, own);
    let mut context = b.op("MatMul", &[&shares, &v.value], &[]);
    if let (Some(allowed), Some(_)) = (allowed, mask) {
        context = without_blind(b, &context, &allowed);
    }
    if flat {
        let context = b.op("Transpose", &[&context], &[("perm", Attr::Ints(vec![0, 2, 1, 3]))]);
        let shape = b.ints(&[0, 0, -1]);
        b.push("Reshape", &[&context, &shape], &[y], &[]);
    } else {
        b.push("Identity", &[&context], &[y], &[]);
    }
    Ok(())
}

/// `value` by heads; `stated` is their number where they lie side by side.
fn heads(b: &mut Builder, value: &str, stated: Option<i64>) -> Result<Heads, &'static str> {
    let value = match b.facts.rank(value) {
        Some(4) => value.to_string(),
        Some(3) => {
            let heads = stated.filter(|&heads| heads > 0).ok_or("does not say how many heads there are")?;
            let shape = b.ints(&[0, 0, heads, -1]);
            let split = b.op("Reshape", &[value, &shape], &[]);
            b.op("Transpose", &[&split], &[("perm", Attr::Ints(vec![0, 2, 1, 3]))])
        }
        _ => return Err("reads a value of neither 3 nor 4 dimensions"),
    };
    let heads = b.facts.shape(&value).and_then(|shape| shape.get(1)?.as_known()).filter(|&heads| heads > 0);
    let heads = heads.ok_or("reads a value whose number of heads is not known")?;
    let width = width(b, &value)?;
    Ok(Heads { value, heads, width })
}

/// Each head as often as it takes to make `wanted`.
fn repeated(b: &mut Builder, of: Heads, wanted: i64) -> Result<Heads, &'static str> {
    if of.heads == wanted {
        return Ok(of);
    }
    if wanted % of.heads != 0 {
        return Err("has queries whose number of heads is no multiple of the keys'");
    }
    let axes = b.ints(&[2]);
    let grouped = b.op("Unsqueeze", &[&of.value, &axes], &[]);
    let times = b.ints(&[1, 1, wanted / of.heads, 1, 1]);
    let expanded = b.op("Expand", &[&grouped, &times], &[]);
    let shape = b.ints(&[0, wanted, -1, of.width]);
    Ok(Heads { value: b.op("Reshape", &[&expanded, &shape], &[]), heads: wanted, width: of.width })
}

/// Whether query i comes no earlier than key j, `[queries, keys]`.
fn causal(b: &mut Builder, q: &str, k: &str) -> String {
    let axes = b.ints(&[0]);
    let mut range = |value: &str| {
        let length = b.op("Shape", &[value], &[("start", Attr::Int(2)), ("end", Attr::Int(3))]);
        let length = b.op("Squeeze", &[&length, &axes], &[]);
        let [zero, one] = [0, 1].map(|number| b.constant("number", crate::ir::Weight::i64s(&[], &[number])));
        b.op("Range", &[&zero, &length, &one], &[])
    };
    let (queries, keys) = (range(q), range(k));
    let axes = b.ints(&[1]);
    let queries = b.op("Unsqueeze", &[&queries, &axes], &[]);
    b.op("LessOrEqual", &[&keys, &queries], &[])
}

/// `context` with zeros for queries that are allowed no key.
fn without_blind(b: &mut Builder, context: &str, allowed: &str) -> String {
    let numbers = b.cast(allowed, DType::F32);
    let axes = b.ints(&[-1]);
    let any = b.op("ReduceMax", &[&numbers, &axes], &[("keepdims", Attr::Int(1))]);
    let any = b.cast(&any, DType::Bool);
    let zero = b.scalar_like(0.0, context);
    b.op("Where", &[&any, context, &zero], &[])
}
