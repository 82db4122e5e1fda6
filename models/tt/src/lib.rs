//! Tensor-train adapters in plain ndarray: cores, contractions, gradients, optimisers. No I/O.
//!
//! An [`model::AdapterSet`] is everything that trains: the adapters at a backbone's sites and the task head. It hands
//! plain matrices to the training graph (`graph_inputs`), turns the graph's gradients of those matrices into
//! gradients of cores (`pullback`), and lends its values to the optimiser ([`optim::Optimiser`]).
#![forbid(unsafe_code)]

pub mod adapter;
pub mod config;
pub mod error;
pub mod form;
pub mod head;
pub mod init;
pub mod linalg;
pub mod linear;
pub mod mask;
pub mod model;
pub mod modes;
pub mod module;
pub mod native;
pub mod optim;
pub mod scalar;
pub mod tt;

pub use adapter::Adapter;
pub use config::AdapterConfig;
pub use error::{Error, Result};
pub use head::Head;
pub use mask::{CoreSchedule, TrainMask};
pub use model::{AdapterSet, HeadSize, Site, SiteKind};
pub use module::{Module, Parameter, Role};
pub use optim::{Optimiser, OptimiserConfig, OptimiserState};
pub use scalar::Scalar;
pub use tt::{TtMatrix, TtShape};
