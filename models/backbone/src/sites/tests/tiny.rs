//! Transformers of a few nodes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::ir::{Attr, DType, Graph, Node, Port, PortDim, Weight};

pub(crate) const VOCABULARY: usize = 11;
pub(crate) const HIDDEN: usize = 4;
/// Width of projected embeddings before and after the blocks.
pub(crate) const EMBEDDING: usize = 3;

/// Token ids in; blocks of one head each, without norms; whatever `tail` makes of the last block's stream `x2` out.
#[derive(Clone, Copy)]
pub(crate) struct Tiny<'a> {
    /// Whether a mask hides later tokens.
    pub(crate) causal: bool,
    /// Whether narrower embeddings are projected and added to positions first.
    pub(crate) projected: bool,
    /// Whether attention and MLP read the same, and are added to each other first.
    pub(crate) parallel: bool,
    /// `op inputs -> output` lines, with the weights `head`, `three`, `back` and `lm` at hand.
    pub(crate) tail: &'a [&'a str],
    pub(crate) outputs: &'a [&'a str],
}

impl Default for Tiny<'_> {
    fn default() -> Self {
        Tiny { causal: false, projected: false, parallel: false, tail: &[], outputs: &["x2"] }
    }
}

impl Tiny<'_> {
    pub(crate) fn graph(self) -> Graph {
        let mut weights: BTreeMap<String, Weight> = BTreeMap::new();
        let mut seed = 0u32;
        let mut matrix = |rows: usize, columns: usize| {
            let values: Vec<f32> = (0..rows * columns)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
                })
                .collect();
            Weight::f32s(&[rows, columns], &values)
        };
        let embedding = if self.projected { EMBEDDING } else { HIDDEN };
        for (name, rows, columns) in [
            ("table", VOCABULARY, embedding),
            ("positions", 16, HIDDEN),
            ("in", EMBEDDING, HIDDEN),
            ("head", HIDDEN, VOCABULARY),
            ("three", HIDDEN, 3),
            ("back", HIDDEN, EMBEDDING),
            ("lm", EMBEDDING, VOCABULARY),
        ] {
            weights.insert(name.into(), matrix(rows, columns));
        }
        for block in 0..2 {
            for (name, rows, columns) in [
                ("q", HIDDEN, HIDDEN),
                ("k", HIDDEN, HIDDEN),
                ("v", HIDDEN, HIDDEN),
                ("o", HIDDEN, HIDDEN),
                ("up", HIDDEN, 6),
                ("down", 6, HIDDEN),
            ] {
                weights.insert(format!("w{name}{block}"), matrix(rows, columns));
            }
        }
        for (name, value) in [("zero", 0), ("one", 1)] {
            weights.insert(name.into(), Weight::i64s(&[], &[value]));
            weights.insert(format!("axis_{name}"), Weight::i64s(&[1], &[value]));
        }
        weights.insert("open".into(), Weight::f32s(&[], &[0.0]));
        weights.insert("shut".into(), Weight::f32s(&[], &[-1e9]));

        let mut text = self.embeddings() + &self.mask();
        for block in 0..2 {
            text += &self.block(block);
        }
        text += &self.tail.join("\n");
        let ids = vec![PortDim::Symbol("batch".into()), PortDim::Symbol("sequence".into())];
        let input = |name: &str| Port { name: name.into(), dtype: DType::I64, shape: Some(ids.clone()) };
        let inputs: &[&str] = if self.causal { &["input_ids"] } else { &["input_ids", "attention_mask"] };
        let outputs = self.outputs.iter();
        let mut graph = Graph {
            name: "tiny".into(),
            nodes: text.lines().filter(|line| !line.is_empty()).map(node).collect(),
            weights,
            inputs: inputs.iter().map(|name| input(name)).collect(),
            outputs: outputs.map(|name| Port { name: name.to_string(), dtype: DType::F32, shape: None }).collect(),
        };
        graph.prune();
        graph
    }

    fn embeddings(&self) -> String {
        let first = if self.projected {
            "Gather table input_ids -> e\nMatMul e in -> p\nGather positions range -> at\nAdd p at -> x0\n"
        } else {
            "Gather table input_ids -> x0\n"
        };
        format!("Shape input_ids -> size\nGather size one -> n\nRange zero n one -> range\n{first}")
    }

    fn mask(&self) -> String {
        if !self.causal {
            return "Unsqueeze attention_mask axis_one -> tokens\nEqual tokens zero -> padding\nWhere padding shut open -> mask\n"
                .into();
        }
        "Unsqueeze range axis_zero -> keys\nUnsqueeze range axis_one -> queries\n\
         LessOrEqual keys queries -> seen\nWhere seen open shut -> mask\n"
            .into()
    }

    fn block(&self, i: usize) -> String {
        let mut text = String::new();
        for name in ["q", "k", "v"] {
            let _ = writeln!(text, "MatMul x{i} w{name}{i} -> {name}{i}");
        }
        let _ = writeln!(text, "Transpose k{i} -> t{i}\nMatMul q{i} t{i} -> raw{i}");
        let _ = writeln!(
            text,
            "Add raw{i} mask -> scores{i}\nSoftmax scores{i} -> p{i}\nMatMul p{i} v{i} -> c{i}\nMatMul c{i} wo{i} -> attn{i}"
        );
        let (read, joined) = match self.parallel {
            true => (format!("x{i}"), format!("Add attn{i} mlp{i} -> both{i}\nAdd both{i} x{i} -> x{}", i + 1)),
            false => (format!("a{i}"), format!("Add a{i} mlp{i} -> x{}", i + 1)),
        };
        if !self.parallel {
            let _ = writeln!(text, "Add x{i} attn{i} -> a{i}");
        }
        let _ = writeln!(
            text,
            "MatMul {read} wup{i} -> up{i}\nRelu up{i} -> act{i}\nMatMul act{i} wdown{i} -> mlp{i}\n{joined}"
        );
        text
    }
}

fn node(line: &str) -> Node {
    let (made, output) = line.split_once(" -> ").unwrap();
    let mut words = made.split(' ').map(str::to_string);
    let op = words.next().unwrap();
    let attrs = match op.as_str() {
        "Transpose" => BTreeMap::from([("perm".into(), Attr::Ints(vec![0, 2, 1]))]),
        _ => BTreeMap::new(),
    };
    Node { op, inputs: words.collect(), outputs: vec![output.into()], attrs, ..Node::default() }
}
