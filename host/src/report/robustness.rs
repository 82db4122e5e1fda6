//! What dropout, skew and attacks cost.

use super::Run;
use super::overview::{row, table};
use super::text::{count, difference, number, percent, quality};
use crate::record::{Contribution, RoundRecord};

/// Sums over a run's rounds.
#[derive(Default)]
struct Sums {
    asked: u64,
    answered: u64,
    left_out: u64,
    declined: u64,
    repeated: u64,
    largest_share: f64,
    effective: f64,
    rounds: f64,
}

fn sums(rounds: &[RoundRecord]) -> Sums {
    let mut sums = Sums::default();
    for round in rounds {
        sums.asked += round.cohort as u64;
        sums.answered += round.contributions.len() as u64;
        sums.left_out += round.left_out.len() as u64;
        let answered = |name: &&String| round.all().any(|(other, _)| other == *name);
        sums.declined += round.refusals.keys().filter(|name| !answered(name)).count() as u64;
        sums.repeated += u64::from(round.attempts.saturating_sub(1));
        let weights = || round.contributions.values().map(|c| c.weight);
        let squares: f64 = weights().map(|w| w * w).sum();
        if squares > 0.0 {
            sums.largest_share = sums.largest_share.max(weights().fold(0.0, f64::max));
            sums.effective += 1.0 / squares;
            sums.rounds += 1.0;
        }
    }
    sums
}

/// The quality every device saw last, from worst to best.
fn devices(run: &Run<'_>) -> Vec<f64> {
    let mut last = std::collections::BTreeMap::new();
    for round in &run.report.rounds {
        for (name, Contribution { measured, .. }) in &round.contributions {
            if let Some(measured) = measured.as_ref().filter(|m| m.value.is_finite()) {
                last.insert(name, measured.value);
            }
        }
    }
    let mut values: Vec<f64> = last.into_values().collect();
    values.sort_by(|a, b| if run.curve.better(*a, *b) { std::cmp::Ordering::Greater } else { a.total_cmp(b) });
    values
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".into();
    }
    format!("{} <small>{}</small>", count(part), percent(part as f64 / whole as f64))
}

/// The level of the run that ends best, among those of its metric.
fn best_level(runs: &[Run<'_>], metric: &str) -> Option<f64> {
    let comparable = runs.iter().filter(|r| r.curve.metric == metric);
    comparable
        .filter_map(|r| Some((r, r.curve.level()?.0)))
        .reduce(|a, b| if a.0.curve.better(b.1, a.1) { b } else { a })
        .map(|b| b.1)
}

pub(super) fn section(runs: &[Run<'_>]) -> String {
    let level = |run: &Run<'_>| {
        let metric = &run.curve.metric;
        let level = run.curve.level();
        level.map_or("–".into(), |(mean, deviation)| {
            let deviation = difference(metric, deviation).replace(['+', '−'], "");
            format!("<b>{}</b> <small>± {deviation}</small>", quality(metric, mean))
        })
    };
    let behind = |run: &Run<'_>| {
        let metric = &run.curve.metric;
        match (run.curve.level(), best_level(runs, metric)) {
            (Some((own, _)), Some(best)) if own == best => "<b>best</b>".to_string(),
            (Some((own, _)), Some(best)) => difference(metric, own - best),
            _ => "–".into(),
        }
    };
    let fall = |run: &Run<'_>| match run.curve.points.len() {
        0 | 1 => "–".into(),
        _ => difference(&run.curve.metric, run.curve.deepest_fall()).replace('+', ""),
    };
    let quality_of = |run: &Run<'_>| match devices(run).as_slice() {
        [] => "–".into(),
        values => {
            let at = |value: f64| quality(&run.curve.metric, value);
            let (worst, middle, best) = (values[0], values[values.len() / 2], values[values.len() - 1]);
            format!(
                "{} <small>worst</small> · {} <small>median</small> · {} <small>best</small>",
                at(worst),
                at(middle),
                at(best)
            )
        }
    };
    let messages = |run: &Run<'_>| {
        let refused = &run.report.summary.refused;
        let kinds = [
            (refused.late, "late"),
            (refused.duplicate, "duplicate"),
            (refused.foreign, "foreign"),
            (refused.malformed, "malformed"),
            (refused.outlying, "outlying"),
        ];
        let some: Vec<String> =
            kinds.iter().filter(|k| k.0 > 0).map(|(n, kind)| format!("{} {kind}", count(*n))).collect();
        if some.is_empty() { "none".into() } else { some.join(" · ") }
    };
    let total = |run: &Run<'_>| sums(&run.report.rounds);

    let mut end = vec![row("Level at the end, last five measurements", runs, level)];
    if runs.len() > 1 {
        end.push(row("Against the best run here", runs, behind));
    }
    end.push(row("Deepest fall on the way", runs, fall));
    let dropout = [
        row("Asked to take part", runs, |run| count(total(run).asked)),
        row("Contributed", runs, |run| share(total(run).answered, total(run).asked)),
        row("Contributed nothing for being out of proportion", runs, |run| {
            share(total(run).left_out, total(run).asked)
        }),
        row("Declined or were away", runs, |run| share(total(run).declined, total(run).asked)),
        row("Did not contribute otherwise", runs, |run| {
            let Sums { asked, answered, left_out, declined, .. } = total(run);
            share(asked.saturating_sub(answered + left_out + declined), asked)
        }),
        row("Rounds begun again", runs, |run| count(total(run).repeated)),
    ];
    let skew = [
        row("Quality on devices, as each saw it last", runs, quality_of),
        row("Largest share of one device in a mean", runs, |run| percent(total(run).largest_share)),
        row("Devices a mean is worth", runs, |run| {
            let Sums { effective, rounds, .. } = total(run);
            if rounds > 0.0 { number(effective / rounds) } else { "–".into() }
        }),
    ];
    let attacks = [row("Messages refused, never aggregated", runs, messages)];
    let card = |title: &str, rows: &[(String, Vec<String>)]| {
        format!("<div class=\"card\"><h3>{title}</h3>{}</div>", table(runs, rows))
    };
    format!(
        "<section><h2>What do dropout, skew and attacks cost?</h2><p>How steady the result is, and what it had to stand.{}\
         </p><div class=\"{}\">{}{}{}{}</div></section>",
        if runs.len() > 1 { " Compare a run with faults to the same plan without." } else { "" },
        if runs.len() > 1 { "stack" } else { "halves" },
        card("Result", &end),
        card("Dropout", &dropout),
        card("Skew", &skew),
        card("Attacks and faults", &attacks)
    )
}
