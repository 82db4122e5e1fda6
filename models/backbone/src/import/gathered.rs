//! ONNX Runtime's `GatherBlockQuantized` as what it is made of: a blocked `DequantizeLinear`, and a `Gather` of its floats.
//!
//! Source: `ContribOperators.md` of ONNX Runtime.

use super::ImportError;
use crate::ir::{Attr, DType, Graph, Node, Weight};

/// No table of a real model has more scales.
pub(super) const MAX_SCALES: usize = 1 << 28;

/// Rewrites each `GatherBlockQuantized` of `graph`.
pub(super) fn take_apart(graph: &mut Graph) -> Result<(), ImportError> {
    for node in std::mem::take(&mut graph.nodes) {
        if node.op == "GatherBlockQuantized" && node.domain == "com.microsoft" {
            rewrite(node, graph)?;
        } else {
            graph.nodes.push(node);
        }
    }
    Ok(())
}

fn rewrite(node: Node, graph: &mut Graph) -> Result<(), ImportError> {
    let table = Table::of(&node, graph).map_err(|problem| {
        let advice = "quantise the embeddings otherwise, or only products (op_types_to_quantize=(\"MatMul\",))";
        ImportError::node(&node, format!("{problem}: {advice}"))
    })?;
    let part = |what: &str| format!("{}~{what}", node.outputs[0]);
    let mut unpack = Node {
        op: "DequantizeLinear".into(),
        inputs: vec![part("table"), node.inputs[2].clone()],
        outputs: vec![part("floats")],
        attrs: [("axis", table.axis as i64), ("block_size", table.block as i64)]
            .map(|(name, value)| (name.to_string(), Attr::Int(value)))
            .into(),
        ..Node::default()
    };
    graph.weights.insert(part("table"), table.values);
    if let Some(zeros) = table.zeros {
        unpack.inputs.push(part("zero_points"));
        graph.weights.insert(part("zero_points"), zeros);
    }
    let gather = Node {
        name: node.name.clone(),
        op: "Gather".into(),
        inputs: vec![part("floats"), node.inputs[1].clone()],
        outputs: node.outputs[..1].to_vec(),
        attrs: [("axis".to_string(), Attr::Int(node.int("gather_axis").unwrap_or(0)))].into(),
        ..Node::default()
    };
    graph.nodes.extend([unpack, gather]);
    Ok(())
}

/// What is gathered from, in the types of `DequantizeLinear`.
struct Table {
    values: Weight,
    zeros: Option<Weight>,
    axis: usize,
    block: usize,
}

impl Table {
    fn of(node: &Node, graph: &Graph) -> Result<Self, &'static str> {
        if node.input(1).is_none() || node.output(0).is_none() {
            return Err("lacks its indices or its output");
        }
        let weight = |i: usize| node.input(i).and_then(|name| graph.weights.get(name));
        let (values, scales) = weight(0).zip(weight(2)).ok_or("has a table or scales that are no constants")?;
        let zeros = match node.input(3) {
            Some(_) => Some(weight(3).ok_or("has zero points that are no constants")?),
            None => None,
        };
        let rank = values.shape.len() as i64;
        let axis = node.int("quantize_axis").unwrap_or(1);
        let axis = if axis < 0 { axis.saturating_add(rank) } else { axis };
        let axis = usize::try_from(axis).ok().filter(|&axis| axis < values.shape.len()).ok_or("has a wrong axis")?;
        let block = node.int("block_size").unwrap_or(128);
        let block = usize::try_from(block).ok().filter(|&block| block > 0).ok_or("has a wrong block size")?;
        if scales.len() > MAX_SCALES {
            return Err("has too many scales");
        }
        let blocks = scales.shape.get(axis).copied().unwrap_or(0);
        let (values, zeros) = match (values.dtype, node.int("bits").unwrap_or(4)) {
            (DType::I4 | DType::U4, _) => (values.clone(), zeros.cloned()),
            // As MatMulNBits stores them: rows in whole bytes, zero in the middle of the range.
            (DType::U8, bits @ (4 | 8)) if axis + 1 == values.shape.len() => {
                let (dtype, middle) = if bits == 4 { (DType::U4, 0x88) } else { (DType::U8, 0x80) };
                let mut values = Weight { dtype, ..values.clone() };
                values.shape[axis] *= 8 / dtype.bits();
                let zeros = match zeros {
                    None => Weight::raw(dtype, &scales.shape, vec![middle; (scales.len() * dtype.bits()).div_ceil(8)]),
                    Some(zeros) => of_bytes(zeros, dtype, &scales.shape, blocks)?,
                };
                (values, Some(zeros))
            }
            _ => return Err("has a table of another type than 4-bit integers, or bytes along its last axis"),
        };
        let mut expected = values.shape.clone();
        expected[axis] = expected[axis].div_ceil(block);
        if scales.shape != expected || zeros.as_ref().is_some_and(|zeros| zeros.shape != expected) {
            return Err("has scales or zero points that do not fit its table");
        }
        Ok(Table { values, zeros, axis, block })
    }
}

/// Zero points `[.., blocks]` stored in whole bytes by row.
fn of_bytes(zeros: &Weight, dtype: DType, shape: &[usize], blocks: usize) -> Result<Weight, &'static str> {
    let row = (blocks * dtype.bits()).div_ceil(8);
    let rows = shape.iter().product::<usize>() / blocks.max(1);
    if zeros.dtype != DType::U8 || zeros.byte_len() != rows * row {
        return Err("has zero points that do not fit its scales");
    }
    if row * 8 == blocks * dtype.bits() {
        return Ok(Weight { dtype, shape: shape.to_vec(), data: zeros.data.clone() });
    }
    let bytes = zeros.bytes().map_err(|_| "has zero points that cannot be read")?;
    Ok(Weight::raw(dtype, shape, without_padding(&bytes, blocks)))
}

/// 4-bit elements without the half byte that ends each row of an odd number, `columns`.
fn without_padding(bytes: &[u8], columns: usize) -> Vec<u8> {
    let rows = bytes.chunks(columns.div_ceil(2));
    let elements: Vec<u8> =
        rows.flat_map(|row| row.iter().flat_map(|byte| [byte & 0x0f, byte >> 4]).take(columns)).collect();
    elements.chunks(2).map(|pair| pair[0] | pair.get(1).copied().unwrap_or(0) << 4).collect()
}
