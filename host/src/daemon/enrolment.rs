//! Devices that ask for certificates, answered on a task of their own, one after the other: what is given is on disk before
//! it is sent, which takes its time.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fedtt_link::{Link, Publication};
use fedtt_wire::RequestId;
use tokio::sync::mpsc;

use super::tell::{Teller, Told};
use crate::fleet::{Enrolled, FleetError, Registrar};

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
                    wrong(&teller, &error);
                    continue;
                }
            };
            let Some(reply) = reply else { continue };
            tell(&teller, &reply.what);
            let publication = Publication { topic: reply.topic, payload: reply.payload.into(), retain: false };
            if let Err(error) = link.publish(publication).await {
                teller.warn("enrolment", error.to_string());
            }
        }
    });
    asks
}

/// What became of a request. Whoever has a seed's password asks as often as they like, under any name.
fn tell(teller: &Teller, what: &Enrolled) {
    match what {
        Enrolled::Refused(device, reason) => {
            teller.warn_of("not enrolled", device.as_str(), format!("not enrolled: {reason}"));
        }
        Enrolled::Again(_) => teller.say_of("enrolled again", Told::Enrolled(what.clone())),
        Enrolled::In(_) | Enrolled::Renewed(_) => teller.say(Told::Enrolled(what.clone())),
    }
}

/// Why there is no answer.
fn wrong(teller: &Teller, error: &FleetError) {
    match error {
        FleetError::Identity(_) => teller.warn_of("no request", "enrolment", error.to_string()),
        _ => teller.warn("enrolment", error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use fedtt_identity::IdentityError;
    use fedtt_wire::DeviceName;

    use super::*;

    #[test]
    fn who_floods_the_host_with_requests_does_not_fill_its_log() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let said = told.clone();
        let teller = Teller::new(Arc::new(move |told| said.lock().unwrap().push(told)));
        let name = |n: u32| DeviceName::new(format!("made-up-{n}")).unwrap();
        for n in 0..1000 {
            tell(&teller, &Enrolled::Refused(name(n), format!("`made-up-{n}` is another device's name")));
            tell(&teller, &Enrolled::Again(name(n)));
            let problem = format!("reason {n}");
            wrong(&teller, &IdentityError::Make { what: "nothing", problem }.into());
        }
        let count = told.lock().unwrap().len();
        // A minute may end meanwhile.
        assert!((15..=30).contains(&count), "{count}");
        assert_eq!(teller.faults().1, 2000, "counted all the same");
        // What the host has given is told each time.
        (0..20).for_each(|n| tell(&teller, &Enrolled::In(name(n))));
        assert_eq!(told.lock().unwrap().len(), count + 20);
    }
}
