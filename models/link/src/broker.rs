//! An MQTT broker within this process, for a host that is given none. The crate behind it is named here alone.
//!
//! It runs on a thread of its own, so that nothing the process is busy with delays it, and keeps everything in memory: what
//! it has acknowledged is gone when the process ends, which the federation's own acknowledgements make up for. It speaks
//! plain TCP to whoever comes, and therefore on this machine alone; for devices elsewhere there is mosquitto.
//! `benches/broker.rs` has both side by side.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mqtt5::broker::{MqttBroker, StorageBackendType, StorageConfig};
use tokio::sync::oneshot;

use crate::{BrokerUrl, LinkError};

/// Settings of the embedded broker; the limits bound its memory.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Where to listen: an address of this machine's loopback. Port 0 picks a free one.
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
    /// How long the session of a client that is away is kept, if it asked for that. With zero there are none, and no second copy
    /// of what is retained and on its way.
    pub session_expiry: Duration,
}

/// Messages on their way to one client before its queue is used; a sender to a slower client waits up to 2 s for room here.
/// Few enough that long updates pouring in for the host do not pile up.
const LANE: usize = 64;
/// How long connections have to end by themselves at a shutdown; those yet to introduce themselves do not listen.
const LEAVE: Duration = Duration::from_millis(500);
/// Why it stays on the loopback.
const OPEN: &str = "it knows neither TLS nor who may do what, and listens on this machine's loopback alone, such as \
     127.0.0.1:1883; for devices elsewhere set up mosquitto: `fedtt broker config mosquitto` writes all it needs";
const SUBSCRIPTIONS_PER_CLIENT: usize = 1_000;

impl Default for BrokerConfig {
    /// Loopback at a free port; packets to 4 MiB, 2,000 clients, 100,000 retained messages, 10,000 messages or 64 MiB queued
    /// per client, sessions kept for a day.
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            max_packet: 4 << 20,
            max_clients: 2_000,
            max_retained: 100_000,
            max_queued_messages: 10_000,
            max_queued_bytes: 64 << 20,
            session_expiry: Duration::from_secs(24 * 3600),
        }
    }
}

/// A running broker. Dropped, it stops all the same, without being waited for.
#[derive(Debug)]
pub struct EmbeddedBroker {
    address: SocketAddr,
    /// Dropped, the broker stops.
    stop: oneshot::Sender<()>,
    /// Why it ended, once it has.
    ended: oneshot::Receiver<Result<(), String>>,
}

impl EmbeddedBroker {
    /// Starts a broker; it accepts connections when this returns.
    ///
    /// # Errors
    /// If the address is not of the loopback or cannot be bound, or a limit cannot be used.
    pub async fn start(config: BrokerConfig) -> Result<Self, LinkError> {
        let failed = |problem: String| LinkError::Broker { address: config.bind, problem };
        if !config.bind.ip().is_loopback() {
            return Err(failed(OPEN.into()));
        }
        let settings = settings(&config);
        let (started, start) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (end, mut ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("mqtt-broker".into());
        // Not joined: it tells its end, and a process may end without it.
        let _thread = thread
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let result = match runtime {
                    Ok(runtime) => runtime.block_on(run(settings, started, stopped)),
                    Err(error) => Err(format!("no runtime: {error}")),
                };
                // An error: nobody waits for it any more.
                let _ = end.send(result);
            })
            .map_err(|error| failed(format!("no thread: {error}")))?;
        match start.await {
            Ok(address) => Ok(Self { address, stop, ended }),
            Err(_) => Err(failed(match (&mut ended).await {
                Ok(Err(problem)) => problem,
                Ok(Ok(())) => "it stopped at once".into(),
                Err(_) => "it panicked".into(),
            })),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients on this machine reach it.
    pub fn url(&self) -> BrokerUrl {
        BrokerUrl::tcp(self.address)
    }

    /// Closes all connections and returns when the port is free again.
    ///
    /// # Errors
    /// If the broker had failed before.
    pub async fn shutdown(self) -> Result<(), LinkError> {
        drop(self.stop);
        let failed = |problem| LinkError::Broker { address: self.address, problem };
        self.ended.await.map_err(|_| failed("it panicked".into()))?.map_err(failed)
    }
}

fn settings(config: &BrokerConfig) -> mqtt5::broker::BrokerConfig {
    let storage = StorageConfig::new()
        .with_persistence(!config.session_expiry.is_zero())
        .with_backend(StorageBackendType::Memory)
        .with_max_queued_messages_per_client(config.max_queued_messages)
        .with_max_queued_bytes_per_client(config.max_queued_bytes);
    let mut settings = mqtt5::broker::BrokerConfig::new()
        .with_bind_address(config.bind)
        .with_max_packet_size(config.max_packet)
        .with_max_clients(config.max_clients)
        .with_max_retained_messages(config.max_retained)
        .with_max_retained_message_size(config.max_packet)
        .with_max_subscriptions_per_client(SUBSCRIPTIONS_PER_CLIENT)
        .with_client_channel_capacity(LANE)
        .with_session_expiry(config.session_expiry)
        .with_maximum_qos(1)
        .with_sys_topics_enabled(false)
        .with_storage(storage);
    settings.auth_config.rate_limit.enabled = false;
    settings
}

/// Runs a broker until `stop` is dropped, having told where it listens.
async fn run(
    settings: mqtt5::broker::BrokerConfig,
    started: oneshot::Sender<SocketAddr>,
    stop: oneshot::Receiver<()>,
) -> Result<(), String> {
    let mut broker = MqttBroker::with_config(settings).await.map_err(|error| error.to_string())?;
    let address = broker.local_addr().ok_or("it reports no address")?;
    let handle = broker.shutdown_handle();
    let mut ready = broker.ready_receiver();
    let until_stopped = async {
        if ready.wait_for(|ready| *ready).await.is_ok() && started.send(address).is_ok() {
            // An error, as that is how it is told.
            let _ = stop.await;
        }
        handle.shutdown();
        tokio::time::sleep(LEAVE).await;
    };
    tokio::select! {
        ran = broker.run() => ran.map_err(|error| error.to_string()),
        () = until_stopped => Ok(()),
    }
}
