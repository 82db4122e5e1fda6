//! `host.toml`: what the owner of a host writes. Every setting has a default, so that no file is needed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fedtt_link::broker::BrokerConfig;
use fedtt_link::{BrokerUrl, Retry, TlsFiles};
use serde::Deserialize;

use crate::coordinator::Limits;
use crate::fleet::IdentitySettings;

/// Chunks of a run's state: with its changes and some more runs they have room in the broker within the host.
const MOST_CHUNKS: u32 = 2048;

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML, or holds what is no setting.
    #[error("{}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
}

/// The settings of a host.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// The fleet it serves.
    pub fleet: String,
    /// The folder of what must outlive the process, and of the control socket.
    pub state: PathBuf,
    /// The folder each run gets a folder in.
    pub runs: PathBuf,
    /// The broker's address, `mqtt[s]://[user[:password]@]host[:port]`; without one a broker runs within the host.
    pub broker: Option<String>,
    /// Largest packet of a broker of one's own, in bytes: what is larger is not sent, as the broker would end the connection.
    pub max_packet: usize,
    /// Files for TLS, with a broker of one's own.
    pub tls: TlsFiles,
    /// Whom it trusts.
    pub security: SecuritySettings,
    /// Certificates of the fleet's devices.
    pub identity: IdentitySettings,
    /// Waits before connecting to the broker again.
    pub reconnect: ReconnectSettings,
    /// The broker within the host.
    pub embedded: EmbeddedSettings,
    /// The live page.
    pub web: WebSettings,
    /// The host's own examples.
    pub evaluation: EvaluationSettings,
}

/// Whom the host trusts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecuritySettings {
    /// Whether devices that were not enrolled are turned away; else each name belongs to the first key that comes with it.
    /// If absent: where the broker is reached over TLS and the fleet has an authority.
    pub enrolled_only: Option<bool>,
}

/// Waits before connecting to the broker again: the first doubles with every failure.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReconnectSettings {
    /// The first, in seconds.
    pub first: f64,
    /// The longest, in seconds.
    pub longest: f64,
}

/// The broker within the host.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedSettings {
    /// Where it listens: this machine alone unless told. Port 0 picks a free one.
    pub bind: SocketAddr,
    /// Most connections at a time.
    pub max_clients: usize,
    /// Largest packet, in bytes.
    pub max_packet: usize,
}

/// The live page.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSettings {
    /// Where it listens: this machine alone unless told. Port 0 picks a free one.
    pub bind: SocketAddr,
    /// Whether there is one.
    pub enabled: bool,
    /// Where bundles alone are served, for devices; nowhere if absent. Port 0 picks a free one.
    pub bundles: Option<SocketAddr>,
}

/// The host's own examples.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationSettings {
    /// Files the adapter is measured on after each round, for runs that are started without any of their own.
    pub data: Vec<PathBuf>,
}

impl Default for HostConfig {
    fn default() -> Self {
        HostConfig {
            fleet: "fedtt".into(),
            state: state_folder(),
            runs: "runs".into(),
            broker: None,
            max_packet: BrokerConfig::default().max_packet,
            tls: TlsFiles::default(),
            security: SecuritySettings::default(),
            identity: IdentitySettings::default(),
            reconnect: ReconnectSettings::default(),
            embedded: EmbeddedSettings::default(),
            web: WebSettings::default(),
            evaluation: EvaluationSettings::default(),
        }
    }
}

impl Default for ReconnectSettings {
    fn default() -> Self {
        ReconnectSettings { first: 0.2, longest: 10.0 }
    }
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        let BrokerConfig { max_clients, max_packet, .. } = BrokerConfig::default();
        EmbeddedSettings { bind: (Ipv4Addr::LOCALHOST, 1883).into(), max_clients, max_packet }
    }
}

impl Default for WebSettings {
    fn default() -> Self {
        WebSettings { bind: (Ipv4Addr::LOCALHOST, 8080).into(), enabled: true, bundles: None }
    }
}

/// Where a host keeps its state unless told: `$FEDTT_STATE`, or `fedtt` where the user's programs keep theirs.
pub fn state_folder() -> PathBuf {
    let folder = |variable: &str| std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    folder("FEDTT_STATE")
        .or_else(|| folder("XDG_STATE_HOME").map(|state| state.join("fedtt")))
        .or_else(|| folder("HOME").map(|home| home.join(".local/state/fedtt")))
        .unwrap_or_else(|| "fedtt-state".into())
}

impl HostConfig {
    /// Reads the file at `path`; its relative paths are relative to its folder.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.into(), source })?;
        let mut config: HostConfig = toml::from_str(&text)
            .map_err(|source| ConfigError::Content { path: path.into(), source: Box::new(source) })?;
        let base = path.parent().unwrap_or(Path::new(""));
        let tls = &mut config.tls;
        let files = [&mut tls.ca, &mut tls.cert, &mut tls.key].into_iter().flatten();
        for file in files.chain([&mut config.state, &mut config.runs]).chain(&mut config.evaluation.data) {
            *file = base.join(&file);
        }
        Ok(config)
    }

    pub(super) fn tls_files(&self) -> Option<TlsFiles> {
        self.tls.clone().named()
    }

    /// Whether no device is trusted that was not enrolled.
    pub(super) fn enrolled_only(&self, broker: &BrokerUrl) -> bool {
        let default = || broker.is_tls() && crate::fleet::folder(&self.state).join("ca.pem").exists();
        self.security.enrolled_only.unwrap_or_else(default)
    }

    pub(super) fn retry(&self) -> Retry {
        let wait = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Retry { min: wait(self.reconnect.first), max: wait(self.reconnect.longest) }
    }

    /// What the broker takes, the one within the host or one's own.
    pub(super) fn limits(&self) -> Limits {
        let packet = if self.broker.is_some() { self.max_packet } else { self.embedded.max_packet };
        Limits { packet, chunks: MOST_CHUNKS }
    }

    pub(super) fn broker_config(&self) -> BrokerConfig {
        let EmbeddedSettings { bind, max_clients, max_packet } = self.embedded;
        // What devices miss while they are away they are told anew, or ask for.
        let session_expiry = std::time::Duration::ZERO;
        BrokerConfig { bind, max_clients, max_packet, session_expiry, ..BrokerConfig::default() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_host_needs_no_settings_and_listens_on_loopback() {
        let config: HostConfig = toml::from_str("").unwrap();
        assert_eq!(config, HostConfig::default());
        assert!(config.embedded.bind.ip().is_loopback() && config.web.bind.ip().is_loopback());
        assert_eq!(config.web.bundles, None);
    }

    #[test]
    fn the_example_holds_the_defaults_and_only_settings_that_exist() {
        let text = include_str!("../../host.example.toml");
        let config: HostConfig = toml::from_str(text).unwrap();
        assert_eq!(config, HostConfig::default());
        let shown: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(set) if set.starts_with('[') || set.split_once(" = ").is_some_and(|(k, _)| !k.contains(' ')) => {
                    set
                }
                _ => line,
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let config: HostConfig = toml::from_str(&shown).unwrap();
        assert!(config.broker.is_some() && config.tls.key.is_some() && config.state == Path::new("state"));
        assert!(config.web.bundles.is_some());
    }

    #[test]
    fn files_are_relative_to_the_settings_and_mistakes_are_named() {
        let folder = std::env::temp_dir().join(format!("fedtt-host-config-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("host.toml");
        std::fs::write(&path, "state = 'state'\n[tls]\nca = 'ca.pem'\n[embedded]\nbind = '0.0.0.0:0'\n").unwrap();
        let config = HostConfig::read(&path).unwrap();
        assert_eq!((&config.state, &config.runs), (&folder.join("state"), &folder.join("runs")));
        assert_eq!(config.tls_files().unwrap().ca, Some(folder.join("ca.pem")));
        std::fs::write(&path, "stat = 'x'").unwrap();
        let error = HostConfig::read(&path).unwrap_err().to_string();
        assert!(error.contains("host.toml") && error.contains("stat"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
