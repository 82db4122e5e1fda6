//! Which execution providers took a session's nodes, read from what ONNX Runtime logs while it places them.

use std::collections::BTreeMap;
use std::fmt;

/// Nodes per execution provider, by the providers' names (`CUDAExecutionProvider`).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Placement(BTreeMap<String, usize>);

impl Placement {
    /// Counts the nodes a log line places: ` Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 12`, also with
    /// `All nodes` where one provider took everything. Other lines are passed over.
    pub(crate) fn read(&mut self, line: &str) {
        let placed = line.split_once(" placed on [").and_then(|(_, rest)| {
            let (provider, rest) = rest.split_once("]. Number of nodes: ")?;
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            Some((provider, digits.parse::<usize>().ok()?))
        });
        if let Some((provider, nodes)) = placed {
            *self.0.entry(provider.to_string()).or_default() += nodes;
        }
    }

    /// Nodes `provider` took.
    pub(crate) fn nodes_on(&self, provider: &str) -> usize {
        self.0.get(provider).copied().unwrap_or(0)
    }

    /// Whether any line was understood.
    pub(crate) fn is_known(&self) -> bool {
        !self.0.is_empty()
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (provider, nodes)) in self.0.iter().enumerate() {
            let name = provider.strip_suffix("ExecutionProvider").unwrap_or(provider);
            write!(f, "{}{name} ({nodes} nodes)", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_nodes_per_provider() {
        let mut placement = Placement::default();
        placement.read("Node placements");
        placement.read(" Node(s) placed on [CPUExecutionProvider]. Number of nodes: 3");
        placement.read(" Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 40");
        assert_eq!(placement.nodes_on("CUDAExecutionProvider"), 40);
        assert_eq!(placement.nodes_on("TensorrtExecutionProvider"), 0);
        assert_eq!(placement.to_string(), "CPU (3 nodes), CUDA (40 nodes)");
    }

    #[test]
    fn counts_a_single_provider_that_took_everything() {
        let mut placement = Placement::default();
        placement.read("All nodes placed on [CPUExecutionProvider]. Number of nodes: 7");
        assert_eq!(placement.nodes_on("CPUExecutionProvider"), 7);
    }
}
