//! Every rule alone against finite differences, on every engine, with shapes known, symbolic and unknown.
#![allow(clippy::unwrap_used, clippy::panic)]

mod cases;
mod check;
#[path = "../engines/mod.rs"]
mod engines;
mod fusion;
mod half;
mod refusals;

use std::collections::BTreeSet;

use cases::all_cases;
use check::{Knowledge, check, forward};
use engines::engines;
use fedtt_backbone::vjp::differentiable;

/// Cases whose forward operator an engine lacks.
const LACKING: &[(&str, &str)] = &[("tract", "8-bit MatMulNBits")];

#[test]
fn gradients_match_finite_differences() {
    let mut failures = Vec::new();
    let mut checked = 0;
    for engine in engines() {
        for case in all_cases() {
            for knowledge in [Knowledge::Known, Knowledge::Symbols, Knowledge::Unknown] {
                let lacking = LACKING.iter().any(|(e, c)| engine.name().starts_with(e) && *c == case.name);
                if knowledge > case.least || lacking {
                    continue;
                }
                checked += 1;
                if let Err(message) = check(&case, knowledge, engine.as_ref()) {
                    failures.push(format!("{} ({knowledge:?}, {}): {message}", case.name, engine.name()));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} of {checked} failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_rule_has_a_case() {
    let mut used = BTreeSet::new();
    for case in all_cases() {
        let (graph, _) = forward(&case, Knowledge::Known);
        used.extend(graph.nodes.into_iter().map(|node| node.op));
    }
    let missing: Vec<&str> = differentiable().filter(|op| !used.contains(*op)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}
