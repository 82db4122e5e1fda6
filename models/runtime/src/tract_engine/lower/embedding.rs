//! Embeddings with 8-bit tables: the rows are picked first and dequantised then, where tract would dequantise the whole
//! table at every run.

use std::collections::HashMap;

use super::int;
use crate::tract_engine::proto::attribute_proto::AttributeType;
use crate::tract_engine::proto::tensor_proto::DataType;
use crate::tract_engine::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// Turns Gather(DequantizeLinear(q, s, z), ids) over rows into (Gather(q, ids) - z) * s, with the rows' own z and s
/// where the table has one for each.
pub(super) fn gather_before_dequantising(graph: &mut GraphProto) {
    let mut columns: HashMap<String, TensorProto> = HashMap::new();
    let tables: HashMap<String, Table> = {
        let constants: HashMap<&str, &TensorProto> =
            graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let nodes = graph.node.iter().filter(|node| node.op_type == "DequantizeLinear");
        nodes
            .filter_map(|node| Some((node.output.first()?.clone(), Table::of(node, &constants, &mut columns)?)))
            .collect()
    };
    if tables.is_empty() {
        return;
    }
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        let table = node.input.first().and_then(|name| tables.get(name));
        let over_rows = node.op_type == "Gather" && int(&node, "axis").unwrap_or(0) == 0 && node.input.len() == 2;
        match table.filter(|_| over_rows) {
            Some(table) => nodes.extend(table.rows(&node)),
            None => nodes.push(node),
        }
    }
    graph.node = nodes;
    graph.initializer.extend(columns.into_values());
}

/// A quantised table [rows, columns].
struct Table {
    values: String,
    scale: String,
    zero_point: Option<String>,
    /// Scale and zero point are columns [rows, 1] to be gathered as well; otherwise they broadcast along the rows.
    by_row: bool,
}

impl Table {
    /// The table a DequantizeLinear node reads, if it is one; scales by row go to `columns` in the shape [rows, 1].
    fn of(
        node: &NodeProto,
        constants: &HashMap<&str, &TensorProto>,
        columns: &mut HashMap<String, TensorProto>,
    ) -> Option<Table> {
        let constant = |at: usize| constants.get(node.input.get(at)?.as_str()).copied();
        let (values, scale) = (constant(0)?, constant(1)?);
        let bytes = [DataType::Int8 as i32, DataType::Uint8 as i32].contains(&values.data_type);
        let float = scale.data_type == DataType::Float as i32;
        let named_zero_point = node.input.get(2).is_some_and(|name| !name.is_empty());
        let zero_point = constant(2).filter(|zero_point| zero_point.dims == scale.dims);
        let blocked = int(node, "block_size").unwrap_or(0) != 0;
        if !bytes || !float || values.dims.len() != 2 || blocked || named_zero_point != zero_point.is_some() {
            return None;
        }
        let axis = int(node, "axis").unwrap_or(1);
        let by_row = scale.dims == [values.dims[0]] && matches!(axis, 0 | -2) && scale.dims != [1];
        let by_column = scale.dims == [values.dims[1]] && matches!(axis, 1 | -1);
        let whole = scale.dims.is_empty() || scale.dims == [1];
        if !by_row && !by_column && !whole {
            return None;
        }
        let mut name = |tensor: &TensorProto| {
            if !by_row {
                return tensor.name.clone();
            }
            let name = format!("{}.column", tensor.name);
            let column = TensorProto { name: name.clone(), dims: vec![tensor.dims[0], 1], ..tensor.clone() };
            columns.insert(name.clone(), column);
            name
        };
        Some(Table { values: values.name.clone(), scale: name(scale), zero_point: zero_point.map(&mut name), by_row })
    }

    /// The nodes that take the place of `gather`.
    fn rows(&self, gather: &NodeProto) -> Vec<NodeProto> {
        let (ids, output) = (&gather.input[1], &gather.output[0]);
        let name = |part: &str| format!("{output}.{part}");
        let node = |op: &str, inputs: [&str; 2], output: String| NodeProto {
            name: output.clone(),
            op_type: op.into(),
            input: inputs.iter().filter(|i| !i.is_empty()).map(|i| i.to_string()).collect(),
            output: vec![output],
            ..NodeProto::default()
        };
        let float = |input: &str, output: String| {
            let to = AttributeProto {
                name: "to".into(),
                r#type: AttributeType::Int as i32,
                i: DataType::Float as i64,
                ..AttributeProto::default()
            };
            NodeProto { attribute: vec![to], ..node("Cast", [input, ""], output) }
        };
        let mut nodes =
            vec![node("Gather", [&self.values, ids], name("quantised")), float(&name("quantised"), name("numbers"))];
        let mut numbers = name("numbers");
        let along_rows = |parameter: &str, part: &str, nodes: &mut Vec<NodeProto>| {
            if !self.by_row {
                return parameter.to_string();
            }
            nodes.push(node("Gather", [parameter, ids], name(part)));
            name(part)
        };
        if let Some(zero_point) = &self.zero_point {
            let zero_point = along_rows(zero_point, "zero_point", &mut nodes);
            nodes.push(float(&zero_point, name("zero")));
            nodes.push(node("Sub", [&numbers, &name("zero")], name("centred")));
            numbers = name("centred");
        }
        let scale = along_rows(&self.scale, "scale", &mut nodes);
        nodes.push(node("Mul", [&numbers, &scale], output.clone()));
        nodes
    }
}
