//! Looking after the certificates of the broker and of the host, as long as it serves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fedtt_link::Link;

use super::tell::{Teller, Told};
use crate::fleet::{self, Party, Registrar, Upkeep, reload};

/// How long a connection that is made anew is waited for.
const RECONNECT: Duration = Duration::from_secs(30);
/// What warnings are from.
const SOURCE: &str = "certificates";

/// Looks once, renews what is due, and has the broker know.
pub(super) async fn look(registrar: &Arc<Mutex<Registrar>>, teller: &Teller) -> Option<Upkeep> {
    let kept = registrar.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let upkeep = kept.lock().unwrap_or_else(PoisonError::into_inner).keep_up(fleet::now());
        let told = upkeep.renewed.iter().any(|(party, _)| *party == Party::Broker) && !upkeep.reload.is_empty();
        let outcome = if told { reload(&upkeep.reload) } else { Ok(()) };
        (upkeep, outcome)
    });
    // An error: the host is about to end.
    let (upkeep, outcome) = looked.await.ok()?;
    for (party, expires) in &upkeep.renewed {
        teller.say(Told::Renewed { whose: party.whose(), expires: *expires });
    }
    upkeep.problems.iter().for_each(|problem| teller.warn(SOURCE, problem.clone()));
    if let Err(error) = outcome {
        teller.warn(
            SOURCE,
            format!("the broker was not told of its new certificate: `{}` {error}", upkeep.reload.join(" ")),
        );
    }
    Some(upkeep)
}

/// Looks again and again. A connection begun before a renewal is made anew: that the host comes with its new certificate, and
/// sees which one the broker shows.
pub(super) async fn run(registrar: Arc<Mutex<Registrar>>, link: Link, teller: Teller, mut last: Upkeep) {
    let mut shown = link.peer_certificate();
    let mut connects = true;
    loop {
        if connects {
            // An error: the broker is away, and the connection to come is made with what is there then.
            let _ = tokio::time::timeout(RECONNECT, shown.changed()).await;
        }
        let objection = shown.borrow().as_deref().and_then(|shown| last.objection(shown, fleet::now()));
        objection.into_iter().for_each(|objection| teller.warn(SOURCE, objection));
        tokio::time::sleep(last.again).await;
        let Some(upkeep) = look(&registrar, &teller).await else { return };
        connects = !upkeep.renewed.is_empty();
        if connects {
            shown.mark_unchanged();
            link.reconnect();
        }
        last = upkeep;
    }
}
