//! ONNX Runtime, and the only place that names ort.

mod find;
mod library;
mod placement;
mod rows;
mod session;
mod weights;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

pub use find::LIBRARY_VARIABLE;
pub use library::LibraryError;

use crate::tract_engine::without_bfloat16;
use crate::{Engine, EngineError, Model, Provider, Session, SessionOptions, Thrift};
use library::Library;
use placement::Placement;
use session::OrtSession;

/// Session setting that names the folder of a model's external data; models given as bytes have no folder of their own.
const WEIGHTS_FOLDER_KEY: &str = "session.model_external_initializers_file_folder_path";

/// Session setting of the precision in which products with weights behind `DequantizeLinear` are computed. By default
/// activations are rounded to 8 bits too, which is off by 5 % and has no exact gradient; 1 stands for 32-bit floats.
const QUANTISED_PRODUCT_KEY: &str = "session.qdq_matmulnbits_accuracy_level";

/// Session setting that names optimisers to leave out.
const LEFT_OUT_KEY: &str = "optimization.disable_specified_optimizers";

/// The optimiser that computes at load time what depends on weights alone: it would keep a float copy of every weight stored
/// in fewer bits.
const CONSTANT_FOLDING: &str = "ConstantFolding";

/// How much ONNX Runtime rewrites a graph before running it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Optimisation {
    /// The graph as given.
    None,
    /// Constant folding and redundant nodes.
    Basic,
    /// And fused operators.
    Extended,
    /// And layouts.
    #[default]
    All,
}

/// What holds for every session of an [`OrtEngine`].
#[derive(Clone, Debug, Default)]
pub struct OrtOptions {
    /// The library, or a folder that holds it; without one the usual places are searched.
    pub library: Option<PathBuf>,
    /// Where the models run.
    pub provider: Provider,
    /// Threads for sessions that leave the number to the engine; 0 lets ONNX Runtime choose.
    pub threads: usize,
    /// What steps do to save memory.
    pub thrift: Thrift,
    /// Whether idle threads spin, which costs the cores' other users dearly; without a setting they do as long as
    /// there is a core for each.
    pub spinning: Option<bool>,
    /// How much graphs are rewritten.
    pub optimisation: Optimisation,
    /// Kernels that give the same bits in every run, where there is a choice.
    pub deterministic: bool,
}

/// ONNX Runtime, from a library found on the machine.
#[derive(Debug)]
pub struct OrtEngine {
    library: Library,
    options: OrtOptions,
}

impl OrtEngine {
    /// Loads the library, once per process.
    ///
    /// # Errors
    /// When there is none, when it cannot be used, or when the process uses another already.
    pub fn new(options: OrtOptions) -> Result<Self, LibraryError> {
        let library = library::library(options.library.as_deref())?;
        Ok(OrtEngine { library, options })
    }

    /// The name an engine of [`OrtEngine::new`] would have, told from the library's file name.
    ///
    /// # Errors
    /// When there is no library.
    pub fn expected(library: Option<&Path>, provider: Provider) -> Result<String, LibraryError> {
        let (_, version) = library::expected(library)?;
        Ok(format!("ort {} ({provider})", version.as_deref().unwrap_or(library::UNKNOWN_VERSION)))
    }

    /// The library in use.
    pub fn library(&self) -> &Path {
        &self.library.path
    }

    /// Whether the library was built with the configured provider. Whether the machine has the device as well shows
    /// when a model is loaded.
    pub fn has_provider(&self) -> bool {
        match self.options.provider {
            Provider::Cpu => true,
            Provider::Cuda => ep::CUDA::is_available().unwrap_or(false),
            Provider::TensorRt => ep::TensorRT::is_available().unwrap_or(false),
        }
    }

    /// TensorRT leaves what it cannot run to CUDA, and both leave the rest to the CPU.
    fn providers(&self) -> Vec<ExecutionProviderDispatch> {
        let cuda = || ep::CUDA::default().build().error_on_failure();
        match self.options.provider {
            Provider::Cpu => vec![],
            Provider::Cuda => vec![cuda()],
            Provider::TensorRt => vec![ep::TensorRT::default().build().error_on_failure(), cuda()],
        }
    }

    fn builder(
        &self,
        model: &Model,
        options: &SessionOptions,
        optimisation: Optimisation,
        log: &Arc<Mutex<Placement>>,
    ) -> ort::Result<SessionBuilder> {
        let threads = if options.threads > 0 { options.threads } else { self.options.threads };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let spinning = self.options.spinning.unwrap_or(threads <= cores);
        let level = match optimisation {
            Optimisation::None => GraphOptimizationLevel::Disable,
            Optimisation::Basic => GraphOptimizationLevel::Level1,
            Optimisation::Extended => GraphOptimizationLevel::Level2,
            Optimisation::All => GraphOptimizationLevel::All,
        };
        let mut builder = ort::session::Session::builder(&self.library.environment)?
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(spinning)?
            .with_optimization_level(level)?
            .with_memory_pattern(!options.low_memory)?
            .with_prepacking(!options.low_memory)?
            .with_deterministic_compute(self.options.deterministic)?
            .with_config_entry(QUANTISED_PRODUCT_KEY, "1")?
            .with_log_level(LogLevel::Fatal)?
            .with_execution_providers(self.providers())?
            .with_operators(rows::domain()?)?;
        if options.low_memory {
            builder = builder.with_config_entry(LEFT_OUT_KEY, CONSTANT_FOLDING)?;
        }
        if let Some(folder) = &model.weights_dir {
            builder = if self.library.takes_weights_folder() {
                builder.with_config_entry(WEIGHTS_FOLDER_KEY, folder.to_string_lossy())?
            } else {
                weights::with_weights_in_memory(builder, &model.bytes, folder)?
            };
        }
        if self.options.provider != Provider::Cpu {
            let log = Arc::clone(log);
            let read = move |_: LogLevel, _: &str, _: &str, _: &str, message: &str| {
                log.lock().unwrap_or_else(PoisonError::into_inner).read(message);
            };
            builder = builder.with_log_level(LogLevel::Verbose)?.with_logger(Arc::new(read))?;
        }
        Ok(builder)
    }
}

impl Engine for OrtEngine {
    fn name(&self) -> String {
        format!("ort {} ({})", self.library.version, self.options.provider)
    }

    fn library(&self) -> Option<&Path> {
        Some(&self.library.path)
    }

    fn thrift(&self) -> Thrift {
        self.options.thrift
    }

    fn exact_products(&self) -> bool {
        self.options.provider == Provider::Cpu
    }

    fn load(&self, model: &Model, options: &SessionOptions) -> Result<Box<dyn Session>, EngineError> {
        let refuse = |message: String| EngineError::Load { engine: self.name(), message };
        let asked = self.options.optimisation;
        let on_gpu = self.options.provider != Provider::Cpu;
        // On the CPU it has but a few operators for bfloat16.
        let wide = if on_gpu { None } else { without_bfloat16(model).map_err(|e| refuse(e.to_string()))? };
        let model = wide.as_ref().unwrap_or(model);
        // Some versions fail in fusions of their own: 1.24 in that of fp16 norms. The plain graph runs as well.
        let (session, placement) = self
            .open(model, options, asked)
            .or_else(|error| {
                let fuses = matches!(asked, Optimisation::Extended | Optimisation::All);
                let plain = if fuses { self.open(model, options, Optimisation::Basic).ok() } else { None };
                plain.ok_or(error)
            })
            .map_err(|e| refuse(e.to_string()))?;
        if on_gpu && placement.is_known() && !self.taken(&placement) {
            let provider = self.options.provider;
            return Err(refuse(format!("{provider} took none of its nodes ({placement}); run it on the CPU instead")));
        }
        Ok(Box::new(OrtSession::new(self.name(), session, on_gpu, placement)))
    }
}

impl OrtEngine {
    fn open(
        &self,
        model: &Model,
        options: &SessionOptions,
        optimisation: Optimisation,
    ) -> ort::Result<(ort::session::Session, Placement)> {
        let log = Arc::new(Mutex::new(Placement::default()));
        let session = rows::INTRODUCTION
            .load(|| self.builder(model, options, optimisation, &log)?.commit_from_memory(&model.bytes))?;
        let placement = log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok((session, placement))
    }

    fn taken(&self, placement: &Placement) -> bool {
        match self.options.provider {
            Provider::Cpu => true,
            Provider::Cuda => placement.nodes_on(ep::CUDA::NAME) > 0,
            Provider::TensorRt => placement.nodes_on(ep::TensorRT::NAME) > 0,
        }
    }
}
