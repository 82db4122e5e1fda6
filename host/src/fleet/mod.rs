//! Who the host is and who its devices are: keys, certificates, trust.

mod devices;
mod key;

pub use devices::{Certificate, Device, Devices, PinError};
pub use key::{KeyError, host_key};

/// Unix seconds.
pub fn now() -> u64 {
    crate::daemon::now() / 1000
}
