//! The end of a round: from its updates to the next global state.

use std::collections::BTreeMap;
use std::ops::Range;

use fedtt_wire::{Message, chunk};
use ndarray::ArrayD;

use super::global::at;
use super::measuring::pooled;
use super::selecting::{LONGEST_PAUSE, Selecting, pause};
use super::{Phase, Run, RunError, What};
use crate::aggregate::{AggregateError, AggregationReport, Contributions, Contributor, aggregate, norm};
use crate::record::{Contribution, Measured, RoundRecord, Status, Traffic};
use crate::store::{Changes, Kept, StoreError, Tensors};

/// Bytes of a chunk beside its data: frame, names, digest, MQTT header and acknowledgement.
const CHUNK_OVERHEAD: u64 = 170;

/// The stored updates of a round as contributions.
struct Stored<'a> {
    run: &'a Run,
    store: &'a Changes,
    trained: &'a [u32],
    updates: &'a [(String, Kept)],
}

impl Contributions for Stored<'_> {
    fn contributors(&self) -> Result<Vec<Contributor>, AggregateError> {
        let contributor = |(client, kept): &(String, Kept)| Contributor {
            client: client.clone(),
            examples: kept.update.examples,
            survey: kept.survey.clone(),
        };
        Ok(self.updates.iter().map(contributor).collect())
    }

    fn change(&self, contributor: usize, parameters: Range<usize>) -> Result<Vec<ArrayD<f32>>, AggregateError> {
        let Some((client, kept)) = self.updates.get(contributor) else { return Ok(Vec::new()) };
        let change = || -> Result<Vec<ArrayD<f32>>, RunError> {
            let tensors = self.store.update_tensors(client, kept, parameters.clone())?;
            let places = &self.trained[parameters.clone()];
            Ok(tensors.iter().zip(places).map(|(t, &place)| self.run.change_of(t, place)).collect::<Result<_, _>>()?)
        };
        change().map_err(|source| AggregateError::Source { client: client.clone(), source: Box::new(source) })
    }
}

impl Run {
    pub(super) fn close_if_due(&mut self, now: u64, store: &Changes) -> Result<(), RunError> {
        if let Phase::Collecting(collecting) = &mut self.record.phase {
            // A clock set back makes no round longer than it is to be.
            collecting.began = collecting.began.min(now);
        }
        let Phase::Collecting(collecting) = &self.record.phase else { return Ok(()) };
        let plan = &self.record.plan.collection;
        let (received, fewest) = (self.accepted.len(), plan.fewest(collecting.wanted));
        let elapsed = now.saturating_sub(collecting.began);
        let enough = received >= fewest && elapsed >= plan.shortest();
        let hopeless = collecting.able().max(received) < fewest;
        if enough || self.all_in() && !hopeless || self.no_more_come(now) {
            return self.close(now, store);
        }
        if hopeless || elapsed >= plan.longest() {
            let why = if hopeless {
                format!("too many devices refused: {}", commonest(collecting.record.refusals.values()))
            } else {
                format!("{received} updates in {} s, {fewest} needed", elapsed / 1000)
            };
            let passes = collecting.passes(fewest, now).filter(|_| hopeless);
            self.fail(now, why, passes);
        }
        Ok(())
    }

    /// The round comes to nothing this time. What stands in its way may pass at a time that is known: others may do before, and the
    /// run is not paused for it.
    fn fail(&mut self, now: u64, reason: String, passes: Option<u64>) {
        let Phase::Collecting(collecting) = &self.record.phase else { return };
        let (attempt, record) = (collecting.attempt + 1, collecting.record.clone());
        let spared = collecting.spared + u32::from(passes.is_some());
        self.say(now, What::RoundFailed { reason: reason.clone() });
        self.dirty = true;
        if self.is_measuring() {
            // The last measurement is worth waiting for, not failing for.
            self.finished(now, Some(format!("the last adapter could not be measured: {reason}")));
            return;
        }
        let wait = passes.map_or(0, |passes| passes.saturating_sub(now)).min(LONGEST_PAUSE);
        let not_before = now + pause(attempt).max(wait);
        self.record.phase = Phase::Selecting(Selecting { attempt, spared, not_before, record });
        if self.record.summary.status == Status::Pausing {
            self.rest(now, Status::Paused, None);
        } else if attempt - spared > self.record.plan.collection.retries {
            self.rest(
                now,
                Status::Paused,
                Some(format!("round {} failed {} times: {reason}", self.record.round + 1, attempt - spared)),
            );
        }
    }

    fn close(&mut self, now: u64, store: &Changes) -> Result<(), RunError> {
        let Phase::Collecting(collecting) = &self.record.phase else { return Ok(()) };
        let mut record = collecting.record.clone();
        record.seconds = now.saturating_sub(record.began) as f64 / 1000.0;
        let lost = collecting.lost(now).map(|device| (device.clone(), "away when the round ended".to_string()));
        record.refusals.extend(lost);
        let updates = store.updates(&self.id, self.record.round)?;
        self.gather(&mut record, &updates, store)?;
        let measuring = self.is_measuring();
        if measuring {
            self.note_measurement(&mut record, store)?;
        } else if let Err(error) = self.aggregate(&mut record, &updates, store) {
            return self.no_aggregate(now, error, record, store);
        }
        store.put_record(&self.id, &record)?;
        store.drop_updates(&self.id, self.record.round)?;
        let ended = What::RoundEnded {
            updates: record.contributions.len(),
            seconds: record.seconds,
            before: record.before.clone(),
        };
        self.say(now, ended);
        let summary = &mut self.record.summary;
        summary.traffic.up += record.traffic.up;
        summary.traffic.down += record.traffic.down;
        self.record.counted = std::mem::take(&mut self.accepted).into_iter().collect();
        self.dirty = true;
        if measuring {
            self.finished(now, None);
            return Ok(());
        }
        summary_after_round(self, &record);
        self.measure_after(record.round);
        self.record.round += 1;
        self.progress.clear();
        self.next(now);
        Ok(())
    }

    /// An aggregate that cannot be had is the clients' doing (all refused, not finite); anything else is ours.
    fn no_aggregate(
        &mut self,
        now: u64,
        error: RunError,
        mut record: RoundRecord,
        store: &Changes,
    ) -> Result<(), RunError> {
        match error {
            RunError::Aggregate(e @ (AggregateError::Empty { .. } | AggregateError::NotFinite { .. })) => {
                record.contributions.clear();
                record.refused.outlying += self.accepted.len() as u64;
                self.record.summary.refused.outlying += self.accepted.len() as u64;
                store.drop_updates(&self.id, self.record.round)?;
                self.accepted.clear();
                if let Some(current) = self.current() {
                    *current = record;
                }
                self.fail(now, e.to_string(), None);
                Ok(())
            }
            other => Err(other),
        }
    }

    /// What each update says of its making.
    fn gather(&self, record: &mut RoundRecord, updates: &[(String, Kept)], store: &Changes) -> Result<(), StoreError> {
        record.contributions.clear();
        record.left_out.clear();
        for (device, Kept { update, payload, .. }) in updates {
            // A device counts its bytes up to an update, not those of the update itself.
            let chunks = payload.div_ceil(self.record.plan.wire.chunk as u64).max(1);
            let own = *payload + chunks * (CHUNK_OVERHEAD + device.len() as u64);
            let now = Traffic { up: update.sent + own, down: update.received };
            let before = store.exchange_counters(device, now)?;
            // A counter below the last one began anew with the device's program.
            let since = |now: u64, before: u64| if now >= before { now - before } else { now };
            let traffic = Traffic { up: since(now.up, before.up), down: since(now.down, before.down) };
            record.traffic.up += traffic.up;
            record.traffic.down += traffic.down;
            let contribution = Contribution {
                examples: update.examples,
                loss: update.loss,
                seconds: update.seconds,
                joules: update.joules,
                tokens: update.tokens,
                traffic,
                payload: *payload,
                measured: update.measured.clone(),
                ..Contribution::default()
            };
            record.contributions.insert(device.clone(), contribution);
        }
        Ok(())
    }

    /// Takes what the devices measured together. Keeps the adapter the round began with if it is the best so far by their
    /// word; losses on other examples do not compare, so a run whose host measures is judged by the host.
    fn note_measurement(&mut self, record: &mut RoundRecord, store: &Changes) -> Result<(), RunError> {
        record.before = pooled(record.contributions.values().filter_map(|c| c.measured.as_ref()));
        let Some(measured) = record.before.as_ref().filter(|_| !self.measured_here) else { return Ok(()) };
        self.judge_measurement(self.record.round, measured, None, store)
    }

    /// Takes in what the adapter `round` began with measured; `values` are its values, the current ones if absent.
    pub(super) fn judge_measurement(
        &mut self,
        round: u32,
        measured: &Measured,
        values: Option<Vec<ndarray::ArrayD<f32>>>,
        store: &Changes,
    ) -> Result<(), RunError> {
        self.dirty = true;
        self.record.summary.last = Some(measured.clone());
        let best = self.record.summary.best.as_ref();
        if measured.loss.is_finite() && best.is_none_or(|(_, best)| measured.loss < best.loss) {
            self.record.summary.best = Some((round, measured.clone()));
            self.record.stale = 0;
            for (index, values) in (0u32..).zip(values.as_deref().unwrap_or(&self.global.values)) {
                store.put_tensor(&self.id, Tensors::Best, index, Some(values))?;
            }
        } else {
            self.record.stale += 1;
        }
        Ok(())
    }

    fn aggregate(
        &mut self,
        record: &mut RoundRecord,
        updates: &[(String, Kept)],
        store: &Changes,
    ) -> Result<(), RunError> {
        let trained = self.trained();
        let parameters = at(&self.parameters, &trained);
        let plan = self.record.plan.aggregation.clone();
        let contributions = Stored { run: self, store, trained: &trained, updates };
        let aggregated = aggregate(&plan, &parameters, &self.global.of(&trained), &contributions)?;
        let round = self.record.round;
        self.global.drift.record(u64::from(round), &parameters, &aggregated.report);
        report(record, &aggregated.report);
        self.note_measurement(record, store)?;
        self.record.summary.refused.outlying += aggregated.report.left_out.len() as u64;
        let change = self.global.server.apply(&plan.server, &parameters, aggregated.change);
        let before = self.global.digest();
        let wire = &self.record.plan.wire;
        record.norm = norm(&change);
        let tensors = self.global.advance(&self.id, &trained, change, wire.downlink)?;
        let payload = Message::from(tensors).into_bytes(wire.level)?;
        record.published = payload.len() as u64;
        self.record.change = Some((before, chunk::parcel(&payload, wire.chunk)));
        store.put_change(&self.id, &payload)?;
        self.change = Some(payload);
        self.global.store(&self.id, &trained, store)?;
        self.record.summary.updates += aggregated.report.clients.len() as u64;
        Ok(())
    }
}

/// Reasons that are told; a fleet may have as many as devices.
const TOLD: usize = 3;

/// The commonest of some reasons, each once.
fn commonest<'a>(reasons: impl Iterator<Item = &'a String>) -> String {
    let mut counts = BTreeMap::new();
    reasons.for_each(|reason| *counts.entry(reason.as_str()).or_insert(0u32) += 1);
    let mut counts: Vec<(&str, u32)> = counts.into_iter().collect();
    counts.sort_by_key(|&(_, times)| std::cmp::Reverse(times));
    let told = counts.iter().take(TOLD).map(|&(reason, times)| match times {
        1 => reason.to_string(),
        _ => format!("{reason} ({times} devices)"),
    });
    let others = counts.len().saturating_sub(TOLD);
    let more = (others > 0).then(|| format!("{others} other reasons"));
    told.chain(more).collect::<Vec<_>>().join("; ")
}

fn report(record: &mut RoundRecord, report: &AggregationReport) {
    record.truncation = report.truncation;
    for (client, share) in &report.clients {
        if let Some(contribution) = record.contributions.get_mut(client) {
            contribution.weight = share.weight;
            contribution.norm = share.norm;
        }
    }
    record.refused.outlying += report.left_out.len() as u64;
    for (client, why) in &report.left_out {
        record.refusals.insert(client.clone(), format!("left out: {why}"));
        record.left_out.extend(record.contributions.remove_entry(client));
    }
}

fn summary_after_round(run: &mut Run, record: &RoundRecord) {
    let summary = &mut run.record.summary;
    summary.rounds_done = record.round + 1;
    for device in &run.record.counted {
        if let Err(at) = summary.devices.binary_search(device) {
            summary.devices.insert(at, device.clone());
        }
    }
}
