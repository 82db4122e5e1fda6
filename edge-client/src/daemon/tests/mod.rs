#![allow(clippy::unwrap_used, clippy::panic)]

mod config;
mod store;
