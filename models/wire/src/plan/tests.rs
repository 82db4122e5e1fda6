#![allow(clippy::unwrap_used)]

use super::*;

fn plan(text: &str) -> Result<(), String> {
    let labelled = format!("{text}\n[model]\nlabels = ['a', 'b']\n");
    let plan: Plan = toml::from_str(&labelled).map_err(|e| e.to_string())?;
    plan.validate().map_err(|e| e.to_string())
}

#[test]
fn a_plan_of_labels_alone_is_whole() {
    plan("").unwrap();
}

#[test]
fn every_setting_out_of_range_is_named() {
    let cases = [
        ("rounds = 0", "`rounds`"),
        ("[local]\nsteps = 0", "`local.steps`"),
        ("[local]\nprox = -1.0", "`local.prox`"),
        ("[local]\nclip = nan", "`local.clip`"),
        ("[local]\nlogit_adjustment = 5.0", "`local.logit_adjustment`"),
        ("[local]\nlogit_adjustment = 1.0\n[adapter.head]\nbias = false", "`local.logit_adjustment`"),
        ("[local]\nepsilon = 0.0", "`local.epsilon`"),
        ("[local]\nclass_balance = 1.5", "`local.class_balance`"),
        ("[selection]\ncount = 2\nfraction = 0.5", "`selection.count`"),
        ("[selection]\ncount = 2\nmin = 3", "`selection.min`"),
        ("[selection]\nover = 0.5", "`selection.over`"),
        ("[collection]\ncount = { min = 3, max = 2 }", "`collection.count`"),
        ("[aggregation]\ntrim = 0.5", "`aggregation.trim`"),
        ("[aggregation.server]\nrate = 0.0", "`aggregation.server.rate`"),
        ("[wire]\nchunk = 10", "`wire.chunk`"),
        ("[wire]\nuplink = { encoding = 'int8', delta = false }", "`wire.uplink.delta`"),
        ("[wire]\nuplink = { encoding = 'bf16', delta = false }", "`wire.uplink.feedback`"),
        ("[evaluation]\nevery = 0", "`evaluation.every`"),
        ("[schedule]\ncount = 0", "`schedule.count`"),
        ("[adapter]\nbottleneck = 0", "`adapter`"),
    ];
    for (text, field) in cases {
        let error = plan(text).unwrap_err();
        assert!(error.contains(field), "{text}: {error}");
    }
    assert!(plan("[local]\nstep = 3").unwrap_err().contains("unknown field `step`"));
    let unlabelled = Plan::default().validate().unwrap_err().to_string();
    assert!(unlabelled.contains("`model.labels`"), "{unlabelled}");
}

#[test]
fn cohorts_and_windows_follow_their_bounds() {
    let all = SelectionPlan::default();
    assert_eq!((all.wanted(7), all.asked(7, 7)), (7, 7));
    let some = SelectionPlan { fraction: Some(0.1), over: 1.5, ..SelectionPlan::default() };
    assert_eq!((some.wanted(100), some.asked(10, 100), some.wanted(3)), (10, 15, 1));
    let few = SelectionPlan { count: Some(5), over: 3.0, ..SelectionPlan::default() };
    assert_eq!((few.wanted(100), few.asked(5, 6), few.wanted(2)), (5, 6, 2));
    let usual = CollectionPlan::default();
    assert_eq!((usual.fewest(7), usual.most(7), usual.shortest(), usual.longest()), (4, 7, 600_000, 600_000));
    let short = CollectionPlan { time: Bounds { min: None, max: Some(20) }, ..usual };
    assert_eq!((short.shortest(), short.longest()), (20_000, 20_000));
}
