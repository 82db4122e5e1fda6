#![allow(clippy::unwrap_used, clippy::panic)]

mod adopting;
mod config;
mod pausing;
mod place;
mod readiness;
mod rereading;
mod store;
