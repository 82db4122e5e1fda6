//! Devices that ask for certificates, answered on a task of their own, one after the other: what is given is on disk before
//! it is sent, which takes its time.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fedtt_link::{Link, Publication};
use fedtt_wire::RequestId;
use tokio::sync::mpsc;

use super::tell::{Teller, Told};
use crate::fleet::{Enrolled, Registrar};

/// Requests that wait; devices repeat those beyond.
const WAITING: usize = 1024;

/// Where requests are put.
pub(super) type Asks = mpsc::Sender<(RequestId, Bytes)>;

/// Answers requests until their sender is gone.
pub(super) fn start(registrar: Arc<Mutex<Registrar>>, link: Link, teller: Teller) -> Asks {
    let (asks, mut asked) = mpsc::channel::<(RequestId, Bytes)>(WAITING);
    tokio::spawn(async move {
        while let Some((id, payload)) = asked.recv().await {
            let registrar = registrar.clone();
            let answered = tokio::task::spawn_blocking(move || {
                let mut registrar = registrar.lock().unwrap_or_else(PoisonError::into_inner);
                (registrar.answer(&id, &payload), registrar.take_problem())
            });
            let Ok((answer, problem)) = answered.await else { return };
            if let Some(problem) = problem {
                teller.warn("broker", problem);
            }
            let reply = match answer {
                Ok(reply) => reply,
                Err(error) => {
                    teller.warn("enrolment", error.to_string());
                    continue;
                }
            };
            match &reply.what {
                Enrolled::Refused(device, reason) => teller.warn(device.as_str(), format!("not enrolled: {reason}")),
                what => teller.say(Told::Enrolled(what.clone())),
            }
            let publication = Publication { topic: reply.topic, payload: reply.payload.into(), retain: false };
            if let Err(error) = link.publish(publication).await {
                teller.warn("enrolment", error.to_string());
            }
        }
    });
    asks
}
