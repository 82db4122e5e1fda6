//! A run's end waits for what the host measures.

use super::*;
use crate::record::Measured;
use crate::run::Effect;

/// A run of so many rounds that the host measures, and devices do not; the first is trained.
fn begun(rounds: u32) -> Fleet {
    let mut plan = Plan { rounds, ..plan(2) };
    plan.evaluation.clients = false;
    let mut fleet = Fleet::new(plan, 2);
    fleet.coordinator.measures(fleet.run.clone());
    fleet.wait(1);
    fleet.round(&[1.0, 3.0]);
    fleet
}

/// A run of one round, which is trained.
fn trained() -> Fleet {
    let fleet = begun(1);
    assert_eq!((fleet.status(), fleet.asked.as_slice()), (Status::Running, &[0][..]));
    fleet
}

fn give(fleet: &mut Fleet, input: Input) {
    let effects = fleet.coordinator.handle(vec![input], fleet.now).unwrap();
    fleet.take(effects);
}

fn measured(fleet: &Fleet, round: u32) -> Input {
    let measured = Measured { examples: 5, loss: 0.5, metric: "accuracy".into(), value: 0.8 };
    let values = fleet.values();
    Input::Measured { run: fleet.run.clone(), round, values, measured }
}

#[test]
fn a_run_is_over_when_the_host_has_measured_its_last_adapter() {
    let mut fleet = trained();
    assert_eq!(fleet.manifest().goal, fedtt_wire::message::Goal::Rest, "devices have nothing more to do");
    let refused = fleet.coordinator.command(fleet.run.as_str(), Command::Pause, fleet.now).unwrap_err();
    assert!(refused.to_string().contains("measures"), "{refused}");
    let of_another = measured(&fleet, 7);
    give(&mut fleet, of_another);
    assert_eq!(fleet.status(), Status::Running);
    let last = measured(&fleet, 0);
    give(&mut fleet, last);
    assert_eq!(fleet.status(), Status::Finished);
    let end = fleet.events.iter().position(|e| matches!(e, What::Status { status: Status::Finished, .. })).unwrap();
    let said = fleet.events.iter().rposition(|e| matches!(e, What::Measured { .. })).unwrap();
    assert!(said < end, "whoever hears of the end finds the measurement");
    assert!(fleet.retained.is_empty());
}

#[test]
fn a_host_that_was_restarted_is_asked_again() {
    let mut fleet = trained();
    fleet.reconnect();
    fleet.wait(1);
    assert_eq!((fleet.status(), fleet.asked.as_slice()), (Status::Running, &[0, 0][..]));
    let last = measured(&fleet, 0);
    give(&mut fleet, last);
    assert_eq!(fleet.status(), Status::Finished);
}

#[test]
fn what_cannot_be_measured_is_not_waited_for() {
    let mut fleet = trained();
    let run = fleet.run.clone();
    give(&mut fleet, Input::Unmeasured { run: run.clone(), round: 0, reason: "the file is gone".into() });
    assert_eq!(fleet.status(), Status::Finished);
    let reason = fleet.coordinator.runs()[&run].summary().reason.clone().unwrap();
    assert!(reason.contains("the file is gone"), "{reason}");
    let mut stopped = trained();
    stopped.command(Command::Stop);
    assert_eq!(stopped.status(), Status::Stopped);
}

#[test]
fn what_was_measured_late_is_told_of_the_round_it_was() {
    let mut fleet = begun(3);
    fleet.round(&[1.0, 3.0]);
    let first = measured(&fleet, 0);
    let effects = fleet.coordinator.handle(vec![first], fleet.now).unwrap();
    let told = effects.into_iter().find_map(|effect| match effect {
        Effect::Event(event) if matches!(event.what, What::Measured { .. }) => Some(event.round),
        _ => None,
    });
    assert_eq!(told, Some(1), "not of the third, which goes on");
}
