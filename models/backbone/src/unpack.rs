//! 8-bit weights unpacked where they are used, for engines.
//!
//! An engine that runs `DequantizeLinear` multiplies every weight by its scale in every pass, one at a time, and an embedding's
//! whole table for the few rows that are read. A product is linear in its weight, so the scales move out of it, to the
//! activations:
//!
//! ```text
//! x ((Q - z) diag(s))  =  (x (Q - z)) diag(s)        scales by column of the product
//! x (diag(s) (Q - z))  =  (x diag(s)) (Q - z)        scales by row, over which the product sums
//! ```
//!
//! What is left for each weight is one conversion to float, made anew by each reader, so that no float copy outlives its use.

use std::collections::HashMap;

use crate::ir::{Attr, DType, Graph, Node, Weight};

/// The weight `[-1]`: the axis of a column.
const LAST_AXIS: &str = "unpack.last_axis";

/// What an 8-bit matrix behind `DequantizeLinear` is made of.
struct Packed {
    /// The integers, `[rows, columns]`, by the name of their weight.
    values: String,
    scale: String,
    /// Where it is not all zero.
    zero_point: Option<String>,
    axis: Axis,
}

/// Along which axis a matrix has a scale for each entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Axis {
    Rows,
    Columns,
    /// One scale for all.
    None,
}

/// Rewrites every product with, and every choice of rows of, an 8-bit matrix behind `DequantizeLinear`, in `graph` and its
/// branches. What reads such a matrix in another way goes on reading it whole.
pub(crate) fn unpack_in_place_of_use(graph: &mut Graph) {
    let found = graph.nodes.iter().filter_map(|node| Some((node.output(0)?.to_string(), Packed::of(node, graph)?)));
    let packed: HashMap<String, Packed> = found.collect();
    if packed.is_empty() {
        return;
    }
    rewrite(graph, &packed);
    graph.weights.insert(LAST_AXIS.into(), Weight::i64s(&[1], &[-1]));
    graph.prune();
}

impl Packed {
    fn of(node: &Node, graph: &Graph) -> Option<Self> {
        let weight = |at: usize| node.input(at).and_then(|name| graph.weights.get(name));
        let (values, scale) = (weight(0)?, weight(1)?);
        let [rows, columns] = values.shape[..] else { return None };
        let fits = node.is("DequantizeLinear")
            && matches!(values.dtype, DType::I8 | DType::U8)
            && scale.dtype == DType::F32
            && node.int("block_size").unwrap_or(0) == 0;
        if !fits {
            return None;
        }
        let axis = match (scale.shape.as_slice(), node.int("axis").unwrap_or(1)) {
            ([] | [1], _) => Axis::None,
            (&[n], 0 | -2) if n == rows => Axis::Rows,
            (&[n], 1 | -1) if n == columns => Axis::Columns,
            _ => return None,
        };
        let zero_point = match node.input(2) {
            Some(name) if graph.weights.get(name)?.to_i64s()?.iter().any(|&z| z != 0) => Some(name.to_string()),
            _ => None,
        };
        Some(Packed { values: node.inputs[0].clone(), scale: node.inputs[1].clone(), zero_point, axis })
    }

    /// Whether its scales go along the axis of this number.
    fn has_scales_along(&self, axis: i64) -> bool {
        matches!((self.axis, axis), (Axis::Rows, 0) | (Axis::Columns, 1))
    }
}

fn rewrite(graph: &mut Graph, packed: &HashMap<String, Packed>) {
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for mut node in std::mem::take(&mut graph.nodes) {
        for branch in node.attrs.values_mut() {
            if let Attr::Graph(branch) = branch {
                rewrite(branch, packed);
            }
        }
        let read = |at: usize| node.input(at).and_then(|name| packed.get(name));
        let made = match node.op.as_str() {
            _ if !node.domain.is_empty() => None,
            "MatMul" => read(1).map(|right| product(&node, right, 0)),
            "Gemm" => read(1).and_then(|right| gemm(&node, right)),
            "Gather" => read(0).filter(|_| node.int("axis").unwrap_or(0) == 0).map(|table| rows(&node, table)),
            _ => None,
        };
        nodes.extend(made.unwrap_or_else(|| vec![node]));
    }
    graph.nodes = nodes;
}

/// A product with `right`, summed over along its axis `contracted`.
fn product(node: &Node, right: &Packed, contracted: i64) -> Vec<Node> {
    let mut tail = Tail::new(node);
    let weight = tail.floats(right);
    let summed = right.has_scales_along(contracted);
    let mut product = node.clone();
    product.inputs[1] = weight;
    if summed {
        product.inputs[0] = tail.add("Mul", &[&node.inputs[0], &right.scale], "scaled");
        tail.nodes.push(product);
    } else {
        product.outputs = vec![tail.name("unscaled")];
        let unscaled = product.outputs[0].clone();
        tail.nodes.push(product);
        tail.finish("Mul", &[&unscaled, &right.scale]);
    }
    tail.nodes
}

fn gemm(node: &Node, right: &Packed) -> Option<Vec<Node>> {
    let contracted = i64::from(node.int("transB").unwrap_or(0) != 0);
    let summed = right.has_scales_along(contracted);
    if summed && node.int("transA").unwrap_or(0) != 0 {
        return None;
    }
    let Some(bias) = node.input(2).filter(|_| !summed).map(str::to_string) else {
        return Some(product(node, right, contracted));
    };
    if node.float("beta").unwrap_or(1.0) != 1.0 {
        return None;
    }
    let whole = format!("{}.unbiased", node.outputs[0]);
    let plain = Node { inputs: node.inputs[..2].to_vec(), outputs: vec![whole.clone()], ..node.clone() };
    let mut nodes = product(&plain, right, contracted);
    let add = Node {
        name: String::new(),
        op: "Add".into(),
        inputs: vec![whole, bias],
        attrs: Default::default(),
        ..node.clone()
    };
    nodes.push(add);
    Some(nodes)
}

/// `Gather` over rows: the rows' integers, then their floats.
fn rows(node: &Node, table: &Packed) -> Vec<Node> {
    let (ids, by_row) = (&node.inputs[1], table.axis == Axis::Rows);
    let mut tail = Tail::new(node);
    let packed = tail.add("Gather", &[&table.values, ids], "packed");
    let mut floats = tail.cast(&packed, "integers");
    let along = |tail: &mut Tail<'_>, values: &str, part: &str| {
        if !by_row {
            return values.to_string();
        }
        let picked = tail.add("Gather", &[values, ids], &format!("{part}.picked"));
        tail.add("Unsqueeze", &[&picked, LAST_AXIS], part)
    };
    if let Some(zero_point) = &table.zero_point {
        let zero_point = along(&mut tail, zero_point, "zero_point");
        let zero_point = tail.cast(&zero_point, "zero_point.float");
        floats = tail.add("Sub", &[&floats, &zero_point], "centred");
    }
    let scale = along(&mut tail, &table.scale, "scale");
    tail.finish("Mul", &[&floats, &scale]);
    tail.nodes
}

/// The nodes that take the place of one.
struct Tail<'a> {
    replaced: &'a Node,
    nodes: Vec<Node>,
}

impl<'a> Tail<'a> {
    fn new(replaced: &'a Node) -> Self {
        Tail { replaced, nodes: Vec::new() }
    }

    fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.replaced.outputs[0])
    }

    fn push(&mut self, op: &str, inputs: &[&str], output: String, attrs: &[(&str, Attr)]) {
        self.nodes.push(Node {
            op: op.into(),
            inputs: inputs.iter().map(|input| input.to_string()).collect(),
            outputs: vec![output],
            attrs: attrs.iter().map(|(name, attr)| (name.to_string(), attr.clone())).collect(),
            ..Node::default()
        });
    }

    fn add(&mut self, op: &str, inputs: &[&str], part: &str) -> String {
        let output = self.name(part);
        self.push(op, inputs, output.clone(), &[]);
        output
    }

    fn cast(&mut self, value: &str, part: &str) -> String {
        let output = self.name(part);
        self.push("Cast", &[value], output.clone(), &[("to", Attr::Int(DType::F32.onnx()))]);
        output
    }

    /// The integers as floats, less their zero points.
    fn floats(&mut self, packed: &Packed) -> String {
        let floats = self.cast(&packed.values, "integers");
        let Some(zero_point) = &packed.zero_point else { return floats };
        let mut zero_point = self.cast(zero_point, "zero_point");
        if packed.axis == Axis::Rows {
            zero_point = self.add("Unsqueeze", &[&zero_point, LAST_AXIS], "zero_point.column");
        }
        self.add("Sub", &[&floats, &zero_point], "centred")
    }

    /// The node that makes what the replaced one made.
    fn finish(&mut self, op: &str, inputs: &[&str]) {
        let output = self.replaced.outputs[0].clone();
        self.push(op, inputs, output, &[]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fedtt_runtime::{Engine, SessionOptions, Tensor, TractEngine};
    use ndarray::{ArrayD, IxDyn};

    use super::*;
    use crate::export::to_model;
    use crate::ir::{Port, PortDim};

    fn node(op: &str, inputs: &[&str], output: &str, attrs: &[(&str, i64)]) -> Node {
        Node {
            op: op.into(),
            inputs: inputs.iter().map(|s| s.to_string()).collect(),
            outputs: vec![output.into()],
            attrs: attrs.iter().map(|&(name, value)| (name.to_string(), Attr::Int(value))).collect(),
            ..Node::default()
        }
    }

    /// Every use of one 4 x 4 matrix: as it is and transposed, with and without bias, by row, and whole.
    fn uses(scale: Weight, zero_point: Option<Weight>, axis: i64) -> Graph {
        let size = |n| PortDim::Known(n);
        let float = |name: &str, shape| Port { name: name.into(), dtype: DType::F32, shape };
        let made = ["matmul", "gemm", "transposed", "biased", "picked", "whole"];
        let values: Vec<u8> = (0..16).map(|i: i32| (7 * i - 50) as i8 as u8).collect();
        let mut unpack = vec!["q", "s"];
        unpack.extend(zero_point.is_some().then_some("z"));
        let mut weights: std::collections::BTreeMap<String, Weight> = [
            ("q".to_string(), Weight::raw(DType::I8, &[4, 4], values)),
            ("s".to_string(), scale),
            ("c".to_string(), Weight::f32s(&[4], &[0.5, -1.0, 2.0, 3.0])),
        ]
        .into();
        weights.extend(zero_point.map(|z| ("z".to_string(), z)));
        Graph {
            nodes: vec![
                node("DequantizeLinear", &unpack, "w", &[("axis", axis)]),
                node("MatMul", &["x", "w"], "matmul", &[]),
                node("Gemm", &["x", "w"], "gemm", &[]),
                node("Gemm", &["x", "w"], "transposed", &[("transB", 1)]),
                node("Gemm", &["x", "w", "c"], "biased", &[("transB", 1)]),
                node("Gather", &["w", "ids"], "picked", &[("axis", 0)]),
                node("Add", &["w", "c"], "whole", &[]),
            ],
            weights,
            inputs: vec![
                float("x", Some(vec![size(2), size(4)])),
                Port { name: "ids".into(), dtype: DType::I64, shape: Some(vec![size(3)]) },
            ],
            outputs: made.iter().map(|name| float(name, None)).collect(),
            ..Graph::default()
        }
    }

    fn run(graph: &Graph) -> Vec<ArrayD<f32>> {
        let mut session =
            TractEngine::new(1).load(&to_model(graph, None).unwrap(), &SessionOptions::default()).unwrap();
        let x = ArrayD::from_shape_fn(IxDyn(&[2, 4]), |i| 0.3 * i[0] as f32 - 0.7 * i[1] as f32 + 1.0);
        let ids = ArrayD::from_shape_vec(IxDyn(&[3]), vec![2_i64, 0, 2]).unwrap();
        let outputs: Vec<&str> = graph.outputs.iter().map(|port| port.name.as_str()).collect();
        let results = session.run(&[("x", &Tensor::F32(x)), ("ids", &Tensor::I64(ids))], &outputs).unwrap();
        results.iter().map(|tensor| tensor.as_f32().unwrap().clone()).collect()
    }

    #[test]
    fn every_use_gives_what_it_gave() {
        let by_entry = || Weight::f32s(&[4], &[0.1, 0.02, 0.3, 0.05]);
        let zeros = || Some(Weight::raw(DType::I8, &[4], vec![0; 4]));
        let points = || Some(Weight::raw(DType::I8, &[4], vec![3, 0, 250, 100]));
        let one = || Weight::f32s(&[], &[0.25]);
        let cases = [
            ("rows", uses(by_entry(), zeros(), 0)),
            ("rows with zero points", uses(by_entry(), points(), 0)),
            ("columns", uses(by_entry(), zeros(), 1)),
            ("columns with zero points", uses(by_entry(), points(), -1)),
            ("one scale", uses(one(), None, 1)),
            ("one scale and zero point", uses(one(), Some(Weight::raw(DType::I8, &[], vec![9])), 1)),
        ];
        for (case, graph) in cases {
            let expected = run(&graph);
            let mut rewritten = graph.clone();
            unpack_in_place_of_use(&mut rewritten);
            let readers = rewritten.nodes.iter().filter(|node| node.reads().contains(&"w")).count();
            assert_eq!(readers, 1, "{case}: only what reads it whole reads it unpacked");
            for ((found, expected), port) in run(&rewritten).iter().zip(&expected).zip(&graph.outputs) {
                let off = (found - expected).mapv(f32::abs).fold(0.0_f32, |a, &b| a.max(b));
                assert!(off < 1e-4, "{case}, {}: off by {off}\n{found}\n{expected}", port.name);
            }
        }
    }

    #[test]
    fn branches_are_rewritten_too() {
        let mut outer = uses(Weight::f32s(&[], &[0.25]), None, 1);
        let inner = Graph {
            nodes: vec![node("MatMul", &["x", "w"], "inside", &[])],
            outputs: vec![Port { name: "inside".into(), dtype: DType::F32, shape: None }],
            ..Graph::default()
        };
        let mut branch = node("If", &["flag"], "chosen", &[]);
        branch.attrs.insert("then_branch".into(), Attr::Graph(Box::new(inner)));
        outer.nodes.push(branch);
        outer.outputs = vec![Port { name: "chosen".into(), dtype: DType::F32, shape: None }];
        unpack_in_place_of_use(&mut outer);
        assert!(outer.nodes.iter().all(|node| !node.is("DequantizeLinear")));
        assert!(outer.weights.contains_key("q") && outer.weights.contains_key("s"), "the branch reads them");
    }
}
