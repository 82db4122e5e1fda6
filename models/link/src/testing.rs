//! For tests: what networks and brokers do to a link at their worst, at will and from a seed.

mod frame;
mod proxy;

pub use proxy::{Counts, Direction, FaultProxy, Faults};
