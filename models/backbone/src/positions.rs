//! How long a text may be: as long as the table of positions reaches.

use std::collections::HashSet;

use crate::backbone::{Backbone, Role};
use crate::ir::Node;
use crate::sites::{View, token_table};

/// A table or buffer of fewer rows is none of positions, but of token types.
const FEWEST: usize = 8;

/// Operators that leave the numbers of an input as they are.
const FORMS: [&str; 5] = ["Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"];

impl Backbone {
    /// Tokens of the longest text there are positions for, where they come from a table; none where they are computed.
    pub fn longest(&self) -> Option<usize> {
        let view = View::new(&self.graph, &self.facts);
        let (_, width) = token_table(&view, self.input(Role::Ids)?)?;
        // Before or after the projection of tokens to the stream's width, where there is one.
        let first = self.anatomy.sites.first().map(|site| site.width_out);
        let widths = [Some(width), first, Some(self.anatomy.hidden)];
        let tokens: Vec<&str> = [Role::Ids, Role::Types].into_iter().filter_map(|role| self.input(role)).collect();
        let reach = |node: &Node| {
            let rows = table(&view, node, &widths)?;
            match node.op.as_str() {
                "Gather" if !is_any_of(&view, node.input(1)?, &tokens) => looked_up(&view, node.input(1)?, rows),
                // Cut to the length of the text.
                "Slice" if self.facts.ints(node.input(2)?).is_none() => Some(rows),
                _ => None,
            }
        };
        self.graph.nodes.iter().filter_map(reach).min()
    }
}

/// Rows of the table of one of these widths that a node takes rows of, if it does.
fn table(view: &View<'_>, node: &Node, widths: &[Option<usize>]) -> Option<usize> {
    let table = node.input(0).filter(|table| view.is_constant(table))?;
    if view.width(table).is_none() || !widths.contains(&view.width(table)) {
        return None;
    }
    let [.., rows, _] = view.facts.shape(table)? else { return None };
    usize::try_from(rows.as_known()?).ok().filter(|&rows| rows >= FEWEST)
}

/// How many tokens an index into `rows` rows can be made for.
fn looked_up(view: &View<'_>, index: &str, rows: usize) -> Option<usize> {
    let (mut seen, mut pending) = (HashSet::new(), vec![index]);
    let (mut offset, mut counted, mut buffer) = (0i64, false, None);
    while let Some(value) = pending.pop() {
        if let Some(weight) = view.graph.weights.get(value) {
            let entries = weight.shape.last().copied().filter(|&entries| entries >= FEWEST);
            buffer = [buffer, entries].into_iter().flatten().min();
            continue;
        }
        // A size, whatever it is the size of, tells nothing.
        let Some(node) = view.producer(value).filter(|node| !node.is("Shape") && seen.insert(value)) else { continue };
        offset = offset.saturating_add(added(view, node));
        counted |= node.is("CumSum");
        pending.extend(node.reads());
    }
    match buffer {
        Some(entries) => Some(rows.min(entries)),
        // From 1 on where tokens are counted, from 0 where places are.
        None => usize::try_from((rows as i64).saturating_sub(offset).saturating_sub(i64::from(counted))).ok(),
    }
}

/// Whether a value is one of these inputs, whatever its form.
fn is_any_of(view: &View<'_>, value: &str, inputs: &[&str]) -> bool {
    let mut value = value;
    while let Some(node) = view.producer(value) {
        match node.input(0) {
            Some(input) if FORMS.contains(&node.op.as_str()) => value = input,
            _ => return false,
        }
    }
    inputs.contains(&value)
}

/// The constant a node adds.
fn added(view: &View<'_>, node: &Node) -> i64 {
    let number = |i: usize| match view.facts.ints(node.input(i)?)?.as_slice() {
        [number] => Some(*number),
        _ => None,
    };
    match node.op.as_str() {
        "Add" => number(0).xor(number(1)).unwrap_or(0),
        "Sub" => number(1).unwrap_or(0).saturating_neg(),
        _ => 0,
    }
}
