//! Updates that are put together and kept in files.

use super::*;

#[test]
fn updates_too_long_for_memory_count_as_short_ones_do_also_after_restarts() {
    let mut plan = plan(2);
    plan.adapter.method = fedtt_tt::config::Method::Dense;
    plan.adapter.bottleneck = 2500;
    plan.wire.chunk = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let long = || std::fs::read_dir(folder.path().join("updates")).unwrap().count();
    let finish = |mut fleet: Fleet, crash: bool, check: &dyn Fn()| {
        fleet.crash = crash;
        for round in 0..3 {
            assert_eq!(fleet.deliver(0, fleet.update(0, round as f32, 10)), Outcome::Accepted);
            check();
            assert_eq!(fleet.deliver(1, fleet.update(1, -0.3, 20)), Outcome::Accepted);
        }
        fleet.round(&[0.0, 0.0]);
        assert_eq!(fleet.status(), Status::Finished);
        fleet.adapter()
    };
    let expected = finish(Fleet::new(plan.clone(), 2), false, &|| ());
    let open = |name: &str| Store::open(&folder.path().join(name)).unwrap();
    for (name, crash) in [("a.redb", false), ("b.redb", true)] {
        let fleet = Fleet::over(open(name), plan.clone(), 2);
        assert!(fleet.coordinator.runs()[&fleet.run].layout().values() * 4 > 512 << 10, "longer than what is short");
        assert_eq!(finish(fleet, crash, &|| assert_eq!(long(), 1)), expected);
        assert_eq!(long(), 0, "nothing is left behind");
    }
}
