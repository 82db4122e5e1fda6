//! What every engine offers.

use std::path::{Path, PathBuf};

use crate::Tensor;

/// An ONNX model as serialised bytes.
#[derive(Clone, Debug)]
pub struct Model {
    /// The ONNX `ModelProto`.
    pub bytes: Vec<u8>,
    /// Folder against which the model's external data locations are resolved.
    pub weights_dir: Option<PathBuf>,
}

/// How a session is set up.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Threads used inside one operator; 0 lets the engine choose.
    pub threads: usize,
    /// Favour low memory over speed (no memory pattern, no copies of weights, prepacked or in wider formats).
    pub low_memory: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions { threads: 0, low_memory: true }
    }
}

/// What training steps do to save memory and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thrift {
    /// Most tokens (rows times their length) that are computed at once: a larger batch goes through the graph in parts, whose
    /// gradients are summed. Memory then does not grow with the batch.
    pub micro_batch: usize,
    /// Whether the backward pass computes the blocks' values again instead of finding them kept.
    pub recompute: bool,
    /// Whether chains of element-wise operators run as [row programs](crate::rows), which are there on CPUs alone.
    pub fuse: bool,
}

/// Tokens of a micro-batch on a CPU. Products of so many rows run at full speed, and what one operator writes may still be in the
/// cache when the next reads it.
pub const CPU_MICRO_BATCH: usize = 512;

impl Default for Thrift {
    /// On a CPU.
    fn default() -> Self {
        Thrift { micro_batch: CPU_MICRO_BATCH, recompute: false, fuse: true }
    }
}

impl Thrift {
    /// Rows of each micro-batch of a batch of `rows` rows of `length` tokens: as many as may be, one at least, and where that at most
    /// halves their number, as many in one as in the other, so that fewer shapes occur.
    pub fn rows(&self, rows: usize, length: usize) -> usize {
        let most = (self.micro_batch / length.max(1)).clamp(1, rows.max(1));
        let even = (1..=most).rev().find(|even| rows.is_multiple_of(*even)).unwrap_or(most);
        if 2 * even >= most { even } else { most }
    }
}

/// Something that runs ONNX graphs.
pub trait Engine: Send + Sync {
    /// Name, version and device, for people: `ort 1.31.1 (CPU)`, `tract 0.23.9`.
    fn name(&self) -> String;

    /// Prepares `model` for running.
    ///
    /// # Errors
    /// When the model cannot be read or holds an operator the engine lacks.
    fn load(&self, model: &Model, options: &SessionOptions) -> Result<Box<dyn Session>, EngineError>;

    /// The library it was loaded from, unless it is built in.
    fn library(&self) -> Option<&Path> {
        None
    }

    /// What steps do to save memory and time.
    fn thrift(&self) -> Thrift {
        Thrift::default()
    }

    /// Whether products of single precision keep all its bits. GPUs round their factors to the 10 bits of TF32.
    fn exact_products(&self) -> bool {
        true
    }

    /// Whether `If` runs one of its branches alone, so that one session serves training and evaluation.
    fn conditionals(&self) -> bool {
        true
    }
}

/// A model ready to run.
pub trait Session: Send {
    /// Runs the model on named inputs and returns the named outputs, in the order asked for.
    ///
    /// # Errors
    /// When an input is missing or misshapen, an output is unknown, or an operator fails.
    fn run(&mut self, inputs: &[(&str, &Tensor)], outputs: &[&str]) -> Result<Vec<Tensor>, EngineError>;

    /// Where the model's nodes were placed, for people: `CPU`, `CPU (3 nodes), CUDA (412 nodes)`.
    fn placement(&self) -> String {
        "CPU".into()
    }
}

/// Why an engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model was refused.
    #[error("{engine} cannot load the model: {message}")]
    Load {
        /// The engine's name.
        engine: String,
        /// What it said.
        message: String,
    },
    /// A run failed.
    #[error("{engine} failed: {message}")]
    Run {
        /// The engine's name.
        engine: String,
        /// What it said.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batches_are_even_where_that_costs_little() {
        let sizes =
            [(16, 64, 512), (16, 96, 512), (16, 12, 512), (10, 64, 512), (17, 64, 512), (4, 1024, 512), (3, 8, 0)];
        let rows = |(rows, length, micro_batch)| Thrift { micro_batch, ..Thrift::default() }.rows(rows, length);
        assert_eq!(sizes.map(rows), [8, 4, 16, 5, 8, 1, 1]);
    }
}
