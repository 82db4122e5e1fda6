//! Whether a board may train, now.

use std::fmt;

use super::{Limits, Load, Readings};

/// Why a board does not train now.
#[derive(Clone, Debug, PartialEq)]
pub enum Objection {
    /// Too little memory is left.
    Memory {
        /// Bytes left.
        available: u64,
        /// Bytes that must be.
        wanted: u64,
    },
    /// A zone is too hot.
    Heat {
        /// The zone.
        zone: String,
        /// Its temperature.
        celsius: f64,
        /// What it must cool to.
        below: f64,
    },
    /// The power mode is none to train in.
    Mode {
        /// The mode.
        mode: String,
        /// Those to train in.
        allowed: String,
    },
    /// The battery is too low.
    Battery {
        /// Its charge, percent.
        charge: f64,
        /// The least to train with.
        least: f64,
    },
    /// It runs on its battery.
    NoMains,
    /// Others need the processors.
    Load {
        /// Share they use.
        share: f64,
        /// The largest to train beside.
        most: f64,
    },
}

/// A share that others use must fall this far below the limit before training goes on.
const RELIEF: f64 = 0.1;

/// A battery must be charged this far above the limit, in percent, before training goes on.
const RECHARGE: f64 = 5.0;

/// Decides by [`Limits`], with hysteresis: what stopped training must have eased before it goes on.
#[derive(Clone, Debug)]
pub struct Gate {
    limits: Limits,
    hot: bool,
    low: bool,
    busy: bool,
    load: Option<Load>,
}

impl Gate {
    /// An open gate.
    pub fn new(limits: Limits) -> Self {
        Gate { limits, hot: false, low: false, busy: false, load: None }
    }

    /// The limits it decides by.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Why the board should not train now, if anything. `need` is the memory in bytes that is yet to be taken.
    pub fn objection(&mut self, readings: &Readings, need: u64) -> Option<Objection> {
        let heat = self.heat(readings);
        let battery = self.battery(readings);
        let load = self.load(readings);
        heat.or_else(|| self.mode(readings)).or(battery).or_else(|| self.memory(readings, need)).or(load)
    }

    fn heat(&mut self, readings: &Readings) -> Option<Objection> {
        let zone = readings.hottest();
        let limit = if self.hot { self.limits.resume_temperature } else { self.limits.max_temperature };
        let hot = zone.filter(|zone| zone.celsius > limit);
        self.hot = hot.is_some();
        let zone = hot?;
        let below = self.limits.resume_temperature;
        Some(Objection::Heat { zone: zone.name.clone(), celsius: zone.celsius, below })
    }

    fn mode(&self, readings: &Readings) -> Option<Objection> {
        let mode = readings.mode.as_ref()?;
        let allowed = &self.limits.power_modes;
        let barred = !allowed.is_empty() && !allowed.iter().any(|word| mode.is(word));
        barred.then(|| Objection::Mode { mode: mode.to_string(), allowed: allowed.join(", ") })
    }

    fn battery(&mut self, readings: &Readings) -> Option<Objection> {
        let supply = readings.supply;
        if supply.mains == Some(true) {
            self.low = false;
            return None;
        }
        if self.limits.mains_only && supply.mains == Some(false) {
            return Some(Objection::NoMains);
        }
        let least = self.limits.min_battery;
        let limit = if self.low { (least + RECHARGE).min(100.0) } else { least };
        let low = supply.battery.filter(|&charge| charge < limit);
        self.low = low.is_some();
        low.map(|charge| Objection::Battery { charge, least: limit })
    }

    fn memory(&self, readings: &Readings, need: u64) -> Option<Objection> {
        let available = readings.memory?.available;
        let wanted = self.limits.min_free_memory.saturating_mul(1 << 20).saturating_add(need);
        (available < wanted).then_some(Objection::Memory { available, wanted })
    }

    fn load(&mut self, readings: &Readings) -> Option<Objection> {
        let now = readings.load?;
        let most = self.limits.max_load?;
        let limit = if self.busy { (most - RELIEF).max(0.0) } else { most };
        let Some(before) = self.load else {
            // The first time there is nothing to compare with but what the system says of the last minute.
            self.load = Some(now);
            let share = (now.minute / now.processors as f64).min(1.0);
            self.busy = share > limit;
            return self.busy.then_some(Objection::Load { share, most });
        };
        let Some(share) = now.others_since(&before) else {
            return self.busy.then_some(Objection::Load { share: most, most });
        };
        self.load = Some(now);
        self.busy = share > limit;
        self.busy.then_some(Objection::Load { share, most })
    }
}

impl Objection {
    /// Whether holding still will not make it better: memory that training holds stays held.
    pub fn is_ours(&self) -> bool {
        matches!(self, Objection::Memory { .. })
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: &u64| bytes >> 20;
        match self {
            Objection::Memory { available, wanted } => {
                write!(f, "{} MiB of memory are free, {} are needed", mib(available), wanted.div_ceil(1 << 20))
            }
            Objection::Heat { zone, celsius, below } => {
                write!(f, "{zone} has {celsius:.0} °C and must cool to {below:.0}")
            }
            Objection::Mode { mode, allowed } => write!(f, "power mode {mode} is not among {allowed}"),
            Objection::Battery { charge, least } => {
                write!(f, "the battery is at {charge:.0} % and must have {least:.0} %")
            }
            Objection::NoMains => write!(f, "it runs on its battery"),
            Objection::Load { share, most } => write!(
                f,
                "other programs use {:.0} % of the processors, more than {:.0} %",
                share * 100.0,
                most * 100.0
            ),
        }
    }
}
