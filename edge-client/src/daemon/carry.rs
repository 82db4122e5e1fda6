//! Effects carried out.

use std::sync::Arc;

use fedtt_link::{Link, LinkError, Publication};
use fedtt_wire::message::Presence;
use fedtt_wire::{Message, Topic};
use tokio::sync::watch;

use super::control::Control;
use super::fetching::Fetching;
use super::life::Life;
use super::renewing::Renewing;
use super::service::Service;
use super::store::StateDir;
use super::telling::Tell;
use super::trainer::{Order, Trainer};
use super::trust::Trust;
use super::{DaemonError, StoreError, Told};
use crate::round::Effect;

/// What a participant acts with.
pub(super) struct Hands {
    pub(super) link: Link,
    /// None of a device that is to be mended and has no state to write to.
    pub(super) store: Option<StateDir>,
    pub(super) trust: Trust,
    pub(super) renewing: Option<Renewing>,
    pub(super) control: Option<Control>,
    pub(super) trainer: Trainer,
    pub(super) fetching: Fetching,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) tell: Tell,
    pub(super) service: Arc<Service>,
    pub(super) life: Life,
    pub(super) standing: Standing,
}

/// How the device stands.
pub(super) struct Standing {
    /// What it says of itself when it cannot take part.
    pub(super) introduction: Presence,
    /// Why it cannot now, if so.
    pub(super) problem: Option<String>,
    /// Whether it could not from the beginning: then it trains nothing, and what cannot be written is done without.
    pub(super) mending: bool,
}

impl Hands {
    /// Ready when the device is to stop.
    pub(super) async fn stopped(&self) {
        super::stopped(self.stopping.clone()).await;
    }

    /// Carries effects out in their order.
    ///
    /// # Errors
    /// When what must outlive the process cannot be written: nothing that relies on it is done then.
    pub(super) async fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), DaemonError> {
        for effect in effects {
            match effect {
                Effect::Publish { topic, message, retain } => {
                    let publication = self.trust.seal(&topic, *message, retain)?;
                    self.publish(publication).await?;
                }
                Effect::Subscribe(filter) => self.link.subscribe(filter).await?,
                Effect::Unsubscribe(filter) => self.link.unsubscribe(filter).await?,
                Effect::Prepare(plan) => self.trainer.order(Order::Prepare(plan))?,
                Effect::Look(plan) => self.trainer.order(Order::Look(plan))?,
                Effect::Train(job) => self.trainer.order(Order::Train(job))?,
                Effect::Fetch(bundle) => self.fetching.order(bundle),
                Effect::Adopt(adoption) => self.trainer.order(Order::Adopt(adoption))?,
                Effect::Stop(job) => self.trainer.stop(job),
                Effect::Save { run, slot, bytes } => self.on_disk(move |store| store.save(&run, slot, &bytes)).await?,
                Effect::Remember(bytes) => self.on_disk(move |store| store.remember(&bytes)).await?,
                Effect::Forget(run) => {
                    self.trainer.order(Order::Forget(run.clone()))?;
                    self.on_disk(move |store| store.forget(&run)).await?;
                }
                Effect::SetAside { run, slot } => self.on_disk(move |store| store.set_aside(&run, slot)).await?,
                Effect::Tell(notice) => (self.tell)(Told::Notice(notice)),
            }
        }
        Ok(())
    }

    /// Writing waits for the disk, which must not hold the connection up.
    async fn on_disk(
        &self,
        write: impl FnOnce(&StateDir) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), DaemonError> {
        let Some(store) = self.store.clone() else { return Ok(()) };
        match tokio::task::spawn_blocking(move || write(&store)).await {
            // At worst it is said and done once more by the device that is mended.
            Ok(Err(StoreError::Io { .. })) if self.standing.mending => Ok(()),
            Ok(written) => Ok(written?),
            Err(error) => Err(StoreError::Interrupted(error.to_string()).into()),
        }
    }

    /// Queues a publication; waits for room, but not when the device is to stop.
    async fn publish(&mut self, publication: Publication) -> Result<(), DaemonError> {
        let link = self.link.clone();
        // Waiting for a broker that is away is no work.
        self.life.events_busy(false);
        let queued = tokio::select! {
            queued = link.publish(publication) => Some(queued),
            () = self.stopped() => None,
        };
        self.life.events_busy(true);
        match queued {
            Some(queued) => match queued {
                Ok(()) => Ok(()),
                // What is too large for the link is too large for the broker: the host will wait in vain, and say so.
                Err(LinkError::TooLarge { topic, bytes, limit }) => {
                    let reason = format!("{bytes} bytes are more than the {limit} a packet may have");
                    (self.tell)(Told::Unreadable { topic, reason });
                    Ok(())
                }
                Err(error) => Err(error.into()),
            },
            None => Ok(()),
        }
    }

    /// The last word, which the link sends before it takes leave.
    pub(super) async fn publish_last(&mut self, topic: &Topic, message: Message) -> Result<(), DaemonError> {
        let publication = self.trust.seal(topic, message, true)?;
        // With a full queue and no broker there is nobody to tell.
        let patience = std::time::Duration::from_secs(1);
        match tokio::time::timeout(patience, self.link.publish(publication)).await {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}
