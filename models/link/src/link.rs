//! The handle of a link.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use crate::connection::Dialer;
use crate::inbox::{Inbox, inbox};
use crate::session::Request;
use crate::traffic::{Counters, Traffic};
use crate::{LinkConfig, LinkError, Publication, driver, packet};

/// A connection to a broker that keeps itself up. Clones share it. When all of them are dropped without
/// [`shutdown`](Link::shutdown), the link lives on until its inbox is dropped as well; then the connection breaks off, and
/// the broker publishes the will.
#[derive(Debug, Clone)]
pub struct Link {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
}

/// What handles and the driver both look at.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) counters: Arc<Counters>,
    /// Bytes of publications that may still be queued.
    room: Arc<Semaphore>,
    capacity: usize,
    max_packet: usize,
    /// How many wait for acknowledgements, which stand behind what is not read.
    waiting: AtomicUsize,
    /// Told when one begins to wait.
    pub(crate) began_waiting: Notify,
    /// Told when the connection is to be made anew.
    pub(crate) reconnect: Notify,
    /// The certificate the broker showed last.
    pub(crate) peer: watch::Sender<Option<Arc<[u8]>>>,
}

impl Shared {
    pub(crate) fn somebody_waits(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }
}

#[derive(Debug)]
pub(crate) enum Command {
    Ask(Request),
    /// Answered when nothing is left unacknowledged.
    Flush(oneshot::Sender<()>),
    /// Answered when the connection is closed.
    Shutdown(oneshot::Sender<()>),
}

impl Link {
    /// Starts a link on the current tokio runtime; does not wait for the first connection. The runtime must not be kept
    /// from running, by training for one, or keep-alives stop.
    ///
    /// # Errors
    /// If a setting cannot be used, or a TLS file cannot be read. A broker that does not answer is no error: that is
    /// [`Delivery::Disconnected`](crate::Delivery::Disconnected), and is tried again.
    pub async fn connect(config: LinkConfig) -> Result<(Link, Inbox), LinkError> {
        config.check()?;
        let counters = Arc::new(Counters::default());
        let dialer = Dialer::new(&config, counters.clone())?;
        let shared = Arc::new(Shared {
            counters,
            room: Arc::new(Semaphore::new(config.outgoing_bytes)),
            capacity: config.outgoing_bytes,
            max_packet: config.max_packet,
            waiting: AtomicUsize::new(0),
            began_waiting: Notify::new(),
            reconnect: Notify::new(),
            peer: watch::Sender::new(None),
        });
        let (outlet, inbox) = inbox(config.incoming_bytes);
        let (commands, receiver) = mpsc::unbounded_channel();
        tokio::spawn(driver::run(config, dialer, receiver, outlet, shared.clone()));
        Ok((Link { commands, shared }, inbox))
    }

    /// Queues a publication, waiting for room in the queue only: while the broker is away, that is until it is back. Queued,
    /// it is sent and repeated until the broker acknowledges it.
    ///
    /// # Errors
    /// If the topic cannot be published to, the packet would be larger than `max_packet`, or the link is shut down.
    pub async fn publish(&self, publication: Publication) -> Result<(), LinkError> {
        packet::check_topic(&publication.topic)?;
        let bytes = packet::size(&publication);
        if bytes > self.shared.max_packet {
            let limit = self.shared.max_packet;
            return Err(LinkError::TooLarge { topic: publication.topic, bytes, limit });
        }
        // What is larger than the whole queue goes alone.
        let permits = u32::try_from(bytes.min(self.shared.capacity)).unwrap_or(u32::MAX);
        let room = self.shared.room.clone();
        let permit = match room.clone().try_acquire_many_owned(permits) {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::begin(&self.shared);
                tokio::select! {
                    permit = room.acquire_many_owned(permits) => permit.map_err(|_| LinkError::Closed)?,
                    () = self.commands.closed() => return Err(LinkError::Closed),
                }
            }
        };
        self.send(Command::Ask(Request::Publish { publication, _room: Some(permit) }))
    }

    /// Subscribes at QoS 1, on this connection and all later ones. What is published through this link afterwards reaches
    /// the broker after the subscription. A subscription the broker refuses ends the connection with that reason.
    ///
    /// # Errors
    /// If the filter is malformed or the link is shut down.
    pub async fn subscribe(&self, filter: impl Into<String>) -> Result<(), LinkError> {
        let filter = filter.into();
        packet::check_filter(&filter)?;
        self.send(Command::Ask(Request::Subscribe(filter)))
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// If the filter is malformed or the link is shut down.
    pub async fn unsubscribe(&self, filter: impl Into<String>) -> Result<(), LinkError> {
        let filter = filter.into();
        packet::check_filter(&filter)?;
        self.send(Command::Ask(Request::Unsubscribe(filter)))
    }

    /// Waits until the broker has acknowledged everything asked, by any clone.
    ///
    /// # Errors
    /// If the link is shut down before.
    pub async fn flush(&self) -> Result<(), LinkError> {
        let (done, flushed) = oneshot::channel();
        self.send(Command::Flush(done))?;
        let _waiting = Waiting::begin(&self.shared);
        flushed.await.map_err(|_| LinkError::Closed)
    }

    /// Takes leave of the broker and connects anew, with what the TLS files hold by then; while there is no connection, tries
    /// at once. What is not acknowledged is sent again.
    pub fn reconnect(&self) {
        self.shared.reconnect.notify_one();
    }

    /// The certificate, in DER, that the broker showed at the last connection; told anew with each one.
    pub fn peer_certificate(&self) -> watch::Receiver<Option<Arc<[u8]>>> {
        self.shared.peer.subscribe()
    }

    /// What has gone through this link so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.counters.traffic()
    }

    /// Takes leave: waits, at most `shutdown_timeout`, until everything asked is acknowledged, and disconnects so that the
    /// broker does not publish the will. Ends the link for all clones.
    pub async fn shutdown(self) {
        let (done, closed) = oneshot::channel();
        if self.send(Command::Shutdown(done)).is_ok() {
            // An error: the driver is gone already.
            let _ = closed.await;
        }
    }

    fn send(&self, command: Command) -> Result<(), LinkError> {
        self.commands.send(command).map_err(|_| LinkError::Closed)
    }
}

/// One more that waits for acknowledgements, until dropped.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::AcqRel);
        shared.began_waiting.notify_one();
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
