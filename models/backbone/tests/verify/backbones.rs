//! Backbones of one block.

use fedtt_backbone::backbone::Backbone;
use fedtt_backbone::ir::{Builder, DType, Graph, Port, PortDim, Weight};
use fedtt_backbone::shape::Facts;

pub(crate) const WIDTH: usize = 16;
const VOCABULARY: usize = 24;

/// Numbers of about unit variance that follow no simple pattern.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| 1.7 * next()).collect()
}

/// A weight of type `dtype`.
pub(crate) fn weight(b: &mut Builder, dtype: DType, shape: &[usize], seed: u32) -> String {
    let values = numbers(shape.iter().product(), seed);
    b.constant("weight", Weight::floats(dtype, shape, &values))
}

/// Embeddings, `h` = its projection, the stream `s` = embeddings + h, `m` = a projection of Gelu(s); sites are `h` and `m`, and the
/// output of type `dtype` is what `last` makes of (`s`, `m`).
pub(crate) fn backbone(dtype: DType, last: impl Fn(&mut Builder, &str, &str) -> String) -> Backbone {
    let symbol = |name: &str| PortDim::Symbol(name.into());
    let ids =
        Port { name: "input_ids".into(), dtype: DType::I64, shape: Some(vec![symbol("batch"), symbol("sequence")]) };
    let graph = Graph { inputs: vec![ids], ..Graph::default() };
    let facts = Facts::of_graph(&graph);
    let mut b = Builder::new(graph, facts);
    let table = weight(&mut b, dtype, &[VOCABULARY, WIDTH], 1);
    let embeddings = b.op("Gather", &[&table, "input_ids"], &[]);
    let [attn, mlp] = [2, 3].map(|seed| {
        let values: Vec<f32> = numbers(WIDTH * WIDTH, seed).iter().map(|x| 0.3 * x).collect();
        b.constant("projection", Weight::floats(dtype, &[WIDTH, WIDTH], &values))
    });
    let h = b.op("MatMul", &[&embeddings, &attn], &[]);
    let s = b.op("Add", &[&embeddings, &h], &[]);
    let gelu = b.op("Gelu", &[&s], &[]);
    let m = b.op("MatMul", &[&gelu, &mlp], &[]);
    let y = last(&mut b, &s, &m);
    b.graph.outputs.push(Port { name: y, dtype, shape: None });
    Backbone::new(b.graph, Some(&[("0.attn".into(), h), ("0.mlp".into(), m)])).unwrap()
}

/// The sum.
pub(crate) fn plain(b: &mut Builder, s: &str, m: &str) -> String {
    b.op("Add", &[s, m], &[])
}
