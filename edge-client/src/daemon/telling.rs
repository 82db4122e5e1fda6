//! Who is told what: people all, save for floods that others could cause; the service manager what the device does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fedtt_wire::{DeviceName, PublicKey};

use super::now;
use super::service::Service;
use crate::damper::Damper;
use crate::round::{Notice, What};

/// Something a device tells people.
#[derive(Clone, Debug)]
pub enum Told {
    /// What happened in the protocol.
    Notice(Notice),
    /// The broker is not reached.
    Disconnected {
        /// Why.
        reason: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// The host was not known until now; it is from now on.
    HostFound {
        /// What it signs with.
        key: PublicKey,
    },
    /// What was received is not signed by the host, and was dropped.
    Forged {
        /// Where.
        topic: String,
        /// Why.
        reason: String,
    },
    /// What was received is no message.
    Unreadable {
        /// Where.
        topic: String,
        /// Why.
        reason: String,
    },
    /// The device takes part in nothing as things are, and looks again.
    Unready {
        /// Why.
        reason: String,
    },
    /// It can take part again, or with other examples or bundles than before.
    Ready {
        /// Examples it has.
        examples: u64,
        /// Bundles it has.
        bundles: usize,
    },
    /// Training cannot be made to yield to the rest of the device.
    Priority(String),
    /// `fedtt-edge doctor` cannot ask this device.
    NoControl(String),
    /// The host is asked to take the device in.
    Enrolling {
        /// The name it is to have.
        name: DeviceName,
    },
    /// It has: the device has a certificate.
    Enrolled {
        /// Its name.
        name: DeviceName,
        /// The certificate's end, in Unix seconds.
        expires: u64,
    },
    /// The host does not take the device in, or somebody says so in its place; it is asked again.
    NotEnrolled {
        /// Why.
        reason: String,
    },
    /// The device has a new certificate.
    Renewed {
        /// Its end, in Unix seconds.
        expires: u64,
    },
    /// It has none; it is asked for again.
    NotRenewed {
        /// Why.
        reason: String,
        /// The end of the one it has, in Unix seconds.
        expires: u64,
    },
}

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
