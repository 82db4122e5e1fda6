//! Several inputs that become one transaction.

use super::*;

fn inputs(fleet: &Fleet, i: usize) -> Vec<Input> {
    let payload = Message::from(fleet.update(i, 1.0, 10)).encode(3).unwrap();
    let chunks = chunk::split(&fleet.run, fleet.manifest().round, &payload, 1024).into_iter();
    let bytes = |chunk| Message::from(chunk).encode(3).unwrap();
    chunks.map(|chunk| Input::Message { topic: Topic::Up(device(i)), payload: bytes(chunk) }).collect()
}

#[test]
fn updates_are_answered_by_the_commit_that_stores_them() {
    let mut fleet = Fleet::new(plan(3), 3);
    let updates = [0, 1, 2].map(|i| inputs(&fleet, i));
    assert!(!fleet.coordinator.expects_more(), "nothing was taken in");
    for (update, more) in updates.into_iter().zip([true, true, false]) {
        fleet.coordinator.take(update, fleet.now).unwrap();
        assert_eq!(fleet.coordinator.expects_more(), more, "with the last the round is over");
    }
    assert!(fleet.verdicts.is_empty() && fleet.manifest().round == 0);
    let effects = fleet.coordinator.commit().unwrap();
    fleet.take(effects);
    assert!(fleet.verdicts.len() == 3 && fleet.verdicts.iter().all(|(_, v)| v.outcome == Outcome::Accepted));
    assert_eq!(fleet.manifest().round, 1);
    assert!(fleet.coordinator.commit().unwrap().is_empty());
}

#[test]
fn a_command_comes_after_what_was_taken_in() {
    let mut fleet = Fleet::new(plan(2), 2);
    let update = inputs(&fleet, 0);
    fleet.coordinator.take(update, fleet.now).unwrap();
    fleet.command(Command::Pause);
    assert_eq!(fleet.verdicts[0].1.outcome, Outcome::Accepted);
    assert_eq!(fleet.deliver(1, fleet.update(1, 1.0, 10)), Outcome::Accepted);
    assert_eq!((fleet.status(), fleet.coordinator.runs()[&fleet.run].round()), (Status::Paused, 1));
}
