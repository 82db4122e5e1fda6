//! What a federation bears: processes killed at any point, messages lost, late, twice and damaged, peers that mean harm, and
//! a client in another language. Brokers, sockets and `fedtt serve` are real; what devices contribute is made up.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, missing_docs)]

mod broker;
mod device;
mod fleet;
mod hostile;
mod python;
mod survival;
