//! Batteries and mains.

use std::path::Path;

use serde::Serialize;

use super::files;

/// What a board is fed from, as far as it tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Supply {
    /// Whether power comes from outside.
    pub mains: Option<bool>,
    /// Charge of its batteries, percent; of several the mean.
    pub battery: Option<f64>,
}

/// `/sys/class/power_supply/*`: `type`, `online`, `capacity` in percent, `status`. Batteries of things that are plugged
/// in, such as a mouse, have the scope `Device` and do not count.
pub(super) fn read(root: &Path) -> Supply {
    let (mut online, mut charges, mut draining) = (None, Vec::new(), None);
    for supply in files::entries(&root.join("sys/class/power_supply"), "") {
        let field = |name: &str| files::text(&supply.join(name));
        if field("scope").as_deref() == Some("Device") {
            continue;
        }
        match field("type").as_deref() {
            Some("Battery") if field("present").as_deref() != Some("0") => {
                charges.extend(
                    field("capacity").and_then(|c| c.parse::<f64>().ok()).filter(|c| (0.0..=100.0).contains(c)),
                );
                match field("status").as_deref() {
                    Some("Discharging") => draining = Some(true),
                    Some("Charging" | "Full" | "Not charging") => draining = draining.or(Some(false)),
                    _ => {}
                }
            }
            Some("Mains" | "USB" | "Wireless") => {
                let fed = match field("online").as_deref() {
                    Some("0") => false,
                    Some("1" | "2") => true,
                    _ => continue,
                };
                online = Some(online.unwrap_or(false) || fed);
            }
            _ => {}
        }
    }
    let battery = (!charges.is_empty()).then(|| charges.iter().sum::<f64>() / charges.len() as f64);
    // A board without a battery has power from outside as long as it runs: ports that could feed it say nothing then.
    let mains = match (battery, draining) {
        (None, None) => None,
        (_, Some(true)) => Some(false),
        (_, draining) => online.or(draining.map(|draining| !draining)),
    };
    Supply { mains, battery }
}
