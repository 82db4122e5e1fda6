//! Facts of graph inputs, with one name for the batch and one for the length whatever exporters call them.

use std::collections::HashMap;

use super::{Dim, Fact};
use crate::ir::{Graph, Port, PortDim};

/// Symbol of the number of sequences in a batch.
pub const BATCH: &str = "batch";
/// Symbol of the number of tokens in a sequence.
pub const SEQUENCE: &str = "sequence";

pub(super) fn facts_of_inputs(graph: &Graph) -> Vec<(String, Fact)> {
    let mut shared: HashMap<&str, &str> = HashMap::new();
    for port in graph.inputs.iter().filter(|port| is_token_input(port)) {
        for (dim, name) in port.shape.iter().flatten().zip([BATCH, SEQUENCE]) {
            if let PortDim::Symbol(own) = dim {
                shared.entry(own).or_insert(name);
            }
        }
    }
    let fact = |port: &Port| {
        let dim = |(axis, dim): (usize, &PortDim)| match dim {
            PortDim::Known(size) => Dim::known(i64::try_from(*size).unwrap_or(i64::MAX)),
            _ if is_token_input(port) => Dim::symbol([BATCH, SEQUENCE][axis.min(1)]),
            PortDim::Symbol(own) => Dim::symbol(shared.get(own.as_str()).copied().unwrap_or(own)),
            PortDim::Unknown => Dim::symbol(&format!("{}.{axis}", port.name)),
        };
        Fact::new(Some(port.dtype), port.shape.as_ref().map(|dims| dims.iter().enumerate().map(dim).collect()))
    };
    graph.inputs.iter().map(|port| (port.name.clone(), fact(port))).collect()
}

/// Token ids, masks, token types, positions.
fn is_token_input(port: &Port) -> bool {
    !port.dtype.is_float() && port.shape.as_ref().is_some_and(|shape| shape.len() == 2)
}
