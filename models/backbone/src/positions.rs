//! How long a text may be: as long as the table of positions reaches.

use std::collections::{HashMap, HashSet};

use crate::backbone::{Backbone, Role};
use crate::ir::Node;
use crate::sites::{View, token_table};

/// A table or buffer of fewer rows is none of positions, but of token types.
const FEWEST: usize = 8;

/// Operators that leave the numbers of an input as they are.
const FORMS: [&str; 5] = ["Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"];

/// How a table's index is made.
#[derive(Default)]
struct Index {
    /// Operators between it and what it is made of.
    ops: HashSet<String>,
    /// Sum of the constants added to it.
    offset: i64,
    /// Entries of the shortest buffer it is cut from.
    buffer: Option<usize>,
    /// Whether it is the token ids or types themselves.
    tokens: bool,
}

impl Backbone {
    /// Tokens of the longest text there are positions for, where they come from a table; none where they are computed.
    pub fn longest(&self) -> Option<usize> {
        let producers = self.graph.producers();
        let (_, width) = token_table(&View::new(&self.graph, &self.facts), self.input(Role::Ids)?)?;
        let reach = |node: &Node| {
            let (rows, own) = self.table(node)?;
            (own == width && rows >= FEWEST && self.is_constant(node.input(0)?, &producers, 8)).then_some(())?;
            let index = self.index(node.input(1)?, &producers);
            match index.buffer {
                _ if index.tokens => None,
                Some(entries) => Some(entries.min(rows)),
                // Counted from 1 on where tokens are counted, from 0 where places are.
                None => usize::try_from(rows as i64 - index.offset - i64::from(index.ops.contains("CumSum"))).ok(),
            }
        };
        // Cut to the length of the text.
        let cut = |node: &Node| {
            let (rows, own) = self.table(node)?;
            let whole = own == width && rows >= FEWEST && self.is_constant(node.input(0)?, &producers, 8);
            (whole && self.facts.ints(node.input(2)?).is_none()).then_some(rows)
        };
        let cuts = self.graph.nodes.iter().filter(|node| node.is("Slice")).filter_map(cut);
        let lookups = self.graph.nodes.iter().filter(|node| node.is("Gather"));
        lookups.filter_map(reach).chain(cuts).min()
    }

    /// Rows and width of what a node takes rows of.
    fn table(&self, node: &Node) -> Option<(usize, usize)> {
        let [.., rows, width] = self.facts.shape(node.input(0)?)? else { return None };
        Some((usize::try_from(rows.as_known()?).ok()?, usize::try_from(width.as_known()?).ok()?))
    }

    /// Whether a value is made of weights alone, by no more than `steps` operators in a row.
    fn is_constant(&self, value: &str, producers: &HashMap<&str, usize>, steps: usize) -> bool {
        if self.graph.weights.contains_key(value) {
            return true;
        }
        let Some(node) = producers.get(value).map(|&at| &self.graph.nodes[at]) else { return false };
        steps > 0 && node.reads().iter().all(|read| self.is_constant(read, producers, steps - 1))
    }

    fn index(&self, value: &str, producers: &HashMap<&str, usize>) -> Index {
        let tokens = [Role::Ids, Role::Types].into_iter().any(|role| self.is_role(value, role, producers));
        let mut index = Index { tokens, ..Index::default() };
        let mut seen = HashSet::from([value.to_string()]);
        let mut waiting = vec![value.to_string()];
        while let Some(value) = waiting.pop() {
            if let Some(weight) = self.graph.weights.get(&value) {
                let entries = weight.shape.last().copied().filter(|&entries| entries >= FEWEST);
                index.buffer = [index.buffer, entries].into_iter().flatten().min();
                continue;
            }
            let Some(node) = producers.get(value.as_str()).map(|&at| &self.graph.nodes[at]) else { continue };
            // A size, whatever it is the size of.
            if node.is("Shape") {
                continue;
            }
            index.offset += self.added(node);
            index.ops.insert(node.op.clone());
            waiting.extend(node.reads().into_iter().filter(|read| seen.insert(read.to_string())).map(str::to_string));
        }
        index
    }

    /// Whether a value is the input with a role, whatever its form.
    fn is_role(&self, value: &str, role: Role, producers: &HashMap<&str, usize>) -> bool {
        let mut value = value;
        while let Some(&at) = producers.get(value) {
            let node = &self.graph.nodes[at];
            match (FORMS.contains(&node.op.as_str()), node.input(0)) {
                (true, Some(input)) => value = input,
                _ => return false,
            }
        }
        self.input(role) == Some(value)
    }

    /// The constant a node adds.
    fn added(&self, node: &Node) -> i64 {
        let number = |i: usize| match self.facts.ints(node.input(i)?)?.as_slice() {
            [number] => Some(*number),
            _ => None,
        };
        match node.op.as_str() {
            "Add" => number(0).xor(number(1)).unwrap_or(0),
            "Sub" => -number(1).unwrap_or(0),
            _ => 0,
        }
    }
}
