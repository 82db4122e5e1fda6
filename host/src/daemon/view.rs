//! The state of everything at one moment, for the live page.

use std::collections::BTreeMap;

use fedtt_wire::{DeviceName, RunId};

use super::tell::Teller;
use crate::coordinator::{Coordinator, Device};
use crate::record::Status;
use crate::run::{Current, Run};
use crate::web::snapshot::{Broker, DeviceView, MemberState, MemberView, Phase, RoundView, RunView, Snapshot};

/// Points of a run's quality that are shown.
const POINTS: usize = 300;

/// Measurements by run and rounds trained.
pub(super) type Quality = BTreeMap<RunId, BTreeMap<u32, f64>>;

pub(super) fn snapshot(
    coordinator: &Coordinator,
    quality: &Quality,
    fleet: &str,
    broker: &Broker,
    teller: &Teller,
) -> Snapshot {
    let devices = coordinator.devices();
    let mut runs: Vec<RunView> = coordinator
        .runs()
        .values()
        .map(|run| RunView {
            summary: run.summary().clone(),
            current: round(run, devices),
            quality: quality.get(run.id()).map(last_points).unwrap_or_default(),
        })
        .collect();
    runs.sort_by_key(|run| std::cmp::Reverse(run.summary.began));
    let (errors, errors_total) = teller.faults();
    Snapshot {
        time: super::now(),
        fleet: fleet.to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        broker: broker.clone(),
        runs,
        devices: devices.iter().map(|(name, device)| device_view(name, device)).collect(),
        errors,
        errors_total,
        refused: coordinator.refused().clone(),
    }
}

pub(super) fn device_view(name: &DeviceName, device: &Device) -> DeviceView {
    let presence = &device.presence;
    DeviceView {
        name: name.clone(),
        online: presence.online,
        labels: presence.labels.clone(),
        engine: presence.engine.clone(),
        version: presence.version.clone(),
        examples: presence.examples,
        problem: presence.problem.clone(),
        last_seen: device.last_seen,
        last_refusal: device.last_refusal.clone(),
    }
}

fn last_points(points: &BTreeMap<u32, f64>) -> Vec<(u32, f64)> {
    let skip = points.len().saturating_sub(POINTS);
    points.iter().skip(skip).map(|(&round, &value)| (round, value)).collect()
}

/// The round of a run that goes on, or is waited for.
pub(super) fn round(run: &Run, devices: &BTreeMap<DeviceName, Device>) -> Option<RoundView> {
    let summary = run.summary();
    if summary.status.is_final() {
        return None;
    }
    let plan = run.plan();
    let needed = plan.fewest_present();
    let member =
        |device: &DeviceName, state| MemberView { device: device.clone(), state, step: 0, steps: 0, loss: None };
    let Some(Current { cohort, accepted, progress }) = run.collecting() else {
        let fits = |(name, device): &(&DeviceName, &Device)| device.candidate(name).is_some_and(|c| c.fits(plan));
        let could = devices.iter().filter(fits);
        return Some(RoundView {
            round: run.round(),
            phase: if summary.status == Status::Paused { Phase::Resting } else { Phase::Selecting },
            began: summary.began,
            deadline: None,
            received: 0,
            cohort: could.map(|(name, _)| member(name, MemberState::Asked)).collect(),
            needed,
            again: run.due().filter(|&due| due != u64::MAX && due > super::now()),
        });
    };
    let (began, deadline, refusals) = run.window()?;
    let fetches = |device: &Device| device.presence.online && device.presence.fetching.contains(&plan.model.bundle);
    let members = cohort.iter().map(|name| {
        let progress = progress.get(name.as_str());
        let state = match (accepted.contains(name), refusals.contains_key(name.as_str()), progress) {
            (true, _, _) => MemberState::Received,
            (_, true, _) => MemberState::Declined,
            (_, _, Some(_)) => MemberState::Training,
            _ if devices.get(name).is_some_and(fetches) => MemberState::Fetching,
            _ => MemberState::Asked,
        };
        MemberView {
            step: progress.map_or(0, |p| p.step),
            steps: progress.map_or(0, |p| p.steps),
            loss: progress.map(|p| p.loss),
            ..member(name, state)
        }
    });
    Some(RoundView {
        round: run.round(),
        phase: Phase::Collecting,
        began,
        deadline: Some(deadline),
        received: accepted.len(),
        cohort: members.collect(),
        needed,
        again: None,
    })
}
