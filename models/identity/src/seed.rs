//! Seed files: all a device needs to enrol itself, TOML.

use fedtt_wire::{DeviceName, FleetName};
use serde::{Deserialize, Serialize};

use crate::error::{IdentityError, content};
use crate::token::Token;

/// What a seed file holds. Whoever has it can enrol until its token is used up or expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// The fleet.
    pub fleet: FleetName,
    /// The broker's address for enrolment, with the user and password that let in there.
    pub broker: String,
    /// The token.
    pub token: Token,
    /// The device it is for; without it, devices name themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<DeviceName>,
    /// Groups its devices belong to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// When the token expires, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub expires: String,
    /// The fleet's authority, PEM: which broker to trust.
    pub ca: String,
}

impl Seed {
    /// Reads a seed file.
    ///
    /// # Errors
    /// When something is missing or wrong in it, with the line.
    pub fn read(text: &str) -> Result<Self, IdentityError> {
        toml::from_str(text).map_err(content("a seed file"))
    }

    /// The file.
    ///
    /// # Errors
    /// Never for a seed.
    pub fn write(&self) -> Result<String, IdentityError> {
        let text = toml::to_string(self).map_err(content("a seed file"))?;
        let devices = match &self.name {
            Some(name) => format!("device {name}"),
            None => "devices, each of which gets its own identity".to_string(),
        };
        Ok(format!(
            "# Enrols {devices} in fleet {}, by itself. Made by `fedtt device enroll`.\n\
             # Whoever holds this file can enrol until its token is used up or expires: keep it from others.\n{text}",
            self.fleet
        ))
    }
}
