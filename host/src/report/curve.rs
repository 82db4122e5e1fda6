//! The quality of the global adapter over what it cost.

use super::RunReport;
use crate::record::{Measured, less_is_better};

/// The global adapter at one point of a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    /// rounds it has been trained
    pub(super) rounds: u32,
    pub(super) value: f64,
    pub(super) loss: f64,
    /// bytes both ways until then, all devices
    pub(super) bytes: f64,
    /// seconds until then
    pub(super) seconds: f64,
    /// joules until then, of the devices that can tell
    pub(super) joules: Option<f64>,
}

/// Who measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Source {
    /// the host, on examples of its own
    Host,
    /// devices, on examples they hold out
    #[default]
    Devices,
}

/// Measurements of a run's global adapter, in the order of its rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Curve {
    pub(super) source: Source,
    pub(super) metric: String,
    pub(super) points: Vec<Point>,
}

/// Measurements at a run's end that its level is the mean of.
const LEVEL: usize = 5;

impl Curve {
    /// As the host measured, or as the devices did if it did not.
    pub(super) fn of(report: &RunReport) -> Self {
        let source = if report.rounds.iter().any(|r| r.after.is_some()) { Source::Host } else { Source::Devices };
        Self::from(report, source)
    }

    pub(super) fn from(report: &RunReport, source: Source) -> Self {
        let mut curve = Curve { source, ..Curve::default() };
        let (mut bytes, mut seconds, mut joules) = (0.0, 0.0, None);
        for record in &report.rounds {
            if source == Source::Devices {
                curve.push(record.round, record.before.as_ref(), bytes, seconds, joules);
            }
            bytes += (record.traffic.up + record.traffic.down) as f64;
            seconds += record.seconds;
            for taken in record.all().filter_map(|(_, c)| c.joules) {
                joules = Some(joules.unwrap_or(0.0) + taken);
            }
            if source == Source::Host {
                curve.push(record.round + 1, record.after.as_ref(), bytes, seconds, joules);
            }
        }
        curve
    }

    fn push(&mut self, rounds: u32, measured: Option<&Measured>, bytes: f64, seconds: f64, joules: Option<f64>) {
        let Some(Measured { loss, metric, value, .. }) = measured else { return };
        if value.is_finite() && (self.metric.is_empty() || self.metric == *metric) {
            self.metric.clone_from(metric);
            self.points.push(Point { rounds, value: *value, loss: *loss, bytes, seconds, joules });
        }
    }

    /// Whether `a` is the better of two values.
    pub(super) fn better(&self, a: f64, b: f64) -> bool {
        if less_is_better(&self.metric) { a < b } else { a > b }
    }

    /// The best point, the earliest of equals.
    pub(super) fn best(&self) -> Option<&Point> {
        self.best_within(|_| true)
    }

    /// Each point, with the best value until then.
    pub(super) fn best_so_far(&self) -> impl Iterator<Item = (&Point, f64)> {
        self.points.iter().scan(None, |best, point| {
            let value = best.filter(|&best| !self.better(point.value, best)).unwrap_or(point.value);
            *best = Some(value);
            Some((point, value))
        })
    }

    /// The best point among those `allowed`.
    pub(super) fn best_within(&self, allowed: impl Fn(&Point) -> bool) -> Option<&Point> {
        let points = self.points.iter().filter(|p| allowed(p));
        points.fold(None, |best: Option<&Point>, p| match best {
            Some(best) if !self.better(p.value, best.value) => Some(best),
            _ => Some(p),
        })
    }

    /// The first point at least as good as `target`.
    pub(super) fn reached(&self, target: f64) -> Option<&Point> {
        self.points.iter().find(|p| !self.better(target, p.value))
    }

    /// Mean and standard deviation of the last measurements: where the run stands, less the luck of one round.
    pub(super) fn level(&self) -> Option<(f64, f64)> {
        let last = &self.points[self.points.len().saturating_sub(LEVEL)..];
        let n = last.len() as f64;
        let mean = last.iter().map(|p| p.value).sum::<f64>() / n;
        let variance = last.iter().map(|p| (p.value - mean).powi(2)).sum::<f64>() / n;
        (!last.is_empty()).then(|| (mean, variance.sqrt()))
    }

    /// The deepest fall from a peak to a later value, 0 or above.
    pub(super) fn deepest_fall(&self) -> f64 {
        let mut peak: Option<f64> = None;
        let mut deepest: f64 = 0.0;
        for point in &self.points {
            let highest = peak.filter(|&peak| self.better(peak, point.value)).unwrap_or(point.value);
            deepest = deepest.max((highest - point.value).abs());
            peak = Some(highest);
        }
        deepest
    }
}
