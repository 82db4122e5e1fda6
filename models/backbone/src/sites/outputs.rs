//! The outputs a loss can be put on: the hidden state and, of a language model, the logits.

use std::collections::HashSet;

use super::anatomy::separates;
use super::residual::residuals;
use super::{SiteError, View};
use crate::ir::Node;

/// Where the last block ends.
pub(super) struct Ends<'a> {
    /// Its sites' tensors.
    pub(super) sites: Vec<&'a str>,
    /// What leaves it; empty where the sites' tensors are added to no stream.
    pub(super) streams: Vec<&'a str>,
    /// Width of the stream.
    pub(super) width: usize,
}

/// What was found.
pub(super) struct Outputs {
    pub(super) hidden_state: String,
    /// Width of the hidden state.
    pub(super) hidden: usize,
    pub(super) logits: Option<String>,
}

impl Ends<'_> {
    /// The hidden state is the output of the stream's width; or, where a last projection leads back to the embeddings' width,
    /// as in OPT-350m, the output of that width; or a value inside the graph that the stream reaches through norms.
    /// Logits are an output that is about as wide as the vocabulary, where that is known: a classifier of tokens has one too.
    pub(super) fn outputs(&self, view: &View<'_>, ids: Option<&str>) -> Result<Outputs, SiteError> {
        let ends = if self.streams.is_empty() { &self.sites } else { &self.streams };
        let mut names = view.outputs();
        names.retain(|name| view.behind(name).iter().any(|value| ends.contains(value)));
        let is_float = |name: &str| view.facts.dtype(name).is_some_and(|t| t.is_float());
        let of_tokens = names.iter().filter(|name| view.facts.rank(name) == Some(3) && is_float(name));
        let outputs: Vec<(&str, usize)> = of_tokens.filter_map(|name| Some((*name, view.width(name)?))).collect();

        let table = ids.and_then(|ids| token_table(view, ids));
        let of_stream = || outputs.iter().find(|(_, width)| *width == self.width).copied();
        let of_embeddings = || {
            let (_, embedding) = table.filter(|(rows, embedding)| rows != embedding)?;
            outputs.iter().find(|(_, width)| *width == embedding).copied()
        };
        // Sites named by hand may be followed by others, which join the stream later.
        let inside = || {
            let state = final_norm(view, self.width, &self.streams)?;
            let is_last = |sum: &str| sum == state || !view.behind(sum).contains(state);
            let is_final =
                separates(view, &names, state, &self.sites) && residuals(view).iter().all(|r| is_last(r.sum));
            is_final.then_some((state, self.width))
        };
        let (state, hidden) = of_stream()
            .or_else(of_embeddings)
            .or_else(inside)
            .ok_or_else(|| SiteError::NoOutput { outputs: view.outputs().join(", ") })?;
        // Tables have rows for padding and special tokens that a head may lack.
        let of_vocabulary = |width: usize| table.is_none_or(|(rows, _)| width > rows / 2);
        let logits =
            outputs.iter().find(|(name, width)| *name != state && *width != self.width && of_vocabulary(*width));
        Ok(Outputs { hidden_state: state.to_string(), hidden, logits: logits.map(|(name, _)| name.to_string()) })
    }
}

/// Rows and width of the table that the token ids in `ids` index.
pub(crate) fn token_table(view: &View<'_>, ids: &str) -> Option<(usize, usize)> {
    const SAME_IDS: &[&str] = &["Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze"];
    let mut derived = HashSet::from([ids]);
    for node in &view.graph.nodes {
        if node.is("Gather") && node.input(1).is_some_and(|index| derived.contains(index)) {
            let table = node.input(0).filter(|table| view.is_constant(table) && view.facts.rank(table) >= Some(2));
            if let Some(table) = table {
                let rows = view.facts.shape(table)?.first()?.as_known()?;
                let width =
                    if view.facts.rank(table) == Some(2) { view.width(table) } else { width_of_parts(view, node) };
                return Some((usize::try_from(rows).ok()?, width?));
            }
        }
        let same = node.domain.is_empty() && SAME_IDS.contains(&node.op.as_str());
        if same && node.input(0).is_some_and(|value| derived.contains(value)) {
            derived.extend(node.output(0));
        }
    }
    None
}

/// Width of what is picked from a table in blocks, of which a reshape makes one row.
fn width_of_parts(view: &View<'_>, gather: &Node) -> Option<usize> {
    let mut value = gather.output(0)?;
    for _ in 0..8 {
        let reader = view.readers(value).next()?;
        value = reader.output(0)?;
        if reader.is("Reshape") {
            return view.width(value);
        }
    }
    None
}

/// Where an export returns only logits or a pooled vector: the last value of the hidden state's shape that what leaves the
/// last block reaches through norms.
fn final_norm<'a>(view: &View<'a>, hidden: usize, last: &[&'a str]) -> Option<&'a str> {
    const NORM: &[&str] = &[
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Sqrt",
        "Reciprocal",
        "ReduceMean",
        "Cast",
        "Identity",
        "LayerNormalization",
        "Reshape",
    ];
    let mut derived: HashSet<&str> = last.iter().copied().collect();
    let mut state = None;
    for node in &view.graph.nodes {
        let data = |v: &&String| !v.is_empty() && view.facts.dtype(v).is_none_or(|t| t.is_float());
        let from_stream = node.inputs.iter().any(|v| derived.contains(v.as_str()));
        let closed = node.inputs.iter().filter(data).all(|v| derived.contains(v.as_str()) || view.is_constant(v));
        let Some(output) = node.output(0) else { continue };
        let is_sum = derived.contains(output);
        if is_sum || (from_stream && closed && node.domain.is_empty() && NORM.contains(&node.op.as_str())) {
            derived.insert(output);
            if view.facts.rank(output) == Some(3) && view.width(output) == Some(hidden) {
                state = Some(output);
            }
        }
    }
    state
}
