//! What is heard goes into the participant one by one, and its effects are carried out.

use std::time::Duration;

use fedtt_link::{Delivery, Inbox};
use fedtt_wire::Message;
use fedtt_wire::message::Presence;
use tokio::sync::mpsc;

use super::carry::Hands;
use super::control::Control;
use super::readiness::{Ready, Unready};
use super::trainer::Order;
use super::trust::Opened;
use super::{DaemonError, Ended, Told, now};
use crate::round::{Event, Participant, receive};

/// Longest time without looking at the clock.
const TICK: Duration = Duration::from_secs(30);

/// What a device hears: of the broker, of its training, and of what is on the board.
pub(super) struct Heard {
    pub(super) inbox: Inbox,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) looks: mpsc::UnboundedReceiver<Result<Ready, Unready>>,
}

/// Until the device is to stop, or is mended.
pub(super) async fn serve(
    participant: &mut Participant,
    heard: Heard,
    hands: &mut Hands,
) -> Result<Ended, DaemonError> {
    let Heard { mut inbox, mut events, mut looks } = heard;
    loop {
        hands.life.events_busy(false);
        let wait = participant.due().map_or(TICK, |due| Duration::from_millis(due.saturating_sub(now())).min(TICK));
        let event = tokio::select! {
            () = hands.stopped() => break,
            delivery = inbox.recv() => match delivery {
                Some(delivery) => hands.event(participant, delivery).await?,
                None => break,
            },
            event = events.recv() => match event {
                Some(event) => Some(event),
                None => return Err(DaemonError::Trainer("has ended".into())),
            },
            Some(looked) = looks.recv() => match looked {
                Ok(ready) if hands.standing.mending => {
                    hands.tell_ready(&ready.presence);
                    return Ok(Ended::Mended(Box::new(ready)));
                }
                looked => hands.looked(looked)?,
            },
            () = tokio::time::sleep(wait) => Some(Event::Tick),
        };
        hands.life.events_busy(true);
        if let Some(event) = event {
            let is_up = matches!(event, Event::Connected | Event::Disconnected);
            let effects = participant.handle(event, now());
            hands.carry_out(effects).await?;
            if is_up {
                hands.service.up();
            }
        }
    }
    Ok(Ended::Stopped)
}

impl Hands {
    fn tell_ready(&self, presence: &Presence) {
        (self.tell)(Told::Ready { examples: presence.examples, bundles: presence.bundles.len() });
    }

    /// What was found on the board, as an event of the participant's.
    fn looked(&mut self, looked: Result<Ready, Unready>) -> Result<Option<Event>, DaemonError> {
        let presence = match looked {
            Ok(Ready { sources, presence }) => {
                self.trainer.order(Order::Work(sources))?;
                self.tell_ready(&presence);
                self.standing.problem = None;
                presence
            }
            Err(problem) => {
                let reason = problem.to_string();
                if self.standing.problem.as_ref() == Some(&reason) {
                    return Ok(None);
                }
                (self.tell)(Told::Unready { reason: reason.clone() });
                self.standing.problem = Some(reason.clone());
                Presence { problem: Some(reason), ..self.standing.introduction.clone() }
            }
        };
        self.control.iter().for_each(|control| control.problem(presence.problem.as_deref()));
        Ok(Some(Event::Presence(Box::new(presence))))
    }

    /// A delivery as an event of the participant's.
    async fn event(&mut self, participant: &Participant, delivery: Delivery) -> Result<Option<Event>, DaemonError> {
        let (topic, payload) = match delivery {
            Delivery::Connected { .. } => {
                self.control.iter().for_each(Control::connected);
                return Ok(Some(Event::Connected));
            }
            Delivery::Disconnected { reason, retry_in } => {
                self.control.iter().for_each(|control| control.disconnected(&reason));
                (self.tell)(Told::Disconnected { reason, retry_in });
                return Ok(Some(Event::Disconnected));
            }
            Delivery::Message { topic, payload, .. } => (topic, payload),
        };
        if self.renewing.as_ref().is_some_and(|renewing| renewing.take(&topic, &payload)) {
            return Ok(None);
        }
        let opened = match self.trust.open(&topic, &payload) {
            // A host that cannot be written down is met once that can be done.
            Err(error) if self.standing.mending && error.is_passing() => return Ok(None),
            opened => opened?,
        };
        let frame = match opened {
            Opened::Frame(frame) => frame,
            Opened::Nothing => return Ok(None),
            Opened::Forged(reason) => {
                (self.tell)(Told::Forged { topic, reason });
                return Ok(None);
            }
            Opened::HostFound(key) => {
                (self.tell)(Told::HostFound { key });
                // To a new subscription the broker says again what it keeps.
                for filter in participant.filters() {
                    self.link.subscribe(filter).await?;
                }
                return Ok(None);
            }
        };
        let event = receive(participant.topics(), &topic, frame).unwrap_or_else(|error| {
            (self.tell)(Told::Unreadable { topic, reason: error.to_string() });
            None
        });
        if let Some(Event::Message { message, .. }) = &event
            && let Message::Greeting(greeting) = message.as_ref()
        {
            self.control.iter().for_each(|control| control.greeted(greeting.clone()));
            return Ok(None);
        }
        Ok(event)
    }
}
