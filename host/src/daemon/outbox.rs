//! What goes out, on a task of its own, so that a broker that is slow or away holds nothing else up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fedtt_link::{Link, LinkError, Publication};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Bytes that may wait before no more messages are taken in.
const FULL: usize = 64 << 20;

/// Publications on their way to the link, in their order.
pub(super) struct Outbox {
    queue: mpsc::UnboundedSender<Publication>,
    waiting: Arc<AtomicUsize>,
    connected: bool,
}

fn size(publication: &Publication) -> usize {
    publication.topic.len() + publication.payload.len() + 64
}

impl Outbox {
    /// An outbox for `link`; `fail` is told what could not be published. The task ends when the outbox is dropped and
    /// everything is handed over.
    pub(super) fn new(link: Link, fail: impl Fn(LinkError) + Send + 'static) -> (Self, JoinHandle<()>) {
        let (queue, mut publications) = mpsc::unbounded_channel::<Publication>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let counter = waiting.clone();
        let task = tokio::spawn(async move {
            while let Some(publication) = publications.recv().await {
                let bytes = size(&publication);
                if let Err(error) = link.publish(publication).await {
                    fail(error);
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
        self.waiting.fetch_add(size(&publication), Ordering::AcqRel);
        // An error: the task is gone, and with it the link.
        let _ = self.queue.send(publication);
    }

    /// Whether more may be taken in.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Acquire) < FULL
    }
}
