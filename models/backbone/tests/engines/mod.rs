//! The engines of this machine.

use fedtt_runtime::{Engine, EngineChoice, EngineConfig, select};

/// tract, and ONNX Runtime where it is found.
pub(crate) fn engines() -> Vec<Box<dyn Engine>> {
    let of = |choice| select(&EngineConfig { choice, threads: 1, ..EngineConfig::default() });
    let mut engines = vec![of(EngineChoice::Tract).unwrap()];
    match of(EngineChoice::Ort) {
        Ok(ort) => engines.push(ort),
        Err(e) => eprintln!("not run on ONNX Runtime: {e}"),
    }
    engines
}
