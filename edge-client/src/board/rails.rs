//! Power rails, as the INA3221 monitors of Jetson boards measure them.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::files;

/// A rail at one time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rail {
    /// Its label, such as `VDD_IN`.
    pub name: String,
    /// Its power.
    pub watts: f64,
}

/// Where a board's rails are read; found once, read often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rails(Vec<Source>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    name: String,
    reading: Reading,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reading {
    /// Millivolts and milliamperes.
    Product(PathBuf, PathBuf),
    /// Milliwatts.
    Power(PathBuf),
}

/// Rails that feed the whole module, best first: Orin NX and Nano, Xavier NX, TX2; Nano; Thor.
const TOTALS: [&str; 3] = ["VDD_IN", "POM_5V_IN", "VIN"];

/// Rails that together feed the whole module, where no single one does: AGX Orin, AGX Xavier.
const PARALLEL: [&[&str]; 2] =
    [&["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"], &["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"]];

/// No board takes more, milliwatts; the registers of an absent chip read as all ones.
const MOST: i64 = 1_000_000;

impl Rails {
    /// The rails below `root`: `/sys/class/hwmon/hwmon*` of the kernel's driver (JetPack 5 and later) and
    /// `/sys/bus/i2c/drivers/ina3221x` of NVIDIA's own (JetPack 4).
    pub(super) fn find(root: &Path) -> Self {
        let mut found = Vec::new();
        for monitor in files::entries(&root.join("sys/class/hwmon"), "hwmon") {
            if files::text(&monitor.join("name")).is_some_and(|name| name.starts_with("ina3221")) {
                found.extend((1..=3).filter_map(|channel| by_kernel(&monitor, channel)));
            }
        }
        for driver in ["ina3221x", "ina3221"] {
            for chip in files::entries(&root.join("sys/bus/i2c/drivers").join(driver), "") {
                for device in files::entries(&chip, "iio:device") {
                    found.extend((0..=2).filter_map(|channel| by_nvidia(&device, channel)));
                }
            }
        }
        Rails(found)
    }

    /// Their power now; those that cannot be read are absent.
    pub fn read(&self) -> Vec<Rail> {
        let read = |source: &Source| Some(Rail { name: source.name.clone(), watts: source.watts()? });
        self.0.iter().filter_map(read).collect()
    }

    /// What the whole board takes now, in watts, if its rails tell that.
    pub fn watts(&self) -> Option<f64> {
        let total = self.total()?;
        total.iter().map(|source| source.watts()).sum()
    }

    /// Whether the rails tell what the whole board takes.
    pub fn measure_all(&self) -> bool {
        self.total().is_some()
    }

    /// The labels of all rails.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|source| source.name.as_str()).collect()
    }

    /// The rails whose sum is the whole board's power.
    fn total(&self) -> Option<Vec<&Source>> {
        let named = |name: &str| self.0.iter().find(|source| source.name == name);
        if let Some(total) = TOTALS.iter().find_map(|name| named(name)) {
            return Some(vec![total]);
        }
        PARALLEL.iter().find_map(|names| names.iter().map(|name| named(name)).collect())
    }
}

impl Source {
    fn watts(&self) -> Option<f64> {
        let milliwatts = match &self.reading {
            Reading::Power(power) => files::number(power)?,
            Reading::Product(volts, amperes) => {
                let (volts, amperes) = (files::number(volts)?, files::number(amperes)?);
                // A voltage of 0xffff stands for a chip that does not answer.
                if !(0..0xffff).contains(&volts) || !(0..0xffff).contains(&amperes) {
                    return None;
                }
                volts * amperes / 1000
            }
        };
        (0..=MOST).contains(&milliwatts).then_some(milliwatts as f64 / 1000.0)
    }
}

/// `in1_label`, `in1_input` in millivolts, `curr1_input` in milliamperes.
fn by_kernel(monitor: &Path, channel: usize) -> Option<Source> {
    let name = files::text(&monitor.join(format!("in{channel}_label")))?;
    let reading =
        Reading::Product(monitor.join(format!("in{channel}_input")), monitor.join(format!("curr{channel}_input")));
    connected(name, reading)
}

/// `rail_name_0`, `in_power0_input` in milliwatts.
fn by_nvidia(device: &Path, channel: usize) -> Option<Source> {
    let name = files::text(&device.join(format!("rail_name_{channel}")))?;
    connected(name, Reading::Power(device.join(format!("in_power{channel}_input"))))
}

/// Channels that lead nowhere are labelled `NC`.
fn connected(name: String, reading: Reading) -> Option<Source> {
    (name != "NC").then_some(Source { name, reading })
}
