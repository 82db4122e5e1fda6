#![allow(clippy::unwrap_used, clippy::panic)]

mod adopting;
mod config;
mod place;
mod store;
