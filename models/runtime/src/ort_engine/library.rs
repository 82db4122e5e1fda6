//! Loading ONNX Runtime: once per process, from the first library that works.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;

use super::find::{Candidates, LIBRARY_VARIABLE, candidates, library_version};

/// Why ONNX Runtime is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// No library in any of the usual places.
    #[error(
        "no ONNX Runtime library found: set its path in the configuration or in {LIBRARY_VARIABLE}, install it \
         (`pip install onnxruntime` will do), or choose the engine tract"
    )]
    NotFound,
    /// A library is there and cannot be used.
    #[error("the ONNX Runtime library {path}{by} cannot be used: {message}", path = path.display())]
    Unusable {
        /// The library.
        path: PathBuf,
        /// Who named it, as ` (from ORT_DYLIB_PATH)`, or nothing.
        by: String,
        /// What the loader said.
        message: String,
    },
    /// Another library is in use: a process loads one and keeps it.
    #[error("ONNX Runtime is already loaded from {loaded}: {asked} needs a process of its own", loaded = loaded.display(), asked = asked.display())]
    AlreadyLoaded {
        /// The library in use.
        loaded: PathBuf,
        /// The library asked for.
        asked: PathBuf,
    },
}

/// Stands for the version of a library that does not tell it.
pub(crate) const UNKNOWN_VERSION: &str = "of unknown version";

/// The library in use.
#[derive(Clone, Debug)]
pub(crate) struct Library {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
    pub(crate) environment: Environment,
}

impl Library {
    /// Whether the library takes the folder of a model's external data as a setting, as it does from 1.21.
    pub(crate) fn takes_weights_folder(&self) -> bool {
        let minor = self.version.strip_prefix("1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        minor.is_none_or(|minor| minor > 20)
    }
}

// Sessions hold the environment weakly through the process; this keeps it for good.
static LOADED: Mutex<Option<Library>> = Mutex::new(None);

/// The process's library: the one loaded before, or else the first of the places that works.
pub(crate) fn library(configured: Option<&Path>) -> Result<Library, LibraryError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let candidates = candidates(configured, &|name| std::env::var_os(name));
    if let Some(library) = loaded.as_ref() {
        return match candidates {
            Candidates::Named { path, .. } if !same_file(&path, &library.path) => {
                Err(LibraryError::AlreadyLoaded { loaded: library.path.clone(), asked: path })
            }
            _ => Ok(library.clone()),
        };
    }
    let library = match candidates {
        Candidates::Named { path, by } => {
            open(&path).map_err(|message| LibraryError::Unusable { path, by: format!(" (from {by})"), message })?
        }
        Candidates::Found(paths) => {
            let mut failure = LibraryError::NotFound;
            let mut opened = None;
            for path in paths {
                match open(&path) {
                    Ok(library) => {
                        opened = Some(library);
                        break;
                    }
                    Err(message) if matches!(failure, LibraryError::NotFound) => {
                        failure = LibraryError::Unusable { path, by: String::new(), message };
                    }
                    Err(_) => {}
                }
            }
            opened.ok_or(failure)?
        }
    };
    *loaded = Some(library.clone());
    Ok(library)
}

/// Path and version of the library that [`library`] would try first; the version where the file's name tells it.
pub(crate) fn expected(configured: Option<&Path>) -> Result<(PathBuf, Option<String>), LibraryError> {
    if let Some(library) = LOADED.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        return Ok((library.path.clone(), Some(library.version.clone())));
    }
    let path = match candidates(configured, &|name| std::env::var_os(name)) {
        Candidates::Named { path, by } => match path.canonicalize() {
            Ok(path) => path,
            Err(e) => {
                return Err(LibraryError::Unusable { path, by: format!(" (from {by})"), message: e.to_string() });
            }
        },
        Candidates::Found(paths) => paths.into_iter().next().ok_or(LibraryError::NotFound)?,
    };
    let version = library_version(&path);
    Ok((path, version))
}

fn open(path: &Path) -> Result<Library, String> {
    // An absolute path, because the loader searches relative ones in places of its own.
    let path = path.canonicalize().map_err(|e| e.to_string())?;
    let environment = ort::init_from(&path)
        .map_err(|e| e.to_string())?
        .with_name("fedtt")
        .with_telemetry(false)
        .build()
        .map_err(|e| e.to_string())?;
    environment.set_log_level(ort::logging::LogLevel::Fatal);
    let version = library_version(&path).or_else(built_from).unwrap_or_else(|| UNKNOWN_VERSION.into());
    Ok(Library { path, version, environment })
}

/// The version in the release branch's name, which ONNX Runtime's build information holds.
fn built_from() -> Option<String> {
    let (_, rest) = ort::info().split_once("git-branch=rel-")?;
    Some(rest.split(',').next()?.to_string())
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
