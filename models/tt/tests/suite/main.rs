//! Properties of the public API, against dense algebra, finite differences and published figures.
#![allow(clippy::unwrap_used, clippy::panic)]

mod algebra;
mod config;
mod counts;
mod gradients;
mod model;
mod optimiser;
mod support;
