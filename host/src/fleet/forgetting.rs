//! Freeing a name that was trusted on first use.

use fedtt_wire::DeviceName;

use super::{FleetError, Registrar};

impl Registrar {
    /// Forgets a device that was not enrolled, revoked or not: the next key that comes with its name is trusted.
    ///
    /// # Errors
    /// When there is no such device, it was enrolled, or the database fails.
    pub fn forget(&mut self, device: &DeviceName) -> Result<(), FleetError> {
        match self.devices.standing(device) {
            None => Err(FleetError::Refused(format!("there is no device `{device}`; see `fedtt device list`"))),
            Some(known) if known.enrolled => Err(FleetError::Refused(format!(
                "`{device}` was enrolled: `fedtt device enroll {device}` lets another board in under its name"
            ))),
            Some(_) => Ok(self.devices.forget(device).map(drop)?),
        }
    }
}
