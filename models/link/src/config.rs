//! What a link is told.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use crate::{BrokerUrl, LinkError};

/// A message to send, always at QoS 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Where to; no wildcards.
    pub topic: String,
    /// What; empty and retained clears what the topic holds.
    pub payload: Bytes,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
}

/// What the broker publishes when a connection vanishes; made for each connection, so that it can tell one from another.
#[derive(Clone)]
pub struct Will(Arc<dyn Fn() -> Publication + Send + Sync>);

impl Will {
    /// A will that `make` makes whenever a connection is tried.
    pub fn new(make: impl Fn() -> Publication + Send + Sync + 'static) -> Self {
        Will(Arc::new(make))
    }

    /// What the next connection is given.
    pub fn make(&self) -> Publication {
        (self.0)()
    }
}

impl From<Publication> for Will {
    fn from(publication: Publication) -> Self {
        Will::new(move || publication.clone())
    }
}

impl fmt::Debug for Will {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Will")
    }
}

/// Files for TLS, all PEM. They are read for each connection, so that certificates may be replaced while a link stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsFiles {
    /// Authorities the broker's certificate may be signed by; without it, those of the system.
    pub ca: Option<PathBuf>,
    /// Our certificate, with its chain, for brokers that ask for one. Goes with `key`.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`.
    pub key: Option<PathBuf>,
}

impl TlsFiles {
    /// The same, if any file is named.
    pub fn named(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}

/// How long to wait before connecting again: `min` doubles with every failure up to `max`; each wait is drawn between its
/// half and its whole. Starts over after a connection that stood ten times `min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The first wait.
    pub min: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Retry {
    /// The wait after `failures` failures in a row, with `draw` in 0..1 for the jitter.
    pub(crate) fn wait(&self, failures: u32, draw: f64) -> Duration {
        let full = self.min.saturating_mul(2u32.saturating_pow(failures.min(31))).min(self.max);
        full.mul_f64(0.5 + draw.clamp(0.0, 1.0) / 2.0)
    }
}

/// Settings of a link. [`LinkConfig::new`] fills in the defaults.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// The broker.
    pub broker: BrokerUrl,
    /// Who we are to the broker, which disconnects an older connection of the same name.
    pub client_id: String,
    /// User and password; goes before those in the broker's address.
    pub credentials: Option<(String, String)>,
    /// Files for TLS; only with `mqtts://`.
    pub tls: Option<TlsFiles>,
    /// A connection on which nothing moves for this long is tried with a ping, and given up when nothing moves for as long
    /// again. The broker gives us up after one and a half times this.
    pub keep_alive: Duration,
    /// How long connecting may take, TLS and the broker's greeting included.
    pub connect_timeout: Duration,
    /// The largest packet, either way, bytes.
    pub max_packet: usize,
    /// What the broker publishes when we vanish without taking leave.
    pub will: Option<Will>,
    /// Whether the broker keeps subscriptions and messages for us while we are away.
    pub persistent: bool,
    /// Waits between attempts to connect.
    pub retry: Retry,
    /// Bytes of publications that may wait for the broker's acknowledgement.
    pub outgoing_bytes: usize,
    /// Bytes of messages that may wait in the inbox before the socket is left unread.
    pub incoming_bytes: usize,
    /// How long [`Link::shutdown`](crate::Link::shutdown) waits for what is not yet acknowledged.
    pub shutdown_timeout: Duration,
}

impl LinkConfig {
    /// Default settings: keep-alive 30 s, 10 s to connect, packets to 4 MiB, no will, not persistent, retries after 1 s to
    /// 60 s, 8 MiB out and 32 MiB in, 5 s to shut down.
    pub fn new(broker: BrokerUrl, client_id: impl Into<String>) -> Self {
        Self {
            broker,
            client_id: client_id.into(),
            credentials: None,
            tls: None,
            keep_alive: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            max_packet: 4 << 20,
            will: None,
            persistent: false,
            retry: Retry { min: Duration::from_secs(1), max: Duration::from_secs(60) },
            outgoing_bytes: 8 << 20,
            incoming_bytes: 32 << 20,
            shutdown_timeout: Duration::from_secs(5),
        }
    }

    pub(crate) fn check(&self) -> Result<(), LinkError> {
        let wrong = |field, problem: &str| Err(LinkError::Setting { field, problem: problem.into() });
        if self.client_id.is_empty() || self.client_id.len() > usize::from(u16::MAX) {
            return wrong("client_id", "must have 1 to 65535 bytes");
        }
        if !(1..=u64::from(u16::MAX)).contains(&self.keep_alive.as_secs()) {
            return wrong("keep_alive", "must be 1 to 65535 seconds");
        }
        if self.connect_timeout.is_zero() {
            return wrong("connect_timeout", "must not be zero");
        }
        if self.retry.min.is_zero() || self.retry.min > self.retry.max {
            return wrong("retry", "min must be above zero and at most max");
        }
        if !(256..=MAX_PACKET).contains(&self.max_packet) {
            return wrong("max_packet", "must be 256 bytes to 256 MiB, the limit of MQTT");
        }
        if self.outgoing_bytes == 0 || self.outgoing_bytes > MAX_PACKET * 4 {
            return wrong("outgoing_bytes", "must be 1 byte to 1 GiB");
        }
        if self.incoming_bytes == 0 {
            return wrong("incoming_bytes", "must not be zero");
        }
        if self.tls.is_some() && !self.broker.is_tls() {
            return wrong("tls", "files are given but the broker's address is mqtt://, which is not encrypted");
        }
        let login = self.credentials.as_ref().or(self.broker.credentials.as_ref());
        if login.is_some_and(|(user, password)| user.len().max(password.len()) > usize::from(u16::MAX)) {
            return wrong("credentials", "user and password have at most 65535 bytes each");
        }
        if let Some(will) = self.will.as_ref().map(Will::make) {
            crate::packet::check_topic(&will.topic)?;
            if will.payload.len() > usize::from(u16::MAX) {
                return wrong("will", "its payload has at most 65535 bytes");
            }
        }
        Ok(())
    }
}

/// The largest remaining length MQTT can state.
const MAX_PACKET: usize = 268_435_455;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn waits_double_to_the_longest_and_are_spread() {
        let retry = Retry { min: Duration::from_secs(1), max: Duration::from_secs(60) };
        let whole: Vec<u64> = (0..8).map(|n| retry.wait(n, 1.0).as_secs()).collect();
        assert_eq!(whole, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(retry.wait(3, 0.0), Duration::from_secs(4));
        assert_eq!(retry.wait(u32::MAX, 1.0), Duration::from_secs(60));
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let good = LinkConfig::new("mqtt://host".parse().unwrap(), "device");
        good.check().unwrap();
        let wrong = [
            ("client_id", LinkConfig { client_id: String::new(), ..good.clone() }),
            ("keep_alive", LinkConfig { keep_alive: Duration::from_millis(10), ..good.clone() }),
            ("max_packet", LinkConfig { max_packet: 10, ..good.clone() }),
            ("tls", LinkConfig { tls: Some(TlsFiles::default()), ..good.clone() }),
            ("retry", LinkConfig { retry: Retry { min: Duration::from_secs(2), max: Duration::from_secs(1) }, ..good }),
        ];
        for (field, config) in wrong {
            let message = config.check().unwrap_err().to_string();
            assert!(message.starts_with(field), "{message}");
        }
    }
}
