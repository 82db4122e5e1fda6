//! What can be wrong with a link's settings or with what is asked of it.

use std::path::PathBuf;

/// An error of a link. Lost connections are none: they are [`Delivery::Disconnected`](crate::Delivery::Disconnected).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The broker's address cannot be understood.
    #[error("broker address `{address}`: {problem}; write mqtt://[user:password@]host[:port], or mqtts:// for TLS")]
    Address {
        /// The address, without its password.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A setting cannot be used.
    #[error("{field}: {problem}")]
    Setting {
        /// The name of the setting.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file for TLS cannot be used.
    #[error("{path}: {problem}")]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The settings for TLS do not go together.
    #[error("TLS: {0}")]
    Tls(String),
    /// Not a topic that can be published to, or not a filter that can be subscribed to.
    #[error("`{topic}` cannot be used as a topic or filter: {problem}")]
    Topic {
        /// The topic or filter.
        topic: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A publication is larger than the link's `max_packet`.
    #[error("a publication of {bytes} bytes to {topic} is over the limit of {limit} (max_packet)")]
    TooLarge {
        /// Where it should have gone.
        topic: String,
        /// Its size as a packet.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The link is shut down.
    #[error("the link is shut down")]
    Closed,
    /// The embedded broker cannot be started.
    #[error("embedded broker at {address}: {problem}")]
    Broker {
        /// Where it should have listened.
        address: std::net::SocketAddr,
        /// What is wrong.
        problem: String,
    },
}
