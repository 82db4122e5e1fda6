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
    /// Threads that share an operator or, in [`run_parts`](Session::run_parts), the parts; 0 lets the engine choose.
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
    /// Most parts that are computed at the same time, each by a thread of its own: the threads of an engine that spreads a part
    /// over them less well than several parts, otherwise 1.
    pub abreast: usize,
    /// Whether the backward pass computes the blocks' values again instead of finding them kept.
    pub recompute: bool,
    /// Whether chains of element-wise operators run as [row programs](crate::rows), which are there on CPUs alone.
    pub fuse: bool,
}

/// Tokens of a micro-batch on a CPU. Products of so many rows run at full speed, and what one operator writes may still be in the
/// cache when the next reads it.
pub const CPU_MICRO_BATCH: usize = 512;

/// What a part costs beside its tokens, in tokens.
const PART: usize = 32;

impl Default for Thrift {
    /// On a CPU.
    fn default() -> Self {
        Thrift { micro_batch: CPU_MICRO_BATCH, abreast: 1, recompute: false, fuse: true }
    }
}

/// How a batch goes through the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Rows of each part; the last may have fewer.
    pub rows: usize,
    /// How many parts are computed at the same time.
    pub abreast: usize,
}

impl Thrift {
    /// The parts of a batch of `rows` rows of `length` tokens: those that take the least time, of several such even ones, as each
    /// shape is prepared for itself, and of these the largest.
    pub fn parts(&self, rows: usize, length: usize) -> Parts {
        let (rows, length) = (rows.max(1), length.max(1));
        let most = (self.micro_batch / length).clamp(1, rows);
        let cost = |parts: &Parts| {
            let turns = rows.div_ceil(parts.rows).div_ceil(parts.abreast);
            // Threads that share a part speed up half of its work.
            let shared = if parts.abreast == 1 { 0.5 + 0.5 / self.abreast.max(1) as f64 } else { 1.0 };
            (turns * (parts.rows * length + PART)) as f64 * shared
        };
        let order = |a: &Parts, b: &Parts| {
            let uneven = |parts: &Parts| !rows.is_multiple_of(parts.rows);
            cost(a).total_cmp(&cost(b)).then(uneven(a).cmp(&uneven(b))).then(b.rows.cmp(&a.rows))
        };
        let together = |part: usize| (self.micro_batch / (part * length)).min(rows.div_ceil(part));
        (1..=most)
            .map(|part| Parts { rows: part, abreast: together(part).clamp(1, self.abreast.max(1)) })
            .min_by(order)
            .unwrap_or(Parts { rows: 1, abreast: 1 })
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

    /// Runs the model on each of `parts`, the inputs `common` to all with it, and returns the named outputs of each, in their
    /// order. An engine may run them at the same time, those of its [`Thrift::abreast`] at most.
    ///
    /// # Errors
    /// As [`run`](Session::run).
    fn run_parts(
        &mut self,
        common: &[(&str, &Tensor)],
        parts: &[Vec<(&str, &Tensor)>],
        outputs: &[&str],
    ) -> Result<Vec<Vec<Tensor>>, EngineError> {
        parts.iter().map(|part| self.run(&[common, part].concat(), outputs)).collect()
    }

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
    fn parts_are_as_large_as_may_be_and_even() {
        let sizes =
            [(16, 64, 512), (16, 96, 512), (16, 12, 512), (10, 64, 512), (17, 64, 512), (4, 1024, 512), (3, 8, 0)];
        let rows = |(rows, length, micro_batch)| Thrift { micro_batch, ..Thrift::default() }.parts(rows, length).rows;
        assert_eq!(sizes.map(rows), [8, 4, 16, 5, 6, 1, 1]);
    }

    #[test]
    fn parts_abreast_share_what_may_be_computed_at_once() {
        let parts = |abreast, micro_batch, rows, length| {
            let Parts { rows, abreast } = Thrift { micro_batch, abreast, ..Thrift::default() }.parts(rows, length);
            (rows, abreast)
        };
        assert_eq!(parts(2, 512, 16, 64), (4, 2));
        assert_eq!(parts(6, 512, 16, 64), (1, 6));
        assert_eq!(parts(12, 512, 16, 64), (1, 8), "no more tokens than told");
        assert_eq!(parts(2, usize::MAX, 16, 64), (8, 2));
        assert_eq!(parts(2, 512, 16, 12), (8, 2), "a batch that might go in one");
        assert_eq!(parts(2, 512, 4, 512), (1, 1), "room for one alone, whose operators share the threads");
        assert_eq!(parts(4, 512, 1, 64), (1, 1));
    }
}
