//! Runs that are over: their values are in the store alone, until they are removed.

use fedtt_wire::message::Measurement;

use super::*;

/// A run that is over, in a file.
fn finished(path: &std::path::Path) -> Fleet {
    let mut fleet = Fleet::over(Store::open(path).unwrap(), Plan { rounds: 2, ..plan(2) }, 2);
    for loss in [0.3, 0.1, 0.2] {
        for i in 0..2 {
            let measured = Measurement { examples: 5, loss, metric: "accuracy".into(), value: 0.5 };
            let update = Update { measured: Some(measured), sent: 1000, ..fleet.update(i, 1.5 + i as f32, 10) };
            assert_eq!(fleet.deliver(i, update), Outcome::Accepted);
        }
    }
    assert_eq!(fleet.status(), Status::Finished);
    fleet
}

/// The same after a restart.
fn restarted(mut fleet: Fleet, path: &std::path::Path) -> Fleet {
    fleet.coordinator = Coordinator::open(Store::memory().unwrap(), 0).unwrap();
    fleet.coordinator = Coordinator::open(Store::open(path).unwrap(), fleet.now).unwrap();
    fleet.wait(1);
    fleet
}

fn best(fleet: &Fleet) -> Vec<ArrayD<f32>> {
    let changes = fleet.coordinator.store().begin().unwrap();
    fleet.coordinator.runs()[&fleet.run].best_values(&changes).unwrap()
}

fn remove(fleet: &mut Fleet, runs: &[&str]) -> Result<usize, String> {
    let runs: Vec<String> = runs.iter().map(ToString::to_string).collect();
    let removed = fleet.coordinator.remove(&runs, fleet.now).map_err(|e| e.to_string())?;
    fleet.wait(1);
    Ok(removed.len())
}

#[test]
fn a_run_that_is_over_holds_no_values_and_still_has_its_best_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.redb");
    let held = |fleet: &Fleet| {
        let global = &fleet.coordinator.runs()[&fleet.run].global;
        global.values.len() + global.whole(&fleet.run).tensors.len()
    };
    let live = Fleet::new(plan(2), 2);
    assert_eq!(held(&live), 2 * live.values().len());
    let fleet = finished(&path);
    let (last, best_of_all) = (fleet.values(), best(&fleet));
    assert_ne!(last, best_of_all, "the best is the adapter after one round of two");
    assert_eq!(held(&fleet), 0);
    let fleet = restarted(fleet, &path);
    assert_eq!((held(&fleet), fleet.status()), (0, Status::Finished));
    assert!(fleet.values() == last && best(&fleet) == best_of_all);
}

#[test]
fn a_run_that_was_stopped_before_it_was_measured_keeps_its_values_in_the_store() {
    let mut fleet = Fleet::new(plan(1), 1);
    fleet.round(&[1.0]);
    let expected = fleet.manifest().state;
    fleet.command(Command::Stop);
    assert_eq!((fleet.adapter(), Digest::of_values(&best(&fleet))), (expected, expected));
    fleet.reconnect();
    assert_eq!(Digest::of_values(&best(&fleet)), expected);
}

#[test]
fn runs_are_removed_for_good_and_their_ids_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.redb");
    let mut fleet = finished(&path);
    fleet.retained.insert(format!("{:?}", Topic::Plan(fleet.run.clone())), b"left by a host that was killed".to_vec());
    fleet.coordinator.start(plan(2), blueprint(), Some("other"), 0).unwrap();
    assert_eq!(remove(&mut fleet, &["test-1", "test-1"]), Ok(1));
    assert!(!fleet.retained.keys().any(|topic| topic.contains("test-1")), "{:?}", fleet.retained.keys());
    assert!(remove(&mut fleet, &["test-1"]).unwrap_err().contains("fedtt run list"));
    fleet.ended = false;
    let mut fleet = restarted(fleet, &path);
    assert_eq!(fleet.coordinator.runs().keys().map(|run| run.as_str()).collect::<Vec<_>>(), ["test-2"]);
    assert!(fleet.ended, "cleared once more, as the host may have been killed before it could");
    let (run, fresh) = fleet.coordinator.start(plan(2), blueprint(), Some("token"), fleet.now).unwrap();
    assert_eq!((run.as_str(), fresh), ("test-3", true), "the token starts anew, under an id nobody had");
    fleet.ended = false;
    fleet.now += 25 * 3_600_000;
    fleet.reconnect();
    assert!(!fleet.ended, "not for ever");
}

#[test]
fn a_run_that_goes_on_is_not_removed_nor_any_named_with_it() {
    let mut fleet = Fleet::new(plan(1), 1);
    let (other, _) = fleet.coordinator.start(plan(1), blueprint(), None, 0).unwrap();
    fleet.command(Command::Stop);
    for command in [None, Some(Command::Pause)] {
        command.map(|command| fleet.coordinator.command(other.as_str(), command, fleet.now).unwrap());
        let refused = remove(&mut fleet, &["test-1", "test-2"]).unwrap_err();
        assert!(refused.contains("test-2 is") && refused.contains("`fedtt run stop test-2`"), "{refused}");
        assert_eq!(fleet.coordinator.runs().len(), 2);
    }
    fleet.coordinator.command(other.as_str(), Command::Stop, fleet.now).unwrap();
    assert_eq!(remove(&mut fleet, &["test-1", "test-2"]), Ok(2));
}

#[test]
fn what_devices_sent_of_a_round_that_was_stopped_goes_with_the_round() {
    let mut long = plan(2);
    long.adapter.method = fedtt_tt::config::Method::Dense;
    long.adapter.bottleneck = 2500;
    long.wire.chunk = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let files = || std::fs::read_dir(folder.path().join("updates")).unwrap().count();
    let mut fleet = Fleet::over(Store::open(&folder.path().join("host.redb")).unwrap(), long, 2);
    assert_eq!(fleet.deliver(0, fleet.update(0, 1.0, 10)), Outcome::Accepted);
    let payload = Message::from(fleet.update(1, 1.0, 10)).encode(0).unwrap();
    let part = chunk::split(&fleet.run, 0, &payload, payload.len() / 2).remove(0);
    fleet.send(Topic::Up(device(1)), Message::from(part).encode(3).unwrap());
    assert_eq!(files(), 2);
    fleet.command(Command::Stop);
    assert_eq!(files(), 0, "of no use to a run that is over");
    assert_eq!(remove(&mut fleet, &["test-1"]), Ok(1));
    let late = fleet.coordinator.handle(Vec::new(), fleet.now).unwrap();
    assert!(late.is_empty());
}
