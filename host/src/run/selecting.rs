//! Waiting for devices, and picking the cohort of a round.

use std::collections::BTreeMap;

use fedtt_wire::DeviceName;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::collecting::Collecting;
use super::told::Told;
use super::{Candidate, Phase, Run, RunError, What};
use crate::record::RoundRecord;
use crate::store::Changes;

/// Milliseconds before a failed round is begun again, times the attempts before.
const PAUSE_BETWEEN_ATTEMPTS: u64 = 5_000;

/// And at most.
pub(super) const LONGEST_PAUSE: u64 = 300_000;

/// Waiting for devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Selecting {
    /// Times the round was begun before.
    pub(super) attempt: u32,
    /// Of those, times that failed for what was to pass.
    #[serde(default)]
    pub(super) spared: u32,
    /// Unix milliseconds before which it is not begun.
    pub(super) not_before: u64,
    /// What the attempts before left behind.
    pub(super) record: RoundRecord,
}

/// Milliseconds before a round is begun for the time after so many.
pub(super) fn pause(attempt: u32) -> u64 {
    (PAUSE_BETWEEN_ATTEMPTS * u64::from(attempt)).min(LONGEST_PAUSE)
}

/// `count` of `names` (sorted), as the seed, round and attempt have it, sorted.
fn draw(mut names: Vec<DeviceName>, count: usize, seed: u64, round: u32, attempt: u32) -> Vec<DeviceName> {
    if count < names.len() {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream((u64::from(round) << 32) | u64::from(attempt));
        names.shuffle(&mut rng);
        names.truncate(count);
        names.sort();
    }
    names
}

impl Run {
    pub(super) fn select(&mut self, now: u64, candidates: &[Candidate], store: &Changes) -> Result<(), RunError> {
        let Phase::Selecting(selecting) = &mut self.record.phase else { return Ok(()) };
        if selecting.not_before != u64::MAX {
            // A clock set back makes no pause longer than it is to be.
            selecting.not_before = selecting.not_before.min(now + LONGEST_PAUSE);
        }
        if now < selecting.not_before {
            return Ok(());
        }
        let selecting = selecting.clone();
        let plan = &self.record.plan;
        let fit = candidates.iter().filter(|candidate| candidate.fits(plan));
        let mut names: Vec<DeviceName> = fit.map(|candidate| candidate.name.clone()).collect();
        names.sort();
        names.dedup();
        let needed = plan.fewest_present();
        if names.len() < needed {
            let waiting = (names.len(), needed);
            // The last measurement is worth waiting for, but nothing else comes after it.
            if self.is_measuring() && now >= selecting.not_before + plan.collection.longest() {
                let reason = format!("{} of {} devices are there", waiting.0, waiting.1);
                self.finished(now, Some(format!("the last adapter could not be measured: {reason}")));
                return Ok(());
            }
            if self.said_waiting.replace(waiting) != Some(waiting) {
                self.say(now, What::Waiting { present: waiting.0, needed });
            }
            return Ok(());
        }
        self.said_waiting = None;
        let wanted = plan.selection.wanted(names.len()).max(plan.collection.least());
        let asked = plan.selection.asked(wanted, names.len());
        let cohort = draw(names, asked, plan.seed, self.record.round, selecting.attempt);
        let trained: usize = self.trained().iter().map(|&place| self.layout.0[place as usize].len()).sum();
        let record = RoundRecord {
            round: self.record.round,
            attempts: selecting.attempt + 1,
            began: if selecting.attempt == 0 { now } else { selecting.record.began },
            cohort: cohort.len(),
            trained: trained as u64,
            refusals: BTreeMap::new(),
            ..selecting.record
        };
        let size = cohort.len();
        let collecting = Collecting {
            attempt: selecting.attempt,
            spared: selecting.spared,
            began: now,
            cohort,
            wanted,
            record,
            until: BTreeMap::new(),
            away: BTreeMap::new(),
        };
        self.progress.clear();
        self.told = Told::default();
        self.publish_change(store)?;
        self.publish_manifest(&collecting, now)?;
        self.record.phase = Phase::Collecting(collecting);
        self.dirty = true;
        self.say(now, What::RoundBegan { attempt: selecting.attempt, cohort: size, trained: trained as u64 });
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn cohorts_are_drawn_by_seed_round_and_attempt() {
        let names: Vec<DeviceName> = (0..50).map(|i| DeviceName::new(format!("d{i:02}")).unwrap()).collect();
        let drawn = |seed, round, attempt| draw(names.clone(), 10, seed, round, attempt);
        assert_eq!(drawn(1, 2, 0), drawn(1, 2, 0));
        assert!(drawn(1, 2, 0).is_sorted() && drawn(1, 2, 0).len() == 10);
        for other in [drawn(2, 2, 0), drawn(1, 3, 0), drawn(1, 2, 1)] {
            assert_ne!(drawn(1, 2, 0), other);
        }
        let mut often = BTreeMap::new();
        (0..500).flat_map(|round| drawn(7, round, 0)).for_each(|name| *often.entry(name).or_insert(0) += 1);
        assert!(often.len() == 50 && often.values().all(|n| (60..=140).contains(n)), "{often:?}");
    }
}
