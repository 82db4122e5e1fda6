//! The broker the fleet meets at, as `fedtt broker config` has set it up.

use std::io;
use std::path::{Path, PathBuf};

use fedtt_identity::authority::ENROLL;
use serde::{Deserialize, Serialize};

use super::error::of;
use super::{FleetError, Span};

/// Where a fleet meets, and where its broker's files are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The fleet.
    pub fleet: String,
    /// The host name or address devices reach the broker at.
    pub host: String,
    /// The port for work.
    pub port: u16,
    /// The port for enrolment.
    pub enroll_port: u16,
    /// The password of those who are to enrol.
    pub password: String,
    /// The broker's folder.
    pub folder: PathBuf,
    /// The group that may read the broker's secrets.
    pub group: Option<u32>,
    /// The command after which the broker has read its files anew.
    pub on_revoke: Vec<String>,
    /// How long the certificates of the broker and of the host last.
    #[serde(default = "year")]
    pub life: Span,
}

fn year() -> Span {
    Span::days(365)
}

const FILE: &str = "broker.toml";

impl Deployment {
    /// The one remembered in a folder.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, FleetError> {
        let path = folder.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                toml::from_str(&text).map(Some).map_err(|e| FleetError::Refused(format!("{}: {e}", path.display())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(of(&path)(error)),
        }
    }

    /// Remembers it.
    pub(super) fn write(&self, folder: &Path) -> Result<(), FleetError> {
        let text = toml::to_string(self).map_err(|e| FleetError::Refused(e.to_string()))?;
        place(&folder.join(FILE), text.as_bytes(), 0o600, None)
    }

    fn at(&self, login: &str, port: u16) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        format!("mqtts://{login}{host}:{port}")
    }

    /// The broker's address for work.
    pub fn broker(&self) -> String {
        self.at("", self.port)
    }

    /// Its address for enrolment, with what lets in there.
    pub fn enroll(&self) -> String {
        self.at(&format!("{ENROLL}:{}@", self.password), self.enroll_port)
    }
}

/// Replaces a file, for its owner and a group.
pub(super) fn place(path: &Path, bytes: &[u8], mode: u32, group: Option<u32>) -> Result<(), FleetError> {
    fedtt_edge::files::write_for(path, bytes, mode, group).map_err(of(path))
}
