//! Merging the equal nodes that independent rules append.

use std::collections::{HashMap, HashSet};

use crate::ir::{Builder, Data};

/// What a graph held before rules were applied to it.
pub(crate) struct Before {
    nodes: usize,
    weights: HashSet<String>,
}

impl Before {
    pub(crate) fn of(b: &Builder) -> Self {
        Before { nodes: b.graph.nodes.len(), weights: b.graph.weights.keys().cloned().collect() }
    }
}

/// Merges nodes appended since `before` that apply the same operator to the same inputs, and equal small constants
/// added since, and renames the values of `results` accordingly.
pub(crate) fn merge_equal_nodes(b: &mut Builder, before: &Before, results: &mut HashMap<String, String>) {
    let mut renamed = merge_constants(b, before);
    let mut seen: HashMap<String, Vec<String>> = HashMap::new();
    let tail = b.graph.nodes.split_off(before.nodes);
    for mut node in tail {
        for input in &mut node.inputs {
            if let Some(kept) = renamed.get(input) {
                input.clone_from(kept);
            }
        }
        let key = format!("{}\u{0}{}\u{0}{:?}\u{0}{:?}", node.domain, node.op, node.inputs, node.attrs);
        match seen.get(&key).filter(|outputs| outputs.len() == node.outputs.len()) {
            Some(outputs) => renamed.extend(node.outputs.into_iter().zip(outputs.iter().cloned())),
            None => {
                seen.insert(key, node.outputs.clone());
                b.graph.nodes.push(node);
            }
        }
    }
    for value in results.values_mut() {
        if let Some(kept) = renamed.get(value) {
            value.clone_from(kept);
        }
    }
}

/// Largest constant compared by content, in bytes.
const SMALL: usize = 256;

fn merge_constants(b: &mut Builder, before: &Before) -> HashMap<String, String> {
    let mut kept: HashMap<String, String> = HashMap::new();
    let mut renamed = HashMap::new();
    for (name, weight) in &b.graph.weights {
        let Data::Bytes(bytes) = &weight.data else { continue };
        if bytes.len() > SMALL || before.weights.contains(name) {
            continue;
        }
        let key = format!("{:?}{:?}{bytes:?}", weight.dtype, weight.shape);
        match kept.get(&key) {
            Some(first) => {
                renamed.insert(name.clone(), first.clone());
            }
            None => {
                kept.insert(key, name.clone());
            }
        }
    }
    b.graph.weights.retain(|name, _| !renamed.contains_key(name));
    renamed
}
