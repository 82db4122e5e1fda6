//! Groups of nodes that run as one, such that none has to wait for itself.

use std::collections::HashMap;

use crate::ir::Graph;

use super::shape::Rows;

/// Nodes in groups, at first each in its own.
pub(super) struct Groups<'a> {
    graph: &'a Graph,
    producers: HashMap<&'a str, usize>,
    /// The nodes that read what each node makes.
    readers: Vec<Vec<usize>>,
    /// The group each node is in.
    group_of: Vec<usize>,
    /// The nodes of each group, in order; none of a group that was taken in by another.
    members: Vec<Vec<usize>>,
    /// The rows each group works on; none of a node that is no program's.
    rows: Vec<Option<Rows>>,
}

impl<'a> Groups<'a> {
    pub(super) fn new(graph: &'a Graph, consumers: &HashMap<&str, Vec<usize>>, rows: Vec<Option<Rows>>) -> Self {
        let count = graph.nodes.len();
        let members = (0..count).map(|i| vec![i]).collect();
        let read = |output: &String| consumers.get(output.as_str()).into_iter().flatten().copied();
        let readers = graph.nodes.iter().map(|node| node.outputs.iter().flat_map(read).collect()).collect();
        Groups { graph, producers: graph.producers(), readers, group_of: (0..count).collect(), members, rows }
    }

    /// Merges the group of `node` with those that make its inputs, where both are in the same pass by `is_early`.
    pub(super) fn take_in_makers(&mut self, node: usize, is_early: &[bool]) {
        for input in &self.graph.nodes[node].inputs {
            let Some(&maker) = self.producers.get(input.as_str()) else { continue };
            if is_early[maker] == is_early[node] {
                self.merge(self.group_of[maker], self.group_of[node]);
            }
        }
    }

    /// Makes one group of two that work on the same rows, unless another has to run between them.
    fn merge(&mut self, a: usize, b: usize) {
        let (Some(one), Some(other)) = (&self.rows[a], &self.rows[b]) else { return };
        let Some(both) = one.with(other) else { return };
        if a == b || self.leads(a, b) || self.leads(b, a) {
            return;
        }
        self.rows[a] = Some(both);
        let moved = std::mem::take(&mut self.members[b]);
        moved.iter().for_each(|&node| self.group_of[node] = a);
        self.members[a].extend(moved);
        self.members[a].sort_unstable();
    }

    /// Whether a path leads from one group to another through a node of neither.
    fn leads(&self, from: usize, to: usize) -> bool {
        let mut seen = vec![false; self.members.len()];
        let mut open = vec![from];
        while let Some(group) = open.pop() {
            for &reader in self.members[group].iter().flat_map(|&node| &self.readers[node]) {
                let next = self.group_of[reader];
                if next == to && group != from {
                    return true;
                }
                if next != to && next != from && !std::mem::replace(&mut seen[next], true) {
                    open.push(next);
                }
            }
        }
        false
    }

    /// The members of each group, every group after those it reads from, and else as the nodes were.
    pub(super) fn order(&self) -> Vec<Vec<usize>> {
        let mut placed = vec![false; self.members.len()];
        let mut order = Vec::new();
        for node in 0..self.graph.nodes.len() {
            // Groups to place, each followed by what has to come before it until nothing does.
            let mut open = vec![self.group_of[node]];
            while let Some(&group) = open.last() {
                let reads = self.members[group].iter().flat_map(|&node| self.graph.nodes[node].reads());
                let makers = reads.filter_map(|value| self.producers.get(value)).map(|&node| self.group_of[node]);
                let waiting: Vec<usize> = makers.filter(|&maker| maker != group && !placed[maker]).collect();
                if waiting.is_empty() {
                    open.pop();
                    if !std::mem::replace(&mut placed[group], true) {
                        order.push(self.members[group].clone());
                    }
                } else {
                    open.extend(waiting);
                }
            }
        }
        order
    }
}
