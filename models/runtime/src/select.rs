//! Which engine to use.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::engine::{CPU_MICRO_BATCH, Engine, Thrift};
use crate::ort_engine::{LibraryError, OrtEngine, OrtOptions};
use crate::tract_engine::TractEngine;

/// The engine asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineChoice {
    /// ONNX Runtime where its library is found, tract elsewhere.
    #[default]
    Auto,
    /// ONNX Runtime or nothing.
    Ort,
    /// tract.
    Tract,
}

/// Where ONNX Runtime runs a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Provider {
    /// On the CPU.
    #[default]
    Cpu,
    /// On an NVIDIA GPU.
    Cuda,
    /// On an NVIDIA GPU, through TensorRT.
    TensorRt,
}

/// More threads than any board has cores; engines that cannot start as many as they are told end the program.
const MOST_THREADS: usize = 512;

/// The engine's settings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EngineConfig {
    /// The engine asked for.
    pub choice: EngineChoice,
    /// ONNX Runtime's library, or a folder that holds it.
    pub library: Option<PathBuf>,
    /// Where ONNX Runtime runs a model.
    pub provider: Provider,
    /// Threads of sessions that do not say themselves; 0 lets the engine choose.
    pub threads: usize,
    /// Most tokens computed at once; 0 for whole batches. Without a setting [`CPU_MICRO_BATCH`] on a CPU, whole batches on a GPU.
    pub micro_batch: Option<usize>,
    /// Whether backward passes compute the blocks' values again: see [`Thrift`].
    pub recompute: bool,
}

impl EngineConfig {
    fn tract(&self) -> TractEngine {
        TractEngine::new(self.threads).with_thrift(self.thrift())
    }

    fn check(&self) -> Result<(), SelectError> {
        match self.threads {
            0..=MOST_THREADS => Ok(()),
            threads => Err(SelectError::Threads { threads }),
        }
    }

    /// What training steps do to save memory, on an engine whose operators share its threads well.
    fn thrift(&self) -> Thrift {
        let micro_batch = match (self.micro_batch, self.provider) {
            (Some(0), _) => usize::MAX,
            (Some(tokens), _) => tokens,
            (None, Provider::Cpu) => CPU_MICRO_BATCH,
            (None, Provider::Cuda | Provider::TensorRt) => usize::MAX,
        };
        let fuse = self.provider == Provider::Cpu;
        Thrift { micro_batch, recompute: self.recompute, fuse, ..Thrift::default() }
    }
}

/// Why no engine can be had.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// ONNX Runtime was asked for and cannot be had.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The provider needs ONNX Runtime.
    #[error("tract runs on the CPU alone: for {provider} choose the engine ort")]
    TractOnGpu {
        /// The provider asked for.
        provider: Provider,
    },
    /// The library lacks the provider.
    #[error("the ONNX Runtime library {library} was built without {provider}", library = library.display())]
    ProviderMissing {
        /// The library.
        library: PathBuf,
        /// The provider asked for.
        provider: Provider,
    },
    /// More threads are asked for than anything needs.
    #[error("{threads} threads are more than the {MOST_THREADS} an engine may have; 0 lets it choose")]
    Threads {
        /// So many.
        threads: usize,
    },
}

/// The engine `config` asks for.
///
/// # Errors
/// When ONNX Runtime is asked for, by name or through a provider, and its library is missing, broken or built without
/// the provider; when a library is named and broken; when the threads are too many.
pub fn select(config: &EngineConfig) -> Result<Box<dyn Engine>, SelectError> {
    config.check()?;
    let on_gpu = config.provider != Provider::Cpu;
    let tract = || Box::new(config.tract()) as Box<dyn Engine>;
    if config.choice == EngineChoice::Tract {
        return if on_gpu { Err(SelectError::TractOnGpu { provider: config.provider }) } else { Ok(tract()) };
    }
    let options = OrtOptions {
        library: config.library.clone(),
        provider: config.provider,
        threads: config.threads,
        thrift: config.thrift(),
        ..OrtOptions::default()
    };
    match OrtEngine::new(options) {
        Ok(engine) if engine.has_provider() => Ok(Box::new(engine)),
        Ok(engine) => Err(SelectError::ProviderMissing { library: engine.library().into(), provider: config.provider }),
        Err(LibraryError::NotFound) if config.choice == EngineChoice::Auto && !on_gpu => Ok(tract()),
        Err(error) => Err(error.into()),
    }
}

/// What is known of an engine before it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its name.
    pub name: String,
    /// Whether it is the one built in.
    pub built_in: bool,
    /// What its steps do to save memory and time.
    pub thrift: Thrift,
}

impl Expected {
    fn tract(config: &EngineConfig) -> Self {
        let engine = config.tract();
        Expected { name: engine.name(), built_in: true, thrift: engine.thrift() }
    }
}

/// The engine that [`select()`] would return, told from files alone: no library is loaded.
///
/// # Errors
/// When ONNX Runtime is asked for, by name or through a provider, and no library is found; when the one named is not there;
/// when the threads are too many.
pub fn expected(config: &EngineConfig) -> Result<Expected, SelectError> {
    config.check()?;
    let on_gpu = config.provider != Provider::Cpu;
    if config.choice == EngineChoice::Tract {
        let refuse = SelectError::TractOnGpu { provider: config.provider };
        return if on_gpu { Err(refuse) } else { Ok(Expected::tract(config)) };
    }
    match OrtEngine::expected(config.library.as_deref(), config.provider) {
        Ok(name) => Ok(Expected { name, built_in: false, thrift: config.thrift() }),
        Err(LibraryError::NotFound) if config.choice == EngineChoice::Auto && !on_gpu => Ok(Expected::tract(config)),
        Err(error) => Err(error.into()),
    }
}

/// A word that stands for no setting.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not one of {known}")]
pub struct UnknownWord {
    word: String,
    known: &'static str,
}

impl FromStr for EngineChoice {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "auto" => Ok(EngineChoice::Auto),
            "ort" => Ok(EngineChoice::Ort),
            "tract" => Ok(EngineChoice::Tract),
            _ => Err(UnknownWord { word: word.into(), known: "auto, ort, tract" }),
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EngineChoice::Auto => "auto",
            EngineChoice::Ort => "ort",
            EngineChoice::Tract => "tract",
        })
    }
}

impl FromStr for Provider {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "cpu" => Ok(Provider::Cpu),
            "cuda" => Ok(Provider::Cuda),
            "tensorrt" => Ok(Provider::TensorRt),
            _ => Err(UnknownWord { word: word.into(), known: "cpu, cuda, tensorrt" }),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Provider::Cpu => "CPU",
            Provider::Cuda => "CUDA",
            Provider::TensorRt => "TensorRT",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn words_stand_for_settings() {
        assert_eq!("ort".parse(), Ok(EngineChoice::Ort));
        assert_eq!("tensorrt".parse(), Ok(Provider::TensorRt));
        let error = "onnx".parse::<EngineChoice>().unwrap_err();
        assert_eq!(error.to_string(), "`onnx` is not one of auto, ort, tract");
    }

    #[test]
    fn more_threads_than_anything_needs_are_refused() {
        let of = |threads| EngineConfig { choice: EngineChoice::Tract, threads, ..EngineConfig::default() };
        assert!(select(&of(MOST_THREADS)).is_ok() && expected(&of(MOST_THREADS)).is_ok());
        for refused in [select(&of(60_000)).map(drop), expected(&of(60_000)).map(drop)] {
            assert!(refused.unwrap_err().to_string().starts_with("60000 threads are more than the 512"));
        }
    }

    #[test]
    fn tract_is_always_there() {
        let config = EngineConfig { choice: EngineChoice::Tract, ..EngineConfig::default() };
        assert!(select(&config).unwrap().name().starts_with("tract "));
    }

    #[test]
    fn a_micro_batch_is_bounded_on_a_cpu_unless_told() {
        let config = |micro_batch, provider| EngineConfig { micro_batch, provider, ..EngineConfig::default() };
        assert_eq!(config(None, Provider::Cpu).thrift(), Thrift::default());
        assert_eq!(
            config(None, Provider::Cuda).thrift(),
            Thrift { micro_batch: usize::MAX, abreast: 1, recompute: false, fuse: false }
        );
        assert_eq!(config(Some(64), Provider::Cuda).thrift().micro_batch, 64);
        let whole = EngineConfig { recompute: true, ..config(Some(0), Provider::Cpu) };
        let whole = EngineConfig { choice: EngineChoice::Tract, threads: 3, ..whole };
        let thrift = Thrift { micro_batch: usize::MAX, abreast: 3, recompute: true, fuse: true };
        assert_eq!(select(&whole).unwrap().thrift(), thrift);
    }

    #[test]
    fn what_is_expected_is_what_is_selected() {
        let tract = EngineConfig { choice: EngineChoice::Tract, ..EngineConfig::default() };
        for config in [tract, EngineConfig::default()] {
            let (expected, engine) = (expected(&config).unwrap(), select(&config).unwrap());
            assert_eq!((expected.name, expected.thrift), (engine.name(), engine.thrift()));
            assert_eq!(expected.built_in, engine.library().is_none());
        }
    }

    #[test]
    fn tract_refuses_a_gpu() {
        let config = EngineConfig { choice: EngineChoice::Tract, provider: Provider::Cuda, ..EngineConfig::default() };
        let error = select(&config).err().unwrap().to_string();
        assert_eq!(error, "tract runs on the CPU alone: for CUDA choose the engine ort");
    }

    #[test]
    fn a_named_library_that_is_missing_is_an_error_even_for_auto() {
        let config = EngineConfig { library: Some("/nowhere/libonnxruntime.so".into()), ..EngineConfig::default() };
        for error in [select(&config).err().unwrap().to_string(), expected(&config).unwrap_err().to_string()] {
            assert!(error.contains("/nowhere/libonnxruntime.so"), "{error}");
        }
    }
}
