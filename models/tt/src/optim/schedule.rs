//! Learning rate over the steps of a run: linear warm-up, then constant, linear or cosine decay.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What follows the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// The full rate to the end.
    #[default]
    Constant,
    /// A straight line to the floor.
    Linear,
    /// Half a cosine to the floor.
    Cosine,
}

/// Fraction of the full learning rate at each step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// steps over which the rate rises to its full value
    pub warmup_steps: u64,
    /// after the warm-up
    pub decay: Decay,
    /// steps of the whole run, warm-up included; needed for a decay
    pub total_steps: Option<u64>,
    /// fraction of the rate left at `total_steps` and after
    pub floor: f32,
}

impl Schedule {
    /// Fraction of the full rate for step `step`, from 0.
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return (step + 1) as f64 / self.warmup_steps as f64;
        }
        let total = self.total_steps.unwrap_or(u64::MAX);
        let span = total.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = ((step - self.warmup_steps) as f64 / span).min(1.0);
        let floor = f64::from(self.floor);
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => floor + (1.0 - floor) * (1.0 - progress),
            Decay::Cosine => floor + (1.0 - floor) * 0.5 * (1.0 + (PI * progress).cos()),
        }
    }

    /// Checks the settings; errors name the field.
    pub fn validate(&self) -> Result<()> {
        if self.decay != Decay::Constant && self.total_steps.is_none() {
            return Err(Error::config("schedule.total_steps", "a decaying rate needs the number of steps of the run"));
        }
        if let Some(total) = self.total_steps
            && total < self.warmup_steps
        {
            return Err(Error::config("schedule.warmup_steps", format!("more than the run's {total} steps")));
        }
        if !(0.0..=1.0).contains(&self.floor) {
            return Err(Error::config("schedule.floor", format!("{} is not within 0..=1", self.floor)));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn factors(schedule: Schedule) -> Vec<f64> {
        schedule.validate().unwrap();
        (0..8).map(|step| schedule.factor(step)).collect()
    }

    #[test]
    fn warm_up_rises_in_equal_steps_then_the_decay_falls_to_the_floor() {
        let base = Schedule { warmup_steps: 2, total_steps: Some(6), ..Schedule::default() };
        assert_eq!(factors(base), [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        let linear = Schedule { decay: Decay::Linear, floor: 0.5, ..base };
        assert_eq!(factors(linear), [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.5]);
        let cosine = factors(Schedule { decay: Decay::Cosine, ..base });
        let expected = [0.5, 1.0, 1.0, 0.5 + 0.5f64.sqrt() / 2.0, 0.5, 0.5 - 0.5f64.sqrt() / 2.0, 0.0, 0.0];
        assert!(cosine.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{cosine:?}");
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let endless = Schedule { decay: Decay::Linear, ..Schedule::default() };
        assert!(endless.validate().unwrap_err().to_string().contains("schedule.total_steps"));
        let short = Schedule { warmup_steps: 5, total_steps: Some(4), ..Schedule::default() };
        assert!(short.validate().unwrap_err().to_string().contains("schedule.warmup_steps"));
        let floor = Schedule { floor: 1.5, ..Schedule::default() };
        assert!(floor.validate().unwrap_err().to_string().contains("schedule.floor"));
    }
}
