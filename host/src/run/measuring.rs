//! What the host measures on examples of its own: the adapters rounds end with.

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
