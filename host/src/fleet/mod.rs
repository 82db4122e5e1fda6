//! Who the host is and who its devices are: keys, certificates, trust.

mod ca;
mod deployment;
mod devices;
mod enrolling;
mod error;
mod forgetting;
mod key;
mod ledger;
mod mosquitto;
mod password;
mod registrar;
mod revoking;
mod span;
#[cfg(test)]
mod tests;
mod upkeep;

use std::path::{Path, PathBuf};

pub use deployment::Deployment;
pub use devices::{Certificate, Device, Devices, PinError, Standing};
pub use enrolling::{Enrolled, Reply};
pub use error::FleetError;
pub use key::{KeyError, host_key};
pub use mosquitto::MosquittoOptions;
pub use password::{PasswordChange, PasswordChanged};
pub use registrar::{IdentitySettings, Registrar, TokenOptions, TokenOut};
pub(crate) use revoking::run as reload;
pub use revoking::{Revocation, Revoked};
pub use span::{NoSpan, Span};
pub use upkeep::{Party, Upkeep};

/// Where a host keeps its fleet's identities.
pub fn folder(state: &Path) -> PathBuf {
    state.join("fleet")
}

/// The file of the host's signing key.
pub fn host_key_file(state: &Path) -> PathBuf {
    folder(state).join("host.key")
}

/// The file of the registry.
pub fn devices_file(state: &Path) -> PathBuf {
    folder(state).join("devices.redb")
}

/// Unix seconds.
pub fn now() -> u64 {
    crate::daemon::now() / 1000
}
