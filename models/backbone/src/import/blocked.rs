//! Embedding tables with a scale for each block of a row: rows are picked first and made floats after.
//!
//! No operator picks 4-bit elements, so pairs of them are picked as bytes, and a table of all bytes says which floats the
//! two are.

use std::collections::BTreeMap;

use super::gathered::MAX_SCALES;
use crate::ir::{Attr, DType, Graph, Node, Weight};

/// Rewrites `Gather(DequantizeLinear(table))` over rows, for each table in blocks along its rows that is read in no other
/// way.
pub(super) fn pick_before_unpacking(graph: &mut Graph) {
    let tables = tables(graph);
    for node in std::mem::take(&mut graph.nodes) {
        let made = node.output(0).unwrap_or_default();
        match node.input(0).and_then(|floats| tables.get(floats)) {
            Some(table) => graph.nodes.extend(table.pick(&node)),
            None if tables.contains_key(made) => {}
            None => graph.nodes.push(node),
        }
    }
    graph.weights.extend(tables.into_values().flat_map(|table| table.weights));
}

/// The tables by the floats made of them.
fn tables(graph: &Graph) -> BTreeMap<String, Table> {
    let consumers = graph.consumers();
    let readers = |name: &str| consumers.get(name).into_iter().flatten().map(|&i| &graph.nodes[i]);
    let returned = |name: &str| graph.outputs.iter().any(|port| port.name == name);
    let table = |node: &Node| {
        let (packed, floats) = (node.input(0)?, node.output(0)?);
        let picks = |reader: &Node| {
            let rows = reader.is("Gather") && reader.int("axis").unwrap_or(0) == 0;
            rows && reader.input(0) == Some(floats) && reader.input(1).is_some_and(|ids| ids != floats)
        };
        let only_picked = !returned(floats) && !returned(packed) && readers(floats).all(picks);
        if only_picked && readers(packed).count() == 1 {
            Some((floats.to_string(), Table::of(node, graph)?))
        } else {
            None
        }
    };
    graph.nodes.iter().filter(|node| node.is("DequantizeLinear")).filter_map(table).collect()
}

/// A table `[rows, columns]` of integers in whole blocks.
struct Table {
    /// The name of its floats, with which those of its parts begin.
    name: String,
    bits: usize,
    /// The floats' type.
    dtype: DType,
    /// Its parts, by name.
    weights: BTreeMap<String, Weight>,
}

impl Table {
    /// What `node` unpacks, if it is such a table.
    fn of(node: &Node, graph: &Graph) -> Option<Self> {
        let weight = |i: usize| node.input(i).and_then(|name| graph.weights.get(name));
        let (values, scales) = (weight(0)?, weight(1)?);
        let [rows, columns] = values.shape[..] else { return None };
        let block = usize::try_from(node.int("block_size")?).ok().filter(|&block| block > 0)?;
        let (blocks, bits) = (columns / block, values.dtype.bits());
        let signed = match values.dtype {
            DType::I4 | DType::I8 => true,
            DType::U4 | DType::U8 => false,
            _ => return None,
        };
        let along_rows = matches!(node.int("axis").unwrap_or(1), 1 | -1) && scales.shape == [rows, blocks];
        let whole = columns == blocks * block && block.is_multiple_of(8 / bits) && rows * blocks > 0;
        if scales.len() > MAX_SCALES || !along_rows || !whole || !scales.dtype.is_float() {
            return None;
        }
        let zeros = match node.input(2) {
            Some(_) => elements(weight(2).filter(|zeros| zeros.shape == scales.shape)?)?,
            None => Vec::new(),
        };
        let mut table =
            Table { name: node.output(0)?.to_string(), bits, dtype: scales.dtype, weights: BTreeMap::new() };
        let one_each = |weight: Weight| Weight { shape: vec![rows, blocks, 1, 1], ..weight };
        let bytes = if signed { DType::I8 } else { DType::U8 };
        if bits == 4 {
            let half = |half: u8| f32::from(if signed && half > 7 { half as i8 - 16 } else { half as i8 });
            let pairs: Vec<f32> = (0..=u8::MAX).flat_map(|byte| [half(byte & 0x0f), half(byte >> 4)]).collect();
            table.add("pairs", Weight::f32s(&[256, 2], &pairs));
            table.add("values", Weight { dtype: DType::U8, shape: vec![rows, blocks, block / 2], ..values.clone() });
        } else {
            table.add("values", Weight { shape: vec![rows, blocks, block, 1], ..values.clone() });
        }
        if zeros.iter().any(|&zero| zero != 0) {
            table.add("zero_points", one_each(Weight::raw(bytes, &scales.shape, zeros)));
        }
        table.add("scales", one_each(scales.clone()));
        table.add("columns", Weight::i64s(&[1], &[columns as i64]));
        Some(table)
    }

    fn part(&self, part: &str) -> String {
        format!("{}~{part}", self.name)
    }

    fn add(&mut self, part: &str, weight: Weight) {
        self.weights.insert(self.part(part), weight);
    }

    /// The nodes that make the rows which `gather` picks.
    fn pick(&self, gather: &Node) -> Vec<Node> {
        let (ids, output) = (&gather.inputs[1], gather.output(0).unwrap_or_default());
        let mut nodes: Vec<Node> = Vec::new();
        let mut add = |op: &str, inputs: &[&str], part: &str, attr: Option<(&str, i64)>| {
            let made = format!("{output}~{part}");
            nodes.push(Node {
                op: op.into(),
                inputs: inputs.iter().map(|input| input.to_string()).collect(),
                outputs: vec![made.clone()],
                attrs: attr.map(|(name, value)| (name.to_string(), Attr::Int(value))).into_iter().collect(),
                ..Node::default()
            });
            made
        };
        let to = |dtype: DType| Some(("to", dtype.onnx()));
        let mut floats = add("Gather", &[&self.part("values"), ids], "packed", None);
        if self.bits == 4 {
            let bytes = add("Cast", &[&floats], "bytes", to(DType::I32));
            floats = add("Gather", &[&self.part("pairs"), &bytes], "integers", None);
        } else {
            floats = add("Cast", &[&floats], "integers", to(DType::F32));
        }
        if self.weights.contains_key(&self.part("zero_points")) {
            let zeros = add("Gather", &[&self.part("zero_points"), ids], "packed_zeros", None);
            let zeros = add("Cast", &[&zeros], "zeros", to(DType::F32));
            floats = add("Sub", &[&floats, &zeros], "centred", None);
        }
        let mut scales = add("Gather", &[&self.part("scales"), ids], "scales", None);
        if self.dtype != DType::F32 {
            scales = add("Cast", &[&scales], "scales.float", to(DType::F32));
        }
        floats = add("Mul", &[&floats, &scales], "scaled", None);
        if self.dtype != DType::F32 {
            floats = add("Cast", &[&floats], "rounded", to(self.dtype));
        }
        let shape = add("Shape", &[ids], "leading", None);
        let shape = add("Concat", &[&shape, &self.part("columns")], "shape", Some(("axis", 0)));
        nodes.push(Node {
            name: gather.name.clone(),
            op: "Reshape".into(),
            inputs: vec![floats, shape],
            outputs: gather.outputs.clone(),
            ..Node::default()
        });
        nodes
    }
}

/// The elements of a tensor of 4 or 8 bits, a byte each.
fn elements(weight: &Weight) -> Option<Vec<u8>> {
    let bytes = weight.bytes().ok()?;
    let halves = |signed: bool| {
        let half = move |half: u8| if signed && half > 7 { half | 0xf0 } else { half };
        bytes.iter().flat_map(|byte| [half(byte & 0x0f), half(byte >> 4)]).take(weight.len()).collect()
    };
    match weight.dtype {
        DType::I4 => Some(halves(true)),
        DType::U4 => Some(halves(false)),
        DType::I8 | DType::U8 => Some(bytes.to_vec()),
        _ => None,
    }
}
