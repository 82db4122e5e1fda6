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
}

impl EngineArgs {
    pub(crate) fn select(&self) -> anyhow::Result<Box<dyn Engine>> {
        let config = EngineConfig {
            choice: self.engine,
            library: self.ort_library.clone(),
            provider: self.provider,
            threads: self.threads,
        };
        Ok(fedtt_runtime::select(&config)?)
    }

    pub(crate) fn options(&self) -> SessionOptions {
        SessionOptions { threads: self.threads, ..SessionOptions::default() }
    }
}
