//! For tests: what networks and brokers do to a link at their worst, at will and from a seed; and mosquitto, wherever it is
//! installed.

mod frame;
mod mosquitto;
mod proxy;

pub use mosquitto::Mosquitto;
pub use proxy::{Counts, Direction, FaultProxy, Faults};
