//! Another password for the port of enrolment, once the one in a seed file has leaked.

use fedtt_identity::authority::ENROLL;
use fedtt_identity::password::{mosquitto_line, random_password};
use serde::{Deserialize, Serialize};

use super::deployment::{Deployment, place};
use super::revoking::{READ_ANEW, run};
use super::{FleetError, Registrar};

/// The password was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordChanged {
    /// The fleet.
    pub fleet: String,
    /// Whether the broker has been told: it takes the new one alone from now on. Else why not, and what to do.
    pub broker: Result<(), String>,
}

/// What is left to do when the password was changed.
#[derive(Debug)]
pub struct PasswordChange {
    fleet: String,
    command: Vec<String>,
}

impl Registrar {
    /// Gives the port of enrolment a new password, in the broker's file and in what is made and answered from now on: seeds,
    /// certificates. [`PasswordChange::carry_through`] has the broker read it.
    ///
    /// # Errors
    /// When no broker is set up, or a file cannot be written.
    pub fn new_password(&mut self) -> Result<PasswordChange, FleetError> {
        let deployment = Deployment { password: random_password()?, ..self.met()?.clone() };
        let line = mosquitto_line(ENROLL, &deployment.password)?;
        // The broker's first: what is remembered holds at the broker, or will once its file is read.
        place(&deployment.folder.join(PASSWORDS), line.as_bytes(), 0o640, deployment.group)?;
        deployment.write(&self.folder)?;
        let fleet = deployment.fleet.clone();
        self.deployment = Some(deployment);
        Ok(PasswordChange { fleet, command: self.reload() })
    }
}

/// The broker's file.
pub(super) const PASSWORDS: &str = "passwords";

impl PasswordChange {
    /// Has the broker read the password. Takes as long as its command does, at most some 30 s.
    pub fn carry_through(self) -> PasswordChanged {
        let PasswordChange { fleet, command } = self;
        let broker = match command.is_empty() {
            true => Err(READ_ANEW.to_string()),
            false => run(&command).map_err(|e| format!("`{}` {e}", command.join(" "))),
        };
        PasswordChanged { fleet, broker }
    }
}
