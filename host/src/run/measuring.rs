//! What is measured of adapters: those rounds begin with by devices, those they end with by the host, on examples of its own.

use std::collections::BTreeMap;

use ndarray::ArrayD;

use super::{Effect, Phase, Run, RunError, What};
use crate::record::Measured;
use crate::store::Changes;

impl Run {
    /// Whether the host has examples to measure adapters on.
    pub fn measured_here(&mut self, here: bool) {
        self.measured_here = here;
        if !here && self.record.to_be_measured.take().is_some() {
            self.dirty = true;
        }
    }

    /// The round whose adapter, the one of now, is to be measured.
    pub fn to_be_measured(&self) -> Option<u32> {
        self.record.to_be_measured
    }

    /// A round has ended.
    pub(super) fn measure_after(&mut self, round: u32) {
        let plan = &self.record.plan;
        let wanted = (round + 1).is_multiple_of(plan.evaluation.every) || round + 1 == plan.rounds;
        self.record.to_be_measured = (self.measured_here && wanted).then_some(round);
        self.measure_asked = self.record.to_be_measured;
        self.effects.push(Effect::RoundEnded { run: self.id.clone(), round });
    }

    /// Asks once more for what a host that was stopped has not measured.
    pub(super) fn ask_to_measure(&mut self) {
        if let Some(round) = self.record.to_be_measured
            && self.measure_asked != Some(round)
        {
            self.measure_asked = Some(round);
            self.effects.push(Effect::RoundEnded { run: self.id.clone(), round });
        }
    }

    /// The host measured the values a round ended with.
    ///
    /// # Errors
    /// When the store fails.
    pub fn measured(
        &mut self,
        round: u32,
        values: Vec<ArrayD<f32>>,
        measured: Measured,
        now: u64,
        store: &Changes,
    ) -> Result<(), RunError> {
        if let Some(mut record) = store.record(&self.id, round)? {
            record.after = Some(measured.clone());
            store.put_record(&self.id, &record)?;
        }
        self.judge_measurement(round + 1, &measured, Some(values), store)?;
        self.record.to_be_measured.take_if(|waited| *waited == round);
        // By the rounds the adapter has had: more may have ended while it was measured.
        self.say_of(round + 1, now, What::Measured { after: measured });
        Ok(())
    }

    /// The host could not measure the values a round ended with.
    pub fn unmeasured(&mut self, round: u32, reason: &str) {
        if self.record.to_be_measured.take_if(|waited| *waited == round).is_some() {
            self.dirty = true;
            if let Phase::Measuring(why) = &mut self.record.phase {
                why.get_or_insert_with(|| format!("the last adapter could not be measured: {reason}"));
            }
        }
    }
}

/// No device counts for more than so many times the device in the middle: its word is all there is for its examples.
const HEAVIEST: u64 = 10;

/// What devices measured, taken together by their examples, in the metric that most of them name.
pub(super) fn pooled<'a>(measured: impl Iterator<Item = &'a Measured>) -> Option<Measured> {
    let all: Vec<&Measured> = measured.filter(|m| m.examples > 0).collect();
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    all.iter().for_each(|m| *named.entry(m.metric.as_str()).or_default() += 1);
    let (metric, _) = named.into_iter().max_by_key(|(_, times)| *times)?;
    let alike: Vec<&Measured> = all.into_iter().filter(|m| m.metric == metric).collect();
    let mut sizes: Vec<u64> = alike.iter().map(|m| m.examples).collect();
    sizes.sort_unstable();
    let most = sizes.get(sizes.len() / 2)?.saturating_mul(HEAVIEST);
    let weight = |m: &Measured| m.examples.min(most);
    let examples: u64 = alike.iter().map(|m| weight(m)).sum();
    let mean = |of: fn(&Measured) -> f64| alike.iter().map(|m| of(m) * weight(m) as f64).sum::<f64>() / examples as f64;
    Some(Measured { examples, loss: mean(|m| m.loss), metric: metric.to_string(), value: mean(|m| m.value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(examples: u64, loss: f64, metric: &str) -> Measured {
        Measured { examples, loss, metric: metric.into(), value: loss / 2.0 }
    }

    #[test]
    fn devices_measure_by_their_examples_and_none_for_all_others() {
        assert_eq!(pooled([].iter()), None);
        assert_eq!(pooled([measured(0, 1.0, "accuracy")].iter()), None);
        let plain = [measured(10, 1.0, "accuracy"), measured(30, 2.0, "accuracy")];
        assert_eq!(pooled(plain.iter()), Some(measured(40, 1.75, "accuracy")));
        let mut fleet = vec![measured(10, 1.0, "accuracy"); 4];
        fleet.push(measured(1 << 32, 0.0, "accuracy"));
        assert_eq!(pooled(fleet.iter()), Some(measured(140, 40.0 / 140.0, "accuracy")));
        fleet[4] = measured(1 << 32, 0.0, "made up");
        assert_eq!(pooled(fleet.iter()), Some(measured(40, 1.0, "accuracy")));
    }
}
