//! What the board tells of itself, and whether its owner's limits let it train now.

use super::{Check, size};
use crate::board::{Board, Gate, Readings};
use crate::daemon::Settings;

pub(super) fn check(settings: &Settings, board: &Board) -> Vec<Check> {
    let readings = board.read();
    let mut checks = vec![Check::ok("board", told(&readings))];
    let rails = board.rails();
    checks.push(match (rails.watts(), rails.names()) {
        (Some(watts), names) => Check::ok("energy", format!("{watts:.1} W now, by {}", names.join(", "))),
        (None, names) if names.is_empty() => Check::ok("energy", "not measured: the board has no power monitor"),
        (None, names) => {
            Check::ok("energy", format!("not measured: none of {} is the whole board's", names.join(", ")))
        }
    });
    checks.push(match Gate::new(settings.limits.clone()).objection(&readings, 0) {
        None => Check::ok("limits", "training may begin now"),
        Some(objection) => {
            let advice = "rounds wait until this has eased; see [limits] in the settings";
            Check::warn("limits", objection.to_string(), advice)
        }
    });
    checks
}

/// All readings in a line.
fn told(readings: &Readings) -> String {
    let mut parts: Vec<String> = readings.model.iter().cloned().collect();
    parts.extend(readings.memory.map(|memory| format!("{} of memory", size(memory.total))));
    parts.extend(readings.hottest().map(|zone| format!("{} {:.0} °C", zone.name, zone.celsius)));
    parts.extend(readings.mode.as_ref().map(|mode| format!("power mode {mode}")));
    parts.extend(readings.supply.battery.map(|charge| format!("battery {charge:.0} %")));
    parts.extend(readings.supply.mains.map(|mains| if mains { "mains" } else { "no mains" }.to_string()));
    parts.extend(readings.load.map(|load| format!("load {:.2} on {} processors", load.minute, load.processors)));
    if parts.is_empty() { "it tells nothing of itself".into() } else { parts.join(", ") }
}
