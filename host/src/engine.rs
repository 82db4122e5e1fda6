//! The engine flags shared by commands that run a graph.

use std::path::PathBuf;

use clap::Args;
use fedtt_runtime::{Engine, EngineChoice, EngineConfig, Provider, SessionOptions};

#[derive(Args)]
pub(crate) struct EngineArgs {
    /// Engine that runs the graphs: ort, tract, or auto (ort if its library is found, else tract).
    #[arg(long, default_value = "auto")]
    engine: EngineChoice,
    /// ONNX Runtime's library; without it `ORT_DYLIB_PATH` and the usual places are searched.
    #[arg(long, value_name = "FILE")]
    ort_library: Option<PathBuf>,
    /// Where ONNX Runtime runs: cpu, cuda or tensorrt.
    #[arg(long, default_value = "cpu")]
    provider: Provider,
    /// Threads inside one operator; 0 lets the engine choose.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Most tokens computed at once: larger batches go through in parts and take no more memory; 0 for whole batches
    /// [default: 512 on a CPU, whole batches on a GPU].
    #[arg(long, value_name = "TOKENS")]
    micro_batch: Option<usize>,
    /// Compute the blocks' values again in the backward pass instead of keeping them: less memory, a third more time.
    #[arg(long)]
    recompute: bool,
}

impl EngineArgs {
    fn config(&self) -> EngineConfig {
        EngineConfig {
            choice: self.engine,
            library: self.ort_library.clone(),
            provider: self.provider,
            threads: self.threads,
            micro_batch: self.micro_batch,
            recompute: self.recompute,
        }
    }

    /// The settings for one of many that run side by side: one thread unless told.
    pub(crate) fn one_thread(&self) -> EngineConfig {
        EngineConfig { threads: self.threads.max(1), ..self.config() }
    }

    pub(crate) fn select(&self) -> anyhow::Result<Box<dyn Engine>> {
        Ok(fedtt_runtime::select(&self.config())?)
    }

    pub(crate) fn options(&self) -> SessionOptions {
        SessionOptions { threads: self.threads, ..SessionOptions::default() }
    }
}
