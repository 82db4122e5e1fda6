//! Who is told what: people all, save for floods that others could cause; the service manager what the device does.

use std::sync::{Arc, Mutex, PoisonError};

use super::service::Service;
use super::{Told, now};
use crate::damper::Damper;
use crate::round::{Notice, What};

/// Tells something, from any thread.
pub(super) type Tell = Arc<dyn Fn(Told) + Send + Sync>;

/// `tell`, and the service manager.
pub(super) fn telling(tell: impl Fn(Told) + Send + Sync + 'static, service: Arc<Service>) -> Tell {
    let damper = Mutex::new(Damper::default());
    Arc::new(move |told| {
        service.told(&told);
        let damped = damp(&mut damper.lock().unwrap_or_else(PoisonError::into_inner), told, now());
        damped.into_iter().for_each(&tell);
    })
}

/// What a peer can cause at will passes a few times a minute, with the number of what did not.
fn damp(damper: &mut Damper, told: Told, now: u64) -> Option<Told> {
    match told {
        Told::Forged { topic, reason } => {
            let reason = damper.damp(&format!("forged at {topic}"), &reason, now)?;
            Some(Told::Forged { topic, reason })
        }
        Told::Unreadable { topic, reason } => {
            Some(Told::Unreadable { topic, reason: damper.damp("unreadable", &reason, now)? })
        }
        Told::Notice(Notice { run, what: What::Ignored { reason } }) => {
            Some(Told::Notice(Notice { run, what: What::Ignored { reason: damper.damp("ignored", &reason, now)? } }))
        }
        told => Some(told),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn floods_are_told_a_few_times_and_counted() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let noted = told.clone();
        let tell = telling(move |told| noted.lock().unwrap().push(told), Arc::default());
        for i in 0..1000 {
            tell(Told::Unreadable { topic: format!("t/{i}"), reason: "it is noise".into() });
            tell(Told::Forged { topic: format!("t/{}", i % 2), reason: format!("it is of {i}") });
            tell(Told::Notice(Notice { run: None, what: What::Ignored { reason: "a verdict".into() } }));
        }
        tell(Told::Notice(Notice { run: None, what: What::Connected }));
        let told = std::mem::take(&mut *told.lock().unwrap());
        assert_eq!(told.len(), 21);
        assert!(matches!(&told[20], Told::Notice(Notice { what: What::Connected, .. })));
        let mut damper = Damper::default();
        let unreadable = || Told::Unreadable { topic: "t".into(), reason: "noise".into() };
        let passed = (0..8).filter_map(|_| damp(&mut damper, unreadable(), 1_000)).count();
        assert_eq!(passed, 5);
        let Some(Told::Unreadable { reason, .. }) = damp(&mut damper, unreadable(), 62_000) else { panic!() };
        assert_eq!(reason, "noise (3 more like it were not told)");
    }
}
