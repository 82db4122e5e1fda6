//! What goes out, on a task of its own, so that a broker that is slow or away holds nothing else up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fedtt_link::{Link, LinkError, Publication};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::gate::Sealer;
use crate::run::Broadcast;

/// Bytes that may wait before no more messages are taken in.
const FULL: usize = 64 << 20;

/// Bytes of a publication's packet beside topic and payload, at most.
const HEADER: usize = 9;

/// What waits.
enum Outgoing {
    One(Publication),
    /// Made into messages as the link takes them.
    Many(Broadcast),
}

/// Publications on their way to the link, in their order.
pub(super) struct Outbox {
    queue: mpsc::UnboundedSender<Outgoing>,
    waiting: Arc<AtomicUsize>,
    connected: bool,
}

impl Outgoing {
    fn size(&self) -> usize {
        match self {
            Outgoing::One(publication) => publication.topic.len() + publication.payload.len() + 64,
            Outgoing::Many(broadcast) => broadcast.bytes(),
        }
    }
}

impl Outbox {
    /// An outbox for `link`, to a broker that takes packets of at most `packet` bytes and ends the connection of whoever sends larger
    /// ones; `fail` is told what could not be published. The task ends when the outbox is dropped and
    /// everything is handed over.
    pub(super) fn new(
        link: Link,
        sealer: Sealer,
        packet: usize,
        fail: impl Fn(String) + Send + Sync + 'static,
    ) -> (Self, JoinHandle<()>) {
        let (queue, mut outgoing) = mpsc::unbounded_channel::<Outgoing>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let counter = waiting.clone();
        let publish = async move |publication: Publication| {
            let bytes = publication.topic.len() + publication.payload.len() + HEADER;
            let published = match bytes > packet {
                true => Err(LinkError::TooLarge { topic: publication.topic, bytes, limit: packet }),
                false => link.publish(publication).await,
            };
            if let Err(error) = published {
                fail(error.to_string());
            }
        };
        let task = tokio::spawn(async move {
            while let Some(next) = outgoing.recv().await {
                let bytes = next.size();
                match next {
                    Outgoing::One(publication) => publish(publication).await,
                    Outgoing::Many(broadcast) => {
                        // A chunk of plain values always has a CBOR form.
                        for (topic, frame) in broadcast.messages().flatten() {
                            publish(sealer.seal(&topic, frame, true)).await;
                        }
                    }
                }
                counter.fetch_sub(bytes, Ordering::AcqRel);
            }
        });
        (Outbox { queue, waiting, connected: false }, task)
    }

    /// Whether the broker is reached. While it is not, only what clears a retained message is kept: everything retained is
    /// published again on the next connection, and devices repeat what was not answered.
    pub(super) fn set_connected(&mut self, connected: bool) {
        self.connected = connected;
    }

    pub(super) fn push(&self, publication: Publication) {
        if !self.connected && !publication.payload.is_empty() {
            return;
        }
        self.put(Outgoing::One(publication));
    }

    pub(super) fn push_all(&self, broadcast: Broadcast) {
        if self.connected {
            self.put(Outgoing::Many(broadcast));
        }
    }

    fn put(&self, outgoing: Outgoing) {
        self.waiting.fetch_add(outgoing.size(), Ordering::AcqRel);
        // An error: the task is gone, and with it the link.
        let _ = self.queue.send(outgoing);
    }

    /// Whether more may be taken in.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Acquire) < FULL
    }
}
