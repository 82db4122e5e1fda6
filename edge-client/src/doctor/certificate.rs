//! The certificate the device comes to its broker with.

use std::path::Path;

use fedtt_identity::Inspected;
use fedtt_identity::inspect::date;

use super::Check;
use crate::daemon::{Settings, now};
use crate::identity::enrolled;

/// Seconds in a day.
const DAY: u64 = 86_400;

/// A certificate that the device does not renew itself is to be renewed by people, who need time.
const SOON: u64 = 14 * DAY;

/// Whether the broker's certificate (DER) is about to end.
pub(super) fn of_broker(der: &[u8], now: u64) -> Option<Check> {
    let certificate = Inspected::read_der(der).ok().filter(|shown| shown.not_after.saturating_sub(now) < SOON)?;
    let finding = format!("the broker's ends at {}: then no device can connect", date(certificate.not_after));
    Some(Check::warn("certificate", finding, "the host renews it where it can, and warns where not: see `fedtt serve`"))
}

pub(super) fn check(settings: &Settings) -> Vec<Check> {
    let Some(path) = settings.tls.as_ref().and_then(|tls| tls.cert.as_deref()) else {
        return match settings.broker.is_tls() {
            true => {
                vec![Check::ok("certificate", "none: the broker is reached over TLS, with the device not certified")]
            }
            false if is_loopback(settings.broker.host()) => Vec::new(),
            false => {
                let finding = "none, and the broker is reached in clear text";
                vec![Check::warn("certificate", finding, "use mqtts://, and `fedtt-edge enroll` with the fleet's host")]
            }
        };
    };
    let folder = settings.state.join("identity");
    if !path.starts_with(&folder) {
        return vec![certificate(path, None, now() / 1000, "see [tls] in the settings")];
    }
    let renew_at = enrolled(&folder).ok().flatten().map(|known| known.renew_at());
    vec![certificate(path, renew_at, now() / 1000, "enrol again: `fedtt-edge enroll`")]
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `renew_at` is when the device itself should have renewed it, `another` how to come to another.
pub(super) fn certificate(path: &Path, renew_at: Option<u64>, now: u64, another: &str) -> Check {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Check::fail("certificate", format!("{}: {error}", path.display()), another),
    };
    let certificate = match Inspected::read(&text) {
        Ok(certificate) => certificate,
        Err(error) => return Check::fail("certificate", format!("{}: {error}", path.display()), another),
    };
    if let Err(error) = certificate.check_time(now) {
        let advice = format!("set the clock if it is wrong, else {another}");
        return Check::fail("certificate", error.to_string(), advice);
    }
    let left = certificate.not_after.saturating_sub(now);
    let finding = format!(
        "of {} by {}, until {} ({} days)",
        certificate.name,
        certificate.issuer,
        date(certificate.not_after),
        left / DAY
    );
    match renew_at {
        // A quarter of of the time it has for that.
        Some(at) if now > at && left < (certificate.not_after - at) / 4 * 3 => {
            Check::warn("certificate", finding, "it should have been renewed by now: is the host reached?")
        }
        None if left < SOON => Check::warn("certificate", finding, "renew it where it is from"),
        _ => Check::ok("certificate", finding),
    }
}
