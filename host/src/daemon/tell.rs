//! What the host tells people as it goes, and the last errors, kept for the live page.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fedtt_edge::damper::Damper;

use crate::fleet::Enrolled;
use fedtt_wire::PublicKey;

use crate::record::Status;
use crate::run::{RunEvent, What};
use crate::web::snapshot::Fault;

/// Errors kept.
const KEPT: usize = 50;

/// Warnings of devices that are told in a minute, of all together.
const OF_DEVICES: u32 = 60;

/// Something the host tells people.
#[derive(Clone, Debug)]
pub enum Told {
    /// It is up.
    Ready {
        /// The broker's address, as devices on this machine reach it.
        broker: String,
        /// Whether the broker runs within the host.
        embedded: bool,
        /// Where the live page is.
        web: Option<SocketAddr>,
        /// Where bundles alone are served.
        bundles: Option<SocketAddr>,
        /// The control socket.
        control: PathBuf,
        /// What it signs with.
        key: PublicKey,
    },
    /// The broker is reached.
    Connected,
    /// The broker is not reached.
    Disconnected {
        /// Why.
        reason: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// Something happened in a run.
    Event(RunEvent),
    /// A device got a certificate.
    Enrolled(Enrolled),
    /// A certificate of the fleet's own was renewed.
    Renewed {
        /// The host's, or the broker's.
        whose: &'static str,
        /// Its end, in Unix seconds.
        expires: u64,
    },
    /// Something is wrong that stops nothing.
    Warning {
        /// Where: a run, a part of the host.
        source: String,
        /// What.
        message: String,
    },
}

/// Where what is told goes to.
pub type Tell = Arc<dyn Fn(Told) + Send + Sync>;

#[derive(Default)]
struct Faults {
    last: VecDeque<Fault>,
    total: u64,
}

/// Tells people, and keeps the last errors.
#[derive(Clone)]
pub(crate) struct Teller {
    tell: Tell,
    faults: Arc<Mutex<Faults>>,
    damper: Arc<Mutex<Damper>>,
    devices: Arc<Mutex<(Damper, Damper)>>,
}

impl Teller {
    pub(crate) fn new(tell: Tell) -> Self {
        let devices = (Damper::default(), Damper::new(OF_DEVICES, 60_000));
        Teller { tell, faults: Arc::default(), damper: Arc::default(), devices: Arc::new(Mutex::new(devices)) }
    }

    pub(crate) fn say(&self, told: Told) {
        (self.tell)(told);
    }

    fn keep(&self, fault: Fault) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.total += 1;
        faults.last.push_front(fault);
        faults.last.truncate(KEPT);
    }

    /// Something is wrong that stops nothing.
    pub(crate) fn warn(&self, source: &str, message: String) {
        self.warn_of(&format!("{source}: {message}"), source, message);
    }

    /// As [`Teller::warn`], where names and reasons can be made up: a few of a kind are told in a minute, whomever they name.
    pub(crate) fn warn_of(&self, kind: &str, source: &str, message: String) {
        self.tell_warning(source, self.damp(kind, &message));
    }

    /// Something is wrong with a device, or said in its name. Each thing is told a few times a minute, and only so many of all: who
    /// makes up names neither fills the log nor keeps what the host says of itself out of it.
    pub(crate) fn warn_of_device(&self, device: &str, message: String) {
        let now = super::now();
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let (each, all) = &mut *devices;
        let told = each.damp(&format!("{device}: {message}"), &message, now);
        let told = told.and_then(|message| all.damp("", &message, now));
        drop(devices);
        self.tell_warning(device, told);
    }

    fn tell_warning(&self, source: &str, message: Option<String>) {
        let Some(message) = message else {
            self.faults.lock().unwrap_or_else(PoisonError::into_inner).total += 1;
            return;
        };
        self.keep(Fault { time: super::now(), source: source.to_string(), message: message.clone() });
        self.say(Told::Warning { source: source.to_string(), message });
    }

    /// As [`Teller::say`], a few of a kind in a minute.
    pub(crate) fn say_of(&self, kind: &str, told: Told) {
        if self.damp(kind, "").is_some() {
            self.say(told);
        }
    }

    fn damp(&self, kind: &str, message: &str) -> Option<String> {
        let mut damper = self.damper.lock().unwrap_or_else(PoisonError::into_inner);
        damper.damp(kind, message, super::now())
    }

    pub(crate) fn disconnected(&self, reason: String, retry_in: Duration) {
        self.keep(Fault { time: super::now(), source: "broker".into(), message: reason.clone() });
        self.say(Told::Disconnected { reason, retry_in });
    }

    pub(crate) fn event(&self, event: &RunEvent) {
        let fault = match &event.what {
            What::Refused { device, kind, reason } if kind != "late" && kind != "duplicate" => {
                Some((device.as_str(), format!("{kind}: {reason}")))
            }
            What::Declined { device, reason } => Some((device.as_str(), format!("declined {}: {reason}", event.run))),
            What::RoundFailed { reason } => Some((event.run.as_str(), format!("round {}: {reason}", event.round + 1))),
            What::Status { status: Status::Paused, reason: Some(reason) } => {
                Some((event.run.as_str(), format!("paused: {reason}")))
            }
            _ => None,
        };
        if let Some((source, message)) = fault {
            self.keep(Fault { time: event.time, source: source.to_string(), message });
        }
        self.say(Told::Event(event.clone()));
    }

    /// Forgets the last errors of a run that was removed.
    pub(crate) fn forget(&self, run: &str) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.last.retain(|fault| fault.source != run);
    }

    /// The last errors, the newest first, and how many there were in all.
    pub(crate) fn faults(&self) -> (Vec<Fault>, u64) {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        (faults.last.iter().cloned().collect(), faults.total)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_neither_fill_the_log_nor_keep_the_hosts_own_words_out_of_it() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let said = told.clone();
        let teller = Teller::new(Arc::new(move |told| said.lock().unwrap().push(told)));
        (0..5000).for_each(|n| teller.warn_of_device(&format!("made-up-{n}"), format!("it has reason {n}")));
        let count = told.lock().unwrap().len();
        // A minute may end meanwhile.
        assert!((60..=120).contains(&count), "{count}");
        assert_eq!(teller.faults().1, 5000, "counted all the same");
        (0..3).for_each(|n| teller.warn("artefacts", format!("disk {n} is full")));
        assert_eq!(told.lock().unwrap().len(), count + 3);
    }
}
