//! Decomposed forms become one operator, unless someone wants a value inside.

use fedtt_backbone::ir::{Builder, DType, Graph, Port, PortDim};
use fedtt_backbone::shape::Facts;
use fedtt_backbone::vjp::differentiate;

use crate::cases::{gelu_decomposed, layer_normalisation_decomposed, tanh_gelu_decomposed};

fn builder() -> Builder {
    let shape = Some([2, 3, 4].map(PortDim::Known).to_vec());
    let input = |name: &str| Port { name: name.into(), dtype: DType::F32, shape: shape.clone() };
    let graph = Graph { inputs: vec![input("x0"), input("R")], ..Graph::default() };
    let facts = Facts::of_graph(&graph);
    Builder::new(graph, facts)
}

fn ops_after(build: fn(&mut Builder) -> String, also_wanted: Option<&str>) -> Vec<String> {
    let mut b = builder();
    let y = build(&mut b);
    b.graph.outputs.push(Port { name: y.clone(), dtype: DType::F32, shape: None });
    let inner = |op: &str| b.graph.nodes.iter().find(|node| node.op == op).unwrap().outputs[0].clone();
    let mut wrt = vec!["x0".to_string()];
    wrt.extend(also_wanted.map(inner));
    differentiate(&mut b, &[(y, "R".to_string())], &wrt).unwrap();
    b.graph.prune();
    b.graph.nodes.into_iter().map(|node| node.op).collect()
}

#[test]
fn decomposed_forms_become_one_operator() {
    assert_eq!(ops_after(gelu_decomposed, None), ["Gelu"]);
    assert_eq!(ops_after(tanh_gelu_decomposed, None), ["Gelu"]);
    let normalisation = ops_after(layer_normalisation_decomposed, None);
    assert!(normalisation.contains(&"LayerNormalization".to_string()), "{normalisation:?}");
    assert!(!normalisation.contains(&"Sqrt".to_string()), "{normalisation:?}");
}

#[test]
fn a_value_wanted_inside_keeps_the_form_apart() {
    assert!(ops_after(gelu_decomposed, Some("Erf")).contains(&"Erf".to_string()));
    assert!(ops_after(layer_normalisation_decomposed, Some("Sqrt")).contains(&"Sqrt".to_string()));
}
