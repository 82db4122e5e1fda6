//! `backbone.json`: what the graph is, for those who train in it.

use serde::{Deserialize, Serialize};

use crate::ir::{Attr, DType, Graph};
use crate::sites::Anatomy;
use crate::training::Pooling;

/// What a bundle says of its backbone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The model the bundle was prepared from.
    pub source: Origin,
    /// Blocks, sites, hidden size and the tensors training starts from.
    pub anatomy: Anatomy,
    /// Rows of the embedding table, if it was recognised.
    pub vocabulary: Option<usize>,
    /// How most weights are stored.
    pub precision: Precision,
    /// How hidden states become one vector per text.
    pub pooling: Pooling,
    /// Names of the classes, in order, if the bundle is meant for one task.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The licence's name, such as `Apache-2.0`; its text is in `LICENSE.txt`.
    pub licence: Option<String>,
}

/// The file a bundle was prepared from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// File name, without folders.
    pub file: String,
    /// SHA-256 of that file in lower-case hexadecimal (of the graph's file alone where weights lie beside it).
    pub sha256: String,
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Precision {
    Float32,
    Float16,
    BFloat16,
    Int8,
    Int4,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Precision::Float32 => "float32",
            Precision::Float16 => "float16",
            Precision::BFloat16 => "bfloat16",
            Precision::Int8 => "int8",
            Precision::Int4 => "int4",
        })
    }
}

impl Precision {
    /// How most elements of the graph's matrices are stored. Tables that are only looked up in count only where the
    /// graph has no other matrix.
    pub fn of(graph: &Graph) -> Self {
        let looked_up = |name: &str| {
            let mut readers = graph.nodes.iter().filter(|n| n.inputs.iter().any(|i| i == name)).peekable();
            readers.peek().is_some() && readers.all(|n| n.is("Gather"))
        };
        let packed = |name: &str| {
            let node = graph.nodes.iter().find(|n| n.op == "MatMulNBits" && n.input(1) == Some(name));
            node.is_some_and(|n| matches!(n.attrs.get("bits"), Some(Attr::Int(4)) | None))
        };
        let mut counts =
            [Precision::Float32, Precision::Float16, Precision::BFloat16, Precision::Int8, Precision::Int4]
                .map(|precision| (0usize, 0usize, precision));
        for (name, weight) in graph.weights.iter().filter(|(_, w)| w.shape.len() >= 2) {
            let (slot, elements) = match weight.dtype {
                DType::F32 | DType::F64 => (0, weight.len()),
                DType::F16 => (1, weight.len()),
                DType::BF16 => (2, weight.len()),
                DType::U8 if packed(name) => (4, 2 * weight.len()),
                DType::I8 | DType::U8 => (3, weight.len()),
                DType::I4 | DType::U4 => (4, weight.len()),
                _ => continue,
            };
            if looked_up(name) {
                counts[slot].1 += elements;
            } else {
                counts[slot].0 += elements;
            }
        }
        let most = counts.iter().max_by_key(|(products, tables, _)| (*products, *tables));
        most.map_or(Precision::Float32, |(_, _, precision)| *precision)
    }
}
