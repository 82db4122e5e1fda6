//! MQTT (v3.1.1) behind a vocabulary of our own: a [`Link`] that keeps itself connected and the [`Inbox`] of what it
//! receives, for both ends of the federation; an embedded broker for a host that is given none (feature `broker`); and a
//! proxy that mistreats what passes through it, for tests (feature `testing`).
//!
//! `rumqttc` is named in [`packet`](self) alone, and lends its packets only. Its event loop is not used: it counts no
//! bytes, writes without reading (two peers that both push stall each other), forgets what is pending when a broker has
//! forgotten the session, and brings a TLS stack with known advisories. The loop here reads and writes at once.
//!
//! # What a link promises
//! - A publication is repeated, over any number of connections, until the broker acknowledges it (QoS 1). It may arrive more
//!   than once. A broker's acknowledgement is not delivery: brokers lose acknowledged messages when killed, so whoever
//!   needs certainty has the peer answer.
//! - Subscriptions are remembered and made again whenever the broker has forgotten the session.
//! - Connections are retried for ever, with exponential backoff and jitter.
//!
//! # How memory is bounded
//! - Out: [`LinkConfig::outgoing_bytes`] of publications wait or are unacknowledged; beyond, [`Link::publish`] waits.
//! - In: with [`LinkConfig::incoming_bytes`] unread in the [`Inbox`], the socket is no longer read, which TCP passes on to
//!   the broker. Publishing is not held up, save for its acknowledgements, which stand behind the messages: while somebody
//!   waits in [`Link::publish`] or [`Link::flush`] the socket is read on regardless, so that a consumer may publish between
//!   two messages without ever waiting for itself.

#![forbid(unsafe_code)]

#[cfg(feature = "broker")]
pub mod broker;
mod config;
mod connection;
mod driver;
mod error;
mod inbox;
mod link;
mod packet;
mod session;
#[cfg(feature = "testing")]
pub mod testing;
mod traffic;
mod url;

pub use config::{LinkConfig, Publication, Retry, TlsFiles, Will};
pub use error::LinkError;
pub use inbox::{Delivery, Inbox};
pub use link::Link;
pub use traffic::Traffic;
pub use url::BrokerUrl;
