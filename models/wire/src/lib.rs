//! What host and devices say to each other. No I/O.
//!
//! [`plan`] is what a run is, [`message`] what is said, [`tensor`] how values are encoded, [`mod@frame`] how a message becomes
//! bytes, [`chunk`] how long ones are cut, [`seal`] how they are signed, [`topics`] where all go, [`names`] who may be
//! called what. `SPEC.md` says the same for those who write a client in another language.
#![forbid(unsafe_code)]

mod buffer;
pub mod chunk;
pub mod digest;
pub mod error;
pub mod frame;
pub mod layout;
pub mod message;
pub mod names;
pub mod plan;
pub mod seal;
pub mod tensor;
pub mod topics;

pub use digest::Digest;
pub use error::WireError;
pub use layout::Layout;
pub use message::Message;
pub use names::{DeviceName, FleetName, RequestId, RunId};
pub use plan::Plan;
pub use seal::{PublicKey, SigningKey};
pub use topics::{Topic, Topics};
