//! What a link receives.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

/// Something that happened on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A connection stands.
    Connected {
        /// Whether the broker still has our session of before.
        session_present: bool,
    },
    /// The connection is lost, or could not be made.
    Disconnected {
        /// Why, as far as it is known.
        reason: String,
        /// When it will be tried again.
        retry_in: Duration,
    },
    /// A message of a subscription.
    Message {
        /// Where it was published.
        topic: String,
        /// What was published.
        payload: Bytes,
        /// Whether the broker had kept it from before the subscription.
        retain: bool,
    },
}

/// The receiving end of a link. Dropped, what arrives is discarded.
#[derive(Debug)]
pub struct Inbox {
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    unread: Arc<Unread>,
}

impl Inbox {
    /// The next delivery; none once the link is shut down and everything is read. May be cancelled without loss.
    pub async fn recv(&mut self) -> Option<Delivery> {
        let delivery = self.deliveries.recv().await?;
        self.unread.taken(&delivery);
        Some(delivery)
    }

    /// The next delivery if there is one already.
    pub fn try_recv(&mut self) -> Option<Delivery> {
        let delivery = self.deliveries.try_recv().ok()?;
        self.unread.taken(&delivery);
        Some(delivery)
    }
}

/// Bytes put in and not yet taken out.
#[derive(Debug, Default)]
struct Unread {
    bytes: AtomicUsize,
    limit: usize,
    room: Notify,
}

impl Unread {
    fn taken(&self, delivery: &Delivery) {
        let size = size(delivery);
        let before = self.bytes.fetch_sub(size, Ordering::AcqRel);
        if before >= self.limit && before - size < self.limit {
            self.room.notify_one();
        }
    }
}

/// What a message takes up: its bytes and about what surrounds them.
fn size(delivery: &Delivery) -> usize {
    match delivery {
        Delivery::Message { topic, payload, .. } => 128 + topic.len() + payload.len(),
        Delivery::Connected { .. } | Delivery::Disconnected { .. } => 0,
    }
}

/// The filling end of an inbox.
#[derive(Debug)]
pub(crate) struct Outlet {
    deliveries: mpsc::UnboundedSender<Delivery>,
    unread: Arc<Unread>,
}

impl Outlet {
    pub(crate) fn put(&self, delivery: Delivery) {
        let size = size(&delivery);
        self.unread.bytes.fetch_add(size, Ordering::AcqRel);
        if self.deliveries.send(delivery).is_err() {
            self.unread.bytes.fetch_sub(size, Ordering::AcqRel);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.unread.bytes.load(Ordering::Acquire) >= self.unread.limit && !self.deliveries.is_closed()
    }

    /// Waits until an inbox that was full is not, or is gone.
    pub(crate) async fn room(&self) {
        tokio::select! {
            () = self.unread.room.notified() => {}
            () = self.deliveries.closed() => {}
        }
    }

    /// Waits until the inbox is dropped.
    pub(crate) async fn closed(&self) {
        self.deliveries.closed().await;
    }
}

/// An inbox that counts as full with `limit` bytes unread.
pub(crate) fn inbox(limit: usize) -> (Outlet, Inbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let unread = Arc::new(Unread { limit, ..Unread::default() });
    (Outlet { deliveries: sender, unread: unread.clone() }, Inbox { deliveries: receiver, unread })
}
