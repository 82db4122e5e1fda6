//! An MQTT broker within this process, for a host that is given none. The crate behind it is named here alone.
//!
//! It keeps everything in memory: what it has acknowledged is gone when the process ends, which the federation's own
//! acknowledgements make up for. See `benches/broker.rs` for its speed and memory beside mosquitto's.

use std::net::{Ipv4Addr, SocketAddr};

use mqtt5::broker::{BrokerShutdownHandle, MqttBroker, StorageBackendType, StorageConfig};
use tokio::task::JoinHandle;

use crate::{BrokerUrl, LinkError};

/// Settings of the embedded broker; the limits bound its memory.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Where to listen; port 0 picks a free one.
    pub bind: SocketAddr,
    /// The largest packet, bytes.
    pub max_packet: usize,
    /// The most connections at a time.
    pub max_clients: usize,
    /// The most topics that hold a retained message.
    pub max_retained: usize,
    /// The most messages queued for one client, away or slow; what comes on top is dropped.
    pub max_queued_messages: usize,
    /// The most bytes queued for one client.
    pub max_queued_bytes: usize,
}

impl Default for BrokerConfig {
    /// Loopback at a free port; packets to 4 MiB, 2,000 clients, 10,000 retained messages, 10,000 messages or 64 MiB queued
    /// per client.
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            max_packet: 4 << 20,
            max_clients: 2_000,
            max_retained: 10_000,
            max_queued_messages: 10_000,
            max_queued_bytes: 64 << 20,
        }
    }
}

/// A running broker. Dropped, it stops without taking leave of its clients.
#[derive(Debug)]
pub struct EmbeddedBroker {
    address: SocketAddr,
    task: Option<JoinHandle<Result<(), String>>>,
    stop: Stop,
}

struct Stop(BrokerShutdownHandle);

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stop")
    }
}

impl EmbeddedBroker {
    /// Starts a broker on the current tokio runtime; it accepts connections when this returns.
    ///
    /// # Errors
    /// If the address cannot be bound or a limit cannot be used.
    pub async fn start(config: BrokerConfig) -> Result<Self, LinkError> {
        let failed = |problem: String| LinkError::Broker { address: config.bind, problem };
        let storage = StorageConfig::new()
            .with_backend(StorageBackendType::Memory)
            .with_max_queued_messages_per_client(config.max_queued_messages)
            .with_max_queued_bytes_per_client(config.max_queued_bytes);
        let mut settings = mqtt5::broker::BrokerConfig::new()
            .with_bind_address(config.bind)
            .with_max_packet_size(config.max_packet)
            .with_max_clients(config.max_clients)
            .with_max_retained_messages(config.max_retained)
            .with_max_retained_message_size(config.max_packet)
            .with_maximum_qos(1)
            .with_sys_topics_enabled(false)
            .with_storage(storage);
        settings.auth_config.rate_limit.enabled = false;
        let mut broker = MqttBroker::with_config(settings).await.map_err(|error| failed(error.to_string()))?;
        let address = broker.local_addr().ok_or_else(|| failed("it reports no address".into()))?;
        let stop = Stop(broker.shutdown_handle());
        let mut ready = broker.ready_receiver();
        let mut task = tokio::spawn(async move { broker.run().await.map_err(|error| error.to_string()) });
        tokio::select! {
            _ = ready.wait_for(|ready| *ready) => {}
            ended = &mut task => return Err(failed(match ended {
                Ok(Ok(())) => "it stopped at once".into(),
                Ok(Err(problem)) => problem,
                Err(error) => error.to_string(),
            })),
        }
        Ok(Self { address, task: Some(task), stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients on this machine reach it.
    pub fn url(&self) -> BrokerUrl {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        BrokerUrl::tcp(address)
    }

    /// Closes all connections and returns when the port is free again.
    ///
    /// # Errors
    /// If the broker had failed before.
    pub async fn shutdown(mut self) -> Result<(), LinkError> {
        self.stop.0.shutdown();
        let Some(task) = self.task.take() else { return Ok(()) };
        match task.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(problem)) => Err(LinkError::Broker { address: self.address, problem }),
            Err(error) => Err(LinkError::Broker { address: self.address, problem: error.to_string() }),
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            self.stop.0.shutdown();
            task.abort();
        }
    }
}
