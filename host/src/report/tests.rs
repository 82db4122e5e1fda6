#![allow(clippy::unwrap_used, clippy::panic)]

use fedtt_wire::names::{DeviceName, RunId};

use super::curve::Source;
use super::*;
use crate::record::{Contribution, Measured, Status, Traffic};

/// Rounds whose adapter measured `values` before each of them; every round costs 100 bytes up, 50 down and 2 seconds.
fn run(name: &str, values: &[f64]) -> RunReport {
    let measured = |value| Measured { examples: 10, loss: 1.0 - value, metric: "accuracy".into(), value };
    let traffic = Traffic { up: 100, down: 50 };
    let rounds = values.iter().enumerate().map(|(i, &value)| RoundRecord {
        round: i as u32,
        attempts: 1,
        seconds: 2.0,
        cohort: 2,
        trained: 30,
        contributions: [("a".to_string(), Contribution { weight: 1.0, traffic, ..Contribution::default() })].into(),
        refusals: [("b".to_string(), "quiet <hours> & \"rest\"".to_string())].into(),
        before: Some(measured(value)),
        traffic,
        ..RoundRecord::default()
    });
    let rounds: Vec<RoundRecord> = rounds.collect();
    let summary = RunSummary {
        run: RunId::new("run-1").unwrap(),
        name: name.into(),
        status: Status::Finished,
        reason: None,
        rounds_done: rounds.len() as u32,
        rounds: rounds.len() as u32,
        values: 30,
        began: 1_795_365_000_000,
        ended: None,
        best: None,
        last: None,
        traffic,
        updates: rounds.len() as u64,
        refused: Default::default(),
        devices: vec![DeviceName::new("a").unwrap(), DeviceName::new("b").unwrap()],
    };
    RunReport { summary, plan: Plan::default(), rounds }
}

#[test]
fn names_and_reasons_from_outside_are_escaped() {
    let page = html(&[run("<img src=x onerror=alert(1)>", &[0.5, 0.7, 0.8])]);
    assert!(!page.contains("<img"));
    assert!(!page.contains("quiet <hours>"));
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;"));
    assert!(page.contains("quiet &lt;hours&gt; &amp; &quot;rest&quot;"));
}

#[test]
fn the_page_stands_alone() {
    let page = html(&[run("a", &[0.5, 0.7]), run("b", &[0.4, 0.6])]);
    for outside in ["http", "src=", "href=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn every_tag_that_opens_closes() {
    let one = run("one", &[0.5, 0.7, 0.8]);
    for runs in [vec![], vec![one.clone()], vec![one.clone(), run("two", &[]), run("three", &[f64::NAN, 0.2])]] {
        let page = html(&runs);
        for tag in
            ["section", "div", "table", "tr", "td", "figure", "svg", "details", "dl", "ul", "li", "g", "p", "small"]
        {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag} with {} runs", runs.len());
        }
        assert!(!page.contains("NaN") && !page.contains("inf\""), "a number that is none");
    }
}

#[test]
fn a_measurement_costs_what_was_used_before_it() {
    let curve = Curve::of(&run("a", &[0.5, 0.9, 0.8, 0.85]));
    assert_eq!(curve.source, Source::Devices);
    let costs: Vec<_> = curve.points.iter().map(|p| (p.rounds, p.bytes, p.seconds)).collect();
    assert_eq!(costs, [(0, 0.0, 0.0), (1, 150.0, 2.0), (2, 300.0, 4.0), (3, 450.0, 6.0)]);
    assert_eq!(curve.best().map(|p| p.rounds), Some(1));
    assert_eq!(curve.best_within(|p| p.bytes < 100.0).map(|p| p.value), Some(0.5));
    assert_eq!(curve.reached(0.8).map(|p| p.rounds), Some(1));
    assert_eq!(curve.reached(0.95), None);
    assert_eq!(curve.best_so_far().map(|(_, best)| best).collect::<Vec<_>>(), [0.5, 0.9, 0.9, 0.9]);
    assert!((curve.deepest_fall() - 0.1).abs() < 1e-12);
}

#[test]
fn where_the_host_measures_its_figures_lead_and_come_after_the_round() {
    let mut report = run("a", &[0.5, 0.6]);
    for (record, value) in report.rounds.iter_mut().zip([0.65, 0.75]) {
        record.after = Some(Measured { value, ..record.before.clone().unwrap() });
    }
    let curve = Curve::of(&report);
    assert_eq!(curve.source, Source::Host);
    let points: Vec<_> = curve.points.iter().map(|p| (p.rounds, p.value, p.bytes)).collect();
    assert_eq!(points, [(1, 0.65, 150.0), (2, 0.75, 300.0)]);
}

#[test]
fn where_less_is_better_the_least_is_best() {
    let mut report = run("a", &[3.5, 2.5, 2.9]);
    report.rounds.iter_mut().for_each(|r| r.before.as_mut().unwrap().metric = "nats per token".into());
    let curve = Curve::of(&report);
    assert_eq!(curve.best().map(|p| p.value), Some(2.5));
    assert_eq!(curve.reached(2.9).map(|p| p.rounds), Some(1));
    assert!((curve.deepest_fall() - 0.4).abs() < 1e-12);
}

#[test]
fn numbers_read_as_people_write_them() {
    let cases = [
        (text::bytes(0.0), "0 B"),
        (text::bytes(999.0), "999 B"),
        (text::bytes(40_960.0), "41 KB"),
        (text::bytes(1_234_567.0), "1.23 MB"),
        (text::duration(0.25), "250 ms"),
        (text::duration(12.34), "12.3 s"),
        (text::duration(60.0), "1 min"),
        (text::duration(3725.0), "1 h 2 min"),
        (text::duration(90_000.0), "1 d 1 h"),
        (text::number(-0.0456), "−0.0456"),
        (text::number(1234.4), "1234"),
        (text::number(f64::NAN), "–"),
        (text::quality("accuracy", 0.9534), "95.3 %"),
        (text::quality("Pearson r", 0.8734), "0.873"),
        (text::difference("accuracy", -0.0123), "−1.2 points"),
        (text::moment(1_709_210_096_000), "2024-02-29 12:34 UTC"),
        (text::moment(0), "1970-01-01 00:00 UTC"),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
    assert_eq!(text::count(1_234_567), "1\u{202f}234\u{202f}567");
}

#[test]
fn energy_is_shown_where_boards_report_it() {
    let mut run = run("a", &[0.5, 0.7, 0.8]);
    let page = html(std::slice::from_ref(&run));
    assert!(!page.contains("Energy"), "no board reports it");
    for (round, joules) in run.rounds.iter_mut().zip([Some(100.0), None, Some(140.0)]) {
        let own = round.contributions.get_mut("a").unwrap();
        (own.joules, own.tokens) = (joules, 6000);
    }
    let page = html(&[run]);
    // 240 J in the two rounds that are known, 12 000 tokens in them.
    for part in
        ["Energy a round", "Tokens per joule", "<td>240 J</td><td>120 J</td><td>50</td>", "Energy, as boards report it"]
    {
        assert!(page.contains(part), "{part}");
    }
}
