//! Thermal zones.

use std::path::Path;

use serde::Serialize;

use super::files;

/// A thermal zone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Zone {
    /// Its type, such as `CPU-therm` or `tj-thermal`.
    pub name: String,
    /// Its temperature.
    pub celsius: f64,
}

/// Zones that hold a constant in place of a temperature: the power management chip of Jetson boards up to JetPack 4.
const CONSTANT: [&str; 2] = ["PMIC-Die", "PMIC"];

/// Temperatures a zone can have and still be read, in thousandths of a degree. Zones of parts that are switched off read
/// as -256 000 or not at all.
const SENSIBLE: std::ops::RangeInclusive<i64> = -60_000..=150_000;

/// `/sys/class/thermal/thermal_zone*/{type,temp}`, the latter in thousandths of a degree Celsius.
pub(super) fn read(root: &Path) -> Vec<Zone> {
    let zones = files::entries(&root.join("sys/class/thermal"), "thermal_zone").into_iter();
    zones
        .filter_map(|zone| {
            let name = files::text(&zone.join("type")).unwrap_or_else(|| files::name(&zone).to_string());
            let temperature = files::number(&zone.join("temp")).filter(|t| SENSIBLE.contains(t))?;
            (!CONSTANT.contains(&name.as_str())).then(|| Zone { name, celsius: temperature as f64 / 1000.0 })
        })
        .collect()
}
