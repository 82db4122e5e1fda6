//! Graphs of half floats as float32 ones: CPUs compute in float32 anyway, and sums lose less.

use super::LowerError;
use super::constants::Constants;
use crate::tract_engine::proto::attribute_proto::AttributeType;
use crate::tract_engine::proto::tensor_proto::DataType;
use crate::tract_engine::proto::type_proto::Value;
use crate::tract_engine::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// What is widened, and how.
pub(super) struct Widening<'a> {
    /// The types that become float32.
    pub(super) kinds: &'a [DataType],
    /// Where constants are read from. Without it a graph's constants stay as they are, in memory or in their file, and
    /// are cast by a node.
    pub(super) constants: Option<&'a Constants<'a>>,
}

impl Widening<'_> {
    /// Widens every constant, cast, input and output of `graph` and of its branches; returns whether there were any. A
    /// node that widens or narrows becomes a cast of float32 to itself, which engines drop.
    pub(super) fn graph(&self, graph: &mut GraphProto) -> Result<bool, LowerError> {
        let mut found = false;
        let mut casts = Vec::new();
        for constant in graph.initializer.iter_mut().filter(|constant| self.takes(constant.data_type)) {
            found = true;
            match self.constants {
                Some(constants) => widen_constant(constant, constants)?,
                None => casts.push(cast_of(constant)),
            }
        }
        for info in graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info) {
            found |= self.info(info);
        }
        for node in &mut graph.node {
            found |= self.node(node)?;
        }
        graph.node.splice(..0, casts);
        Ok(found)
    }

    fn takes(&self, kind: i32) -> bool {
        self.kinds.iter().any(|widened| *widened as i32 == kind)
    }

    fn node(&self, node: &mut NodeProto) -> Result<bool, LowerError> {
        let names_a_type = |name: &str| matches!(name, "to" | "dtype" | "stash_type");
        let mut found = false;
        for attribute in &mut node.attribute {
            if names_a_type(&attribute.name) && i32::try_from(attribute.i).is_ok_and(|kind| self.takes(kind)) {
                attribute.i = DataType::Float as i64;
                found = true;
            }
            if let Some(tensor) = attribute.t.as_mut().filter(|tensor| self.takes(tensor.data_type)) {
                widen_constant(tensor, self.constants.unwrap_or(&Constants::new(None)))?;
                found = true;
            }
            if let Some(branch) = &mut attribute.g {
                found |= self.graph(branch)?;
            }
        }
        Ok(found)
    }

    fn info(&self, info: &mut ValueInfoProto) -> bool {
        let Some(Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|t| t.value.as_mut()) else { return false };
        let found = self.takes(tensor.elem_type);
        if found {
            tensor.elem_type = DataType::Float as i32;
        }
        found
    }
}

fn widen_constant(constant: &mut TensorProto, weights: &Constants) -> Result<(), LowerError> {
    let values = weights.floats(constant)?;
    *constant = TensorProto {
        name: std::mem::take(&mut constant.name),
        dims: std::mem::take(&mut constant.dims),
        data_type: DataType::Float as i32,
        raw_data: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        ..TensorProto::default()
    };
    Ok(())
}

/// The node that makes float32 values under a constant's name; the constant gets another.
fn cast_of(constant: &mut TensorProto) -> NodeProto {
    let narrow = format!("{}~narrow", constant.name);
    let name = std::mem::replace(&mut constant.name, narrow.clone());
    let to = AttributeProto {
        name: "to".into(),
        r#type: AttributeType::Int as i32,
        i: DataType::Float as i64,
        ..AttributeProto::default()
    };
    NodeProto {
        name: format!("{name}~wide"),
        op_type: "Cast".into(),
        input: vec![narrow],
        output: vec![name],
        attribute: vec![to],
        ..NodeProto::default()
    }
}
