//! What the owner of a board allows training to take.

use serde::{Deserialize, Serialize};

/// What the owner of a board allows training to take. A limit on what the board does not tell is no limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// MiB of memory that training leaves to others.
    pub min_free_memory: u64,
    /// The hottest zone above this, in degrees Celsius, pauses training.
    pub max_temperature: f64,
    /// The hottest zone at or below this lets it go on.
    pub resume_temperature: f64,
    /// Power modes to train in, by name or number; any if there are none.
    pub power_modes: Vec<String>,
    /// Least charge of a battery that is not being fed, percent.
    pub min_battery: f64,
    /// Whether to train with power from outside alone.
    pub mains_only: bool,
    /// Largest share of the processors, 0 to 1, that other programs may be using.
    pub max_load: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            min_free_memory: 64,
            max_temperature: 85.0,
            resume_temperature: 75.0,
            power_modes: Vec::new(),
            min_battery: 20.0,
            mains_only: false,
            max_load: None,
        }
    }
}

impl Limits {
    /// None at all.
    pub fn none() -> Self {
        Limits {
            min_free_memory: 0,
            max_temperature: f64::INFINITY,
            resume_temperature: f64::INFINITY,
            min_battery: 0.0,
            ..Limits::default()
        }
    }

    /// # Errors
    /// The field that is out of range, and what would be right.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.max_temperature.is_nan() || self.max_temperature <= 0.0 {
            return Err(("limits.max_temperature", "must be above 0".into()));
        }
        if self.resume_temperature.is_nan() || self.resume_temperature > self.max_temperature {
            let message = format!("must be at most limits.max_temperature, {}", self.max_temperature);
            return Err(("limits.resume_temperature", message));
        }
        if !(0.0..=100.0).contains(&self.min_battery) {
            return Err(("limits.min_battery", "must be 0 to 100".into()));
        }
        if self.max_load.is_some_and(|load| !(load > 0.0 && load <= 1.0)) {
            return Err(("limits.max_load", "must be above 0 and at most 1".into()));
        }
        Ok(())
    }
}
