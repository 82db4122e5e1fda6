//! Taking a cohort's updates in.

use std::collections::BTreeMap;

use fedtt_wire::message::{Outcome, Parcel, Refusal, Update, Verdict};
use fedtt_wire::plan::CollectionPlan;
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::{DeviceName, Digest, Topic, WireError};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use super::{Candidate, Phase, Run, RunError, What};
use crate::aggregate::Survey;
use crate::record::RoundRecord;
use crate::store::Changes;

/// A round that goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Collecting {
    /// Times it was begun before.
    pub(super) attempt: u32,
    /// Of those, times that failed for what was to pass.
    #[serde(default)]
    pub(super) spared: u32,
    /// Unix milliseconds of this beginning.
    pub(super) began: u64,
    /// Who is asked.
    pub(super) cohort: Vec<DeviceName>,
    /// How many are wanted of them.
    pub(super) wanted: usize,
    /// What will be said of it.
    pub(super) record: RoundRecord,
    /// Of those who refuse, until when, where that is known.
    #[serde(default)]
    pub(super) until: BTreeMap<String, u64>,
    /// Of those who have not answered and are away, or say that they take part in nothing, since when.
    #[serde(default)]
    pub(super) away: BTreeMap<String, u64>,
}

/// A device that is away for so many milliseconds is not waited for, where there are enough others.
const PATIENCE: u64 = 60_000;

/// Most examples a device may claim: a weight beyond any data set is a mistake or an attack.
const MOST_EXAMPLES: u64 = 1 << 32;

impl Collecting {
    /// Devices that can still answer or have.
    pub(super) fn able(&self) -> usize {
        self.cohort.iter().filter(|name| !self.record.refusals.contains_key(name.as_str())).count()
    }

    /// Those who are not waited for any more as they are away, and have not refused.
    pub(super) fn lost(&self, now: u64) -> impl Iterator<Item = &String> {
        let long = self.away.iter().filter(move |&(_, &since)| now.saturating_sub(since) >= PATIENCE);
        long.map(|(name, _)| name).filter(|name| !self.record.refusals.contains_key(*name))
    }

    /// When the first of the refusals passes, if without those that pass it could have `fewest` updates.
    pub(super) fn passes(&self, fewest: usize, now: u64) -> Option<u64> {
        let passing = || self.until.values().copied().filter(|&until| until > now);
        passing().min().filter(|_| self.able() + passing().count() >= fewest)
    }

    /// When the round's state has to be looked at again.
    pub(super) fn next_due(&self, plan: &CollectionPlan, accepted: usize) -> u64 {
        let enough = accepted >= plan.fewest(self.wanted);
        self.began + if enough { plan.shortest().min(plan.longest()) } else { plan.longest() }
    }
}

/// Why an update does not count.
enum Fault {
    Foreign(String),
    Malformed(String),
    Outlying(String),
}

impl Run {
    /// An update came in, as the payload of a parcel.
    ///
    /// # Errors
    /// A fault of the host.
    pub fn updated(
        &mut self,
        device: &DeviceName,
        update: Update,
        parcel: &Parcel,
        now: u64,
        store: &Changes,
    ) -> Result<(), RunError> {
        let (round, digest) = (update.round, parcel.digest);
        if update.device == *device
            && let Some(outcome) = self.settled(device, round)
        {
            return self.settle(device, round, digest, outcome, now, store);
        }
        match self.check(device, &update) {
            Ok(survey) => store.put_update(device, update, parcel.size, survey)?,
            Err(fault) => {
                let (kind, reason) = match fault {
                    Fault::Foreign(reason) => ("foreign", reason),
                    Fault::Malformed(reason) => ("malformed", reason),
                    Fault::Outlying(reason) => ("outlying", reason),
                };
                self.refused(now, device, kind, reason.clone());
                return self.answer(device, round, digest, Outcome::Rejected(reason));
            }
        }
        self.accepted.insert(device.clone());
        self.progress.remove(device.as_str());
        let (received, expected) = (self.accepted.len(), self.expected());
        self.say(now, What::Accepted { device: device.to_string(), received, expected });
        self.answer(device, round, digest, Outcome::Accepted)
    }

    /// Answers an update, or part of one, of which [`Run::settled`] knows the outcome.
    ///
    /// # Errors
    /// When the store fails, or the answer cannot be encoded.
    pub fn settle(
        &mut self,
        device: &DeviceName,
        round: u32,
        update: Digest,
        outcome: Outcome,
        now: u64,
        store: &Changes,
    ) -> Result<(), RunError> {
        // Of the rounds before the last the store knows who counted: to call that late would have the device forget it.
        let counted = |record: RoundRecord| record.all().any(|(name, _)| name == device.as_str());
        let outcome = match outcome {
            Outcome::Late if store.record(&self.id, round)?.is_some_and(counted) => Outcome::Duplicate,
            outcome => outcome,
        };
        let late = outcome == Outcome::Late;
        let add = |refused: &mut crate::record::Refused| match late {
            true => refused.late += 1,
            false => refused.duplicate += 1,
        };
        add(&mut self.record.summary.refused);
        self.count(add);
        if late {
            self.refuse(now, device, "late", format!("of round {round}"));
        }
        self.answer(device, round, update, outcome)
    }

    /// Counts a message that cannot be taken, and notes it.
    pub fn refused(&mut self, now: u64, device: &DeviceName, kind: &str, reason: String) {
        let add = |refused: &mut crate::record::Refused| match kind {
            "foreign" => refused.foreign += 1,
            "outlying" => refused.outlying += 1,
            _ => refused.malformed += 1,
        };
        add(&mut self.record.summary.refused);
        self.count(add);
        self.refuse(now, device, kind, reason);
    }

    /// A device does not take part.
    pub fn declined(&mut self, device: &DeviceName, refusal: &Refusal, now: u64) {
        let round = self.record.round;
        let Phase::Collecting(collecting) = &mut self.record.phase else { return };
        if refusal.round != round || !collecting.cohort.contains(device) || self.accepted.contains(device) {
            return;
        }
        let reason: String = refusal.reason.chars().take(500).collect();
        if let Some(until) = refusal.until {
            collecting.until.insert(device.to_string(), until);
        }
        if collecting.record.refusals.insert(device.to_string(), reason.clone()).is_none() {
            self.dirty = true;
            self.say(now, What::Declined { device: device.to_string(), reason });
        }
    }

    /// A device gets the run's bundle first.
    pub fn fetching(&mut self, device: &DeviceName, now: u64) {
        let Phase::Collecting(collecting) = &self.record.phase else { return };
        if collecting.cohort.contains(device) && !self.accepted.contains(device) && self.told.one_more(device) {
            self.say(now, What::Fetching { device: device.to_string() });
        }
    }

    /// A device is no longer of the fleet: nothing is waited for from it.
    pub fn left(&mut self, device: &DeviceName, now: u64) {
        let reason = "it was put out of the fleet".to_string();
        let refusal = Refusal { run: self.id.clone(), round: self.record.round, reason, until: None };
        self.declined(device, &refusal, now);
    }

    /// Notes who of the cohort is away; `candidates` are those who are not, by name.
    pub(super) fn look_for(&mut self, candidates: &[Candidate], now: u64) {
        let Phase::Collecting(collecting) = &mut self.record.phase else { return };
        for device in &collecting.cohort {
            let there = candidates.binary_search_by(|candidate| candidate.name.cmp(device)).is_ok();
            if there || self.accepted.contains(device) {
                self.dirty |= collecting.away.remove(device.as_str()).is_some();
            } else if !collecting.away.contains_key(device.as_str()) {
                collecting.away.insert(device.to_string(), now);
                self.dirty = true;
            }
        }
    }

    /// Updates that are waited for.
    fn expected(&self) -> usize {
        match &self.record.phase {
            Phase::Collecting(collecting) => {
                self.record.plan.collection.most(collecting.wanted).min(collecting.able().max(self.accepted.len()))
            }
            _ => 0,
        }
    }

    pub(super) fn all_in(&self) -> bool {
        self.accepted.len() >= self.expected().max(1)
    }

    /// Whether those who can still answer all have, and are enough.
    pub(super) fn no_more_come(&self, now: u64) -> bool {
        let Phase::Collecting(collecting) = &self.record.phase else { return false };
        let fewest = self.record.plan.collection.fewest(collecting.wanted);
        let lost = collecting.lost(now).count();
        self.accepted.len() >= fewest && lost > 0 && self.accepted.len() + lost >= collecting.able()
    }

    /// Whether some updates of the round that goes on are in, and others are waited for.
    pub fn expects_more(&self) -> bool {
        matches!(self.record.phase, Phase::Collecting(_)) && !self.accepted.is_empty() && !self.all_in()
    }

    /// Why nothing is expected of a device for a round, if nothing is. Asked before its chunks are put together, so that only
    /// a cohort takes up memory.
    pub fn objection(&self, device: &DeviceName, round: u32) -> Option<String> {
        match &self.record.phase {
            Phase::Collecting(_) if round != self.record.round => {
                Some(format!("of round {round}, which has not begun"))
            }
            Phase::Collecting(collecting) if collecting.cohort.contains(device) => None,
            Phase::Collecting(_) => Some("the device is not in the round's cohort".into()),
            _ => Some("no round goes on".into()),
        }
    }

    fn check(&self, device: &DeviceName, update: &Update) -> Result<Survey, Fault> {
        if update.device != *device {
            return Err(Fault::Foreign(format!("made in the name of `{}`", update.device)));
        }
        if let Some(objection) = self.objection(device, update.round) {
            return Err(Fault::Foreign(objection));
        }
        if update.began != self.record.summary.began {
            return Err(Fault::Foreign("made for another run of this name".into()));
        }
        if update.state != self.global.digest() {
            return Err(Fault::Foreign("it began with another global state".into()));
        }
        if !self.is_measuring() && !(1..=MOST_EXAMPLES).contains(&update.examples) {
            return Err(Fault::Malformed(format!("trained on {} examples", update.examples)));
        }
        let survey = self.survey(update).map_err(|e| match e {
            WireError::Tensor { .. } if e.to_string().contains("not a number") => Fault::Outlying(e.to_string()),
            _ => Fault::Malformed(e.to_string()),
        })?;
        let plain = [update.loss, update.seconds, update.joules.unwrap_or(0.0)];
        if update.measured.as_ref().is_some_and(|m| m.examples > MOST_EXAMPLES || m.loss < 0.0) {
            return Err(Fault::Malformed("measured a loss below 0, or on more examples than a device has".into()));
        }
        let measured = update.measured.iter().flat_map(|m| [m.loss, m.value]);
        if !plain.into_iter().chain(measured).all(f64::is_finite) {
            return Err(Fault::Outlying("a loss or a measurement is infinite or not a number".into()));
        }
        Ok(survey)
    }

    /// What the values of an update amount to, tensor by tensor.
    fn survey(&self, update: &Update) -> Result<Survey, WireError> {
        let trained = self.trained();
        if update.tensors.len() != trained.len() {
            return Err(WireError::Count { expected: trained.len(), found: update.tensors.len() });
        }
        let mut survey = Survey::default();
        for (tensor, &place) in update.tensors.iter().zip(&trained) {
            survey.add(&self.change_of(tensor, place)?);
        }
        Ok(survey)
    }

    /// The change a tensor of an update makes to the values at `place`.
    pub(super) fn change_of(&self, tensor: &EncodedTensor, place: u32) -> Result<ArrayD<f32>, WireError> {
        let entry = &self.layout.0[place as usize];
        let mut values = tensor.decode(&entry.name, &entry.shape)?;
        if !self.record.plan.wire.uplink.delta {
            values -= &self.global.values[place as usize];
        }
        Ok(values)
    }

    fn count(&mut self, add: impl FnOnce(&mut crate::record::Refused)) {
        self.dirty = true;
        if let Some(record) = self.current() {
            add(&mut record.refused);
        }
    }

    fn refuse(&mut self, now: u64, device: &DeviceName, kind: &str, reason: String) {
        if !self.told.one_more(device) {
            return;
        }
        self.say(now, What::Refused { device: device.to_string(), kind: kind.to_string(), reason });
    }

    /// Answers an update.
    ///
    /// # Errors
    /// When the answer cannot be encoded.
    pub fn answer(
        &mut self,
        device: &DeviceName,
        round: u32,
        update: Digest,
        outcome: Outcome,
    ) -> Result<(), RunError> {
        let verdict = Verdict { run: self.id.clone(), round, update, outcome };
        Ok(self.publish(Topic::Down(device.clone()), verdict, false)?)
    }
}
