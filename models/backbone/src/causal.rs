//! Whether attention looks back only, found by running the masks alone.

use std::collections::{BTreeSet, HashSet};

use fedtt_runtime::{Engine, SessionOptions, Tensor, TractEngine};
use ndarray::{Array2, ArrayD, IxDyn};

use crate::backbone::{Backbone, Role};
use crate::ir::{Attr, DType, Graph, Node, Port};
use crate::shape::{Facts, sizes};
use crate::sites::{SiteKind, View, probabilities, projection_behind};

/// Tokens of the text that is tried.
const TOKENS: usize = 5;
/// Nothing on the way from masks to probabilities has more elements at that length, tables as wide as the longest text included.
const MOST_ELEMENTS: usize = 1 << 24;
/// Probabilities below count as none.
const NONE: f32 = 1e-6;

/// Whether every token attends to itself and those before it alone, as in a causal language model.
///
/// All scores are taken to be equal and no token to be padding, and what is left of the graph between the products with
/// data and the attention's probabilities, which is masks and position biases, is run. `None` where that cannot be done.
pub(crate) fn attends_back_only(backbone: &Backbone) -> Option<bool> {
    let view = View::new(&backbone.graph, &backbone.facts);
    let attention = backbone.anatomy.sites.iter().filter(|site| site.kind == SiteKind::Attn);
    let found: Option<BTreeSet<&str>> = attention.map(|site| probabilities(&view, &site.input)).collect();
    let found: Vec<&str> = found.filter(|found| !found.is_empty())?.into_iter().collect();
    let (graph, mut feeds) = masks_alone(&view, &found)?;
    for port in graph.inputs.iter().filter(|port| backbone.feeds.iter().any(|(_, name)| *name == port.name)) {
        feeds.push((port.name.clone(), backbone.feed(&port.name, a_text(backbone, &port.name)?)));
    }
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let model = backbone.export(&graph).ok()?;
    let mut session = TractEngine::new(1).load(&model, &SessionOptions::default()).ok()?;
    let outputs: Vec<&str> = graph.outputs.iter().map(|port| port.name.as_str()).collect();
    let outputs = session.run(&feeds, &outputs).ok()?;
    let causal: Option<Vec<bool>> = outputs.iter().map(|tensor| looks_back(tensor.as_f32()?)).collect();
    Some(causal?.into_iter().all(|causal| causal))
}

/// Ids that are not padding's, a mask of ones, one segment, positions from 0: `[1, TOKENS]`.
fn a_text(backbone: &Backbone, input: &str) -> Option<ArrayD<i64>> {
    let role = backbone.feeds.iter().find(|(_, name)| name == input).map(|(role, _)| *role)?;
    let value = |i: usize| match role {
        Role::Ids => 2 + i as i64,
        Role::Mask => 1,
        Role::Types => 0,
        Role::Positions => i as i64,
    };
    Some(Array2::from_shape_fn((1, TOKENS), |(_, i)| value(i)).into_dyn())
}

/// What is fed, by name.
type Feeds = Vec<(String, Tensor)>;

/// The part of the graph that makes `probabilities` once products with data are given; these become inputs, to be fed the
/// zeros returned. All are 32-bit floats, as engines take and return them.
fn masks_alone(view: &View<'_>, probabilities: &[&str]) -> Option<(Graph, Feeds)> {
    let products = products_behind(view, probabilities);
    let mut graph = view.graph.clone();
    graph.nodes.retain(|node| node.output(0).is_none_or(|output| !products.contains(output)));
    let mut scores = Vec::new();
    for (i, product) in products.into_iter().enumerate() {
        let name = format!("{product}~scores");
        graph.nodes.insert(i, cast(&name, product, view.facts.dtype(product).unwrap_or(DType::F32)));
        graph.inputs.push(Port { name: name.clone(), dtype: DType::F32, shape: None });
        scores.push((name, view.facts.shape_at(product, &sizes(1, TOKENS))?));
    }
    graph.outputs.clear();
    for value in probabilities {
        let name = format!("{value}~probabilities");
        graph.nodes.push(cast(value, &name, DType::F32));
        graph.outputs.push(Port { name, dtype: DType::F32, shape: None });
    }
    graph.prune();
    let read: HashSet<String> = graph.nodes.iter().flat_map(Node::reads).map(str::to_string).collect();
    graph.inputs.retain(|port| read.contains(&port.name));
    let zeros = |shape: Vec<usize>| Tensor::F32(ArrayD::zeros(IxDyn(&shape)));
    let small = is_small(&graph, view.facts);
    small.then(|| (graph, scores.into_iter().map(|(name, shape)| (name, zeros(shape))).collect()))
}

fn cast(from: &str, to: &str, dtype: DType) -> Node {
    let attrs = [("to".to_string(), Attr::Int(dtype.onnx()))].into();
    Node { op: "Cast".into(), inputs: vec![from.into()], outputs: vec![to.into()], attrs, ..Node::default() }
}

/// Floating-point products with data nearest behind `values`.
fn products_behind<'a>(view: &View<'a>, values: &[&'a str]) -> BTreeSet<&'a str> {
    let mut pending = values.to_vec();
    let (mut seen, mut products) = (HashSet::new(), BTreeSet::new());
    while let Some(value) = pending.pop() {
        let Some(node) = view.producer(value).filter(|_| seen.insert(value)) else { continue };
        let of_data = matches!(node.op.as_str(), "MatMul" | "Gemm" | "Einsum" | "MatMulNBits")
            && projection_behind(view, value).is_some();
        if of_data {
            products.insert(value);
        } else {
            let float = |value: &&str| view.facts.dtype(value).is_none_or(|dtype| dtype.is_float());
            pending.extend(node.inputs.iter().map(String::as_str).filter(float));
        }
    }
    products
}

/// Whether a run for one text is sure to need little time and memory, which nobody knows of loops and branches.
fn is_small(graph: &Graph, facts: &Facts) -> bool {
    let at = sizes(1, TOKENS);
    let elements = |name: &String| {
        let shape = facts.shape_at(name, &at)?;
        shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
    };
    let flat = graph.nodes.iter().all(|node| !node.attrs.values().any(|attr| matches!(attr, Attr::Graph(_))));
    let mut made = graph.nodes.iter().flat_map(|node| &node.outputs).filter(|name| facts.get(name).is_some());
    flat && made.all(|name| elements(name).is_some_and(|elements| elements <= MOST_ELEMENTS))
}

/// Whether no row has a probability past its diagonal though rows have some before it. `[.., TOKENS, TOKENS]`.
fn looks_back(probabilities: &ArrayD<f32>) -> Option<bool> {
    let shape = probabilities.shape();
    if shape.len() < 2 || shape[shape.len() - 2..] != [TOKENS, TOKENS] || probabilities.iter().any(|p| p.is_nan()) {
        return None;
    }
    let any = |wanted: fn(usize, usize) -> bool| {
        let mut cells = probabilities.iter().enumerate();
        cells.any(|(i, p)| wanted(i / TOKENS % TOKENS, i % TOKENS) && *p > NONE)
    };
    Some(!any(|query, key| key > query) && any(|query, key| key < query))
}

#[cfg(test)]
mod tests;
