//! Grafting: adapters become nodes of the graph, their factors graph inputs.

use std::collections::HashMap;

use fedtt_tt::form::{Activation, AdapterForm, LinearForm};

use crate::ir::{Attr, Builder, DType, Graph, Node, Port, PortDim};
use crate::shape::{Dim, Fact, Facts};
use crate::sites::Site;

/// What is grafted at a site.
#[derive(Clone, Debug)]
pub enum Graft {
    /// `h + d`, with `d` a graph input `probe.<site>` of shape `[batch, sequence, width]`.
    Probe,
    /// An adapter, its factors graph inputs `<site>.<tensor>`.
    Adapter(AdapterForm),
}

/// Why a graft does not fit.
#[derive(Debug, thiserror::Error)]
pub enum GraftError {
    /// The site's tensor is not made by the graph.
    #[error("site `{site}`: the graph has no value `{tensor}`")]
    Missing {
        /// The site.
        site: String,
        /// Its tensor.
        tensor: String,
    },
    /// An adapter's factors do not chain from the site's width back to it.
    #[error("site `{site}`: {what} has shape {rows} x {columns} where {expected} was expected")]
    Shape {
        /// The site.
        site: String,
        /// Which matrix.
        what: String,
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
        /// What fits.
        expected: String,
    },
}

/// A graph with its grafts in place.
pub struct Grafted {
    /// The graph so far.
    pub builder: Builder,
    /// Graph inputs the grafts added, in order, with the shape each must have.
    pub inputs: Vec<String>,
    renamed: HashMap<String, String>,
}

impl Grafted {
    /// The value that stands for a value of the original graph: the grafted one at a site, itself elsewhere.
    pub fn value(&self, original: &str) -> String {
        self.renamed.get(original).cloned().unwrap_or_else(|| original.to_string())
    }
}

/// Copies `graph` with `grafts` put at their sites; whatever read a site's tensor reads the grafted value instead.
///
/// # Errors
/// When a site's tensor does not exist or an adapter does not fit its width.
pub fn graft(graph: &Graph, facts: &Facts, grafts: &[(Site, Graft)]) -> Result<Grafted, GraftError> {
    let mut at: HashMap<&str, Vec<(&Site, &Graft)>> = HashMap::new();
    for (site, what) in grafts {
        check(site, what)?;
        at.entry(site.tensor.as_str()).or_default().push((site, what));
    }
    let shell = Graph { nodes: Vec::new(), ..graph.clone() };
    let mut grafted =
        Grafted { builder: Builder::new(shell, facts.clone()), inputs: Vec::new(), renamed: HashMap::new() };
    grafted.builder.reserve(graph);
    for node in &graph.nodes {
        let mut node = node.clone();
        rename_reads(&mut node, &grafted.renamed);
        let outputs = node.outputs.clone();
        grafted.builder.push_known(node);
        for output in &outputs {
            for (site, what) in at.remove(output.as_str()).unwrap_or_default() {
                insert(&mut grafted, site, what);
            }
        }
    }
    if let Some((tensor, sites)) = at.into_iter().next() {
        let site = sites.first().map(|(s, _)| s.id.clone()).unwrap_or_default();
        return Err(GraftError::Missing { site, tensor: tensor.to_string() });
    }
    let renamed = grafted.renamed.clone();
    for port in &mut grafted.builder.graph.outputs {
        if let Some(name) = renamed.get(&port.name) {
            port.name.clone_from(name);
        }
    }
    Ok(grafted)
}

fn rename_reads(node: &mut Node, renamed: &HashMap<String, String>) {
    for input in &mut node.inputs {
        if let Some(name) = renamed.get(input) {
            input.clone_from(name);
        }
    }
    for attr in node.attrs.values_mut() {
        if let Attr::Graph(graph) = attr {
            for inner in &mut graph.nodes {
                rename_reads(inner, renamed);
            }
        }
    }
}

fn insert(grafted: &mut Grafted, site: &Site, what: &Graft) {
    let h = grafted.value(&site.tensor);
    let new = match what {
        Graft::Probe => {
            let name = format!("probe.{}", site.id);
            let shape = [Dim::symbol("batch"), Dim::symbol("sequence"), Dim::known(site.width_out as i64)];
            let probe = input(grafted, &name, &shape);
            let b = &mut grafted.builder;
            let probe = if b.facts.rank(&h) == Some(3) {
                probe
            } else {
                let shape = b.op("Shape", &[&h], &[]);
                b.op("Reshape", &[&probe, &shape], &[])
            };
            let probe = match b.facts.dtype(&h) {
                Some(dtype) => b.cast(&probe, dtype),
                None => probe,
            };
            b.op("Add", &[&h, &probe], &[])
        }
        Graft::Adapter(AdapterForm::Bottleneck { down, activation, up, scaling }) => {
            let x = as_f32(grafted, &h);
            let z = linear(grafted, &x, down, &format!("{}.down", site.id));
            let z = activate(&mut grafted.builder, &z, *activation);
            let z = linear(grafted, &z, up, &format!("{}.up", site.id));
            add_scaled(grafted, &h, &z, *scaling)
        }
        Graft::Adapter(AdapterForm::Branch { map, scaling }) => {
            let x = grafted.value(&site.input);
            let x = as_f32(grafted, &x);
            let z = linear(grafted, &x, map, &format!("{}.map", site.id));
            add_scaled(grafted, &h, &z, *scaling)
        }
    };
    grafted.renamed.insert(site.tensor.clone(), new);
}

/// Adapters compute in f32 also inside an fp16 backbone.
fn as_f32(grafted: &mut Grafted, value: &str) -> String {
    grafted.builder.cast(value, DType::F32)
}

fn add_scaled(grafted: &mut Grafted, h: &str, delta: &str, scaling: f32) -> String {
    let b = &mut grafted.builder;
    let delta = if scaling == 1.0 {
        delta.to_string()
    } else {
        let scaling = b.scalar(scaling);
        b.op("Mul", &[delta, &scaling], &[])
    };
    let delta = match b.facts.dtype(h) {
        Some(dtype) => b.cast(&delta, dtype),
        None => delta,
    };
    b.op("Add", &[h, &delta], &[])
}

/// Appends `x F1 .. Fk + b` with the factors and the bias as new graph inputs `<prefix>.0`, .., `<prefix>.bias`.
pub(crate) fn linear(grafted: &mut Grafted, x: &str, form: &LinearForm, prefix: &str) -> String {
    let mut y = x.to_string();
    for (name, shape) in form.tensors() {
        let dims: Vec<Dim> = shape.iter().map(|&d| Dim::known(d as i64)).collect();
        let factor = input(grafted, &format!("{prefix}.{name}"), &dims);
        let op = if name == "bias" { "Add" } else { "MatMul" };
        y = grafted.builder.op(op, &[&y, &factor], &[]);
    }
    y
}

/// Adds an f32 graph input that belongs to a graft or head.
pub(crate) fn input(grafted: &mut Grafted, name: &str, shape: &[Dim]) -> String {
    add_input(&mut grafted.builder, name, DType::F32, shape);
    grafted.inputs.push(name.to_string());
    name.to_string()
}

/// Adds a graph input.
pub(crate) fn add_input(b: &mut Builder, name: &str, dtype: DType, shape: &[Dim]) {
    let port_dim = |dim: &Dim| match dim.as_known().and_then(|d| usize::try_from(d).ok()) {
        Some(size) => PortDim::Known(size),
        None => PortDim::Symbol(dim.to_string()),
    };
    let shape_of_port = shape.iter().map(port_dim).collect();
    b.facts.set(name, Fact { dtype: Some(dtype), shape: Some(shape.to_vec()), value: None });
    b.graph.inputs.push(Port { name: name.to_string(), dtype, shape: Some(shape_of_port) });
}

/// Appends an activation.
pub(crate) fn activate(b: &mut Builder, x: &str, activation: Activation) -> String {
    match activation {
        Activation::Identity => x.to_string(),
        Activation::Relu => b.op("Relu", &[x], &[]),
        Activation::Tanh => b.op("Tanh", &[x], &[]),
        Activation::Gelu => b.op("Gelu", &[x], &[]),
        Activation::Silu => {
            let gate = b.op("Sigmoid", &[x], &[]);
            b.op("Mul", &[x, &gate], &[])
        }
    }
}

fn check(site: &Site, what: &Graft) -> Result<(), GraftError> {
    let Graft::Adapter(form) = what else { return Ok(()) };
    match form {
        AdapterForm::Bottleneck { down, up, .. } => {
            chain(site, "down", down, site.width_out, None)?;
            chain(site, "up", up, down.columns(), Some(site.width_out))
        }
        AdapterForm::Branch { map, .. } => chain(site, "map", map, site.width_in, Some(site.width_out)),
    }
}

fn chain(site: &Site, name: &str, form: &LinearForm, rows: usize, columns: Option<usize>) -> Result<(), GraftError> {
    let mut width = rows;
    let refuse = |i: usize, (rows, columns): (usize, usize), expected: String| GraftError::Shape {
        site: site.id.clone(),
        what: format!("{name}.{i}"),
        rows,
        columns,
        expected,
    };
    for (i, &factor) in form.factors.iter().enumerate() {
        if factor.0 != width || factor.1 == 0 {
            return Err(refuse(i, factor, format!("{width} x n")));
        }
        width = factor.1;
    }
    match columns {
        Some(columns) if columns != width => {
            let last = form.factors.len().saturating_sub(1);
            Err(refuse(last, form.factors.last().copied().unwrap_or((rows, 0)), format!("n x {columns}")))
        }
        _ => Ok(()),
    }
}
