//! The embedded engine, and the only place that names tract.

mod casts;
mod convert;
mod lower;
mod plans;
mod rows;
mod session;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tract_linalg::multithread::Executor;
use tract_onnx::prelude::TractResult;

/// The ONNX protobuf messages.
pub use tract_onnx::pb as proto;

pub(crate) use lower::without_bfloat16;
pub use lower::{LowerError, lower_for_tract};

use crate::{Engine, EngineError, Model, Session, SessionOptions, Thrift};
use session::TractSession;

/// The version the workspace pins.
const VERSION: &str = "0.23.9";

/// tract, which is part of this library and runs on the CPU.
#[derive(Clone, Debug)]
pub struct TractEngine {
    threads: usize,
    thrift: Thrift,
}

impl TractEngine {
    /// An engine whose sessions use `threads` threads unless they say otherwise; 0 stands for one per core.
    pub fn new(threads: usize) -> Self {
        TractEngine { threads, thrift: Thrift::default() }
    }

    /// The threads of a session that asks for so many, 0 standing for the engine's.
    fn threads(&self, asked: usize) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        [asked, self.threads].into_iter().find(|&threads| threads > 0).unwrap_or_else(cores)
    }

    /// The same, whose steps save memory so.
    pub fn with_thrift(self, thrift: Thrift) -> Self {
        TractEngine { thrift, ..self }
    }

    fn executor(&self, options: &SessionOptions) -> Executor {
        match self.threads(options.threads) {
            1 => Executor::SingleThread,
            threads => Executor::multithread_with_name(threads, "tract"),
        }
    }
}

impl Engine for TractEngine {
    fn name(&self) -> String {
        format!("tract {VERSION}")
    }

    fn load(&self, model: &Model, options: &SessionOptions) -> Result<Box<dyn Session>, EngineError> {
        let session = guard(|| TractSession::new(self.name(), model, self.executor(options), options.low_memory));
        match session {
            Ok(session) => Ok(Box::new(session)),
            Err(message) => Err(EngineError::Load { engine: self.name(), message }),
        }
    }

    /// Half of a step is not spread over threads by tract, so that parts of a batch are.
    fn thrift(&self) -> Thrift {
        Thrift { abreast: self.threads(0), ..self.thrift }
    }

    fn conditionals(&self) -> bool {
        false
    }
}

/// Runs `work`; its error, with all causes, or its panic becomes text. tract panics on some graphs it does not expect.
fn guard<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| format!("{error:#}")),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(format!("tract panicked: {said}"))
        }
    }
}
