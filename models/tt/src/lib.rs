//! Tensor-train adapters in plain ndarray: cores, contractions, gradients, optimisers. No I/O.
#![forbid(unsafe_code)]

pub mod form;
