//! What a budget buys and what a target costs.

use super::Run;
use super::curve::{Curve, Point};
use super::overview::table;
use super::plot::{Plot, Series};
use super::text::{bytes, duration, energy, escape, quality};

/// One kind of cost.
struct Cost {
    name: &'static str,
    of: fn(&Point) -> Option<f64>,
    format: fn(f64) -> String,
    /// round numbers of it
    round: fn(f64) -> Vec<f64>,
}

const COSTS: [Cost; 3] = [
    Cost { name: "Bytes, both ways", of: |p| Some(p.bytes), format: bytes, round: decimal },
    Cost { name: "Time", of: |p| Some(p.seconds), format: duration, round: clock },
    Cost { name: "Energy, as boards report it", of: |p| p.joules, format: energy, round: decimal },
];

/// The costs a plot is worth.
const PLOTTED: [&str; 2] = [COSTS[0].name, COSTS[1].name];

/// Budgets shown of each kind.
const BUDGETS: usize = 5;

/// At most [`BUDGETS`] of them, evenly spread, the last included.
fn spread(budgets: Vec<f64>) -> Vec<f64> {
    let n = budgets.len();
    let shown = n.min(BUDGETS);
    (1..=shown).map(|i| budgets[(i * n).div_ceil(shown) - 1]).collect()
}

/// 1, 2 and 5 times powers of ten up to `most`.
fn decimal(most: f64) -> Vec<f64> {
    let powers = 0..=(most.max(1.0).log10().ceil() as i32);
    let all = powers.flat_map(|p| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(p)));
    all.filter(|&x| x <= most).collect()
}

/// Spans of time people think in up to `most`.
fn clock(most: f64) -> Vec<f64> {
    let units = [(1.0, [1.0, 2.0, 5.0, 10.0, 20.0, 30.0]), (60.0, [1.0, 2.0, 5.0, 10.0, 20.0, 30.0])];
    let short = units.iter().flat_map(|(unit, counts)| counts.map(|n| n * unit));
    let long = [1.0, 2.0, 4.0, 8.0, 12.0, 24.0, 48.0, 96.0, 168.0, 336.0, 672.0].map(|hours| hours * 3600.0);
    short.chain(long).filter(|&x| x <= most).collect()
}

/// The metric of most use here: the first run's; runs of another are not compared.
fn metric<'a>(runs: &'a [Run<'_>]) -> Option<&'a Curve> {
    runs.iter().map(|r| &r.curve).find(|c| !c.points.is_empty())
}

fn comparable<'a, 'b>(run: &'a Run<'b>, curve: &Curve) -> Option<&'a Curve> {
    (run.curve.metric == curve.metric).then_some(&run.curve)
}

fn after(point: &Point) -> String {
    format!(" <small class=\"rounds\">{} {}</small>", point.rounds, if point.rounds == 1 { "round" } else { "rounds" })
}

pub(super) fn budget(runs: &[Run<'_>]) -> String {
    let Some(first) = metric(runs) else { return String::new() };
    let mut figures = String::new();
    let mut tables = String::new();
    for Cost { name, of, format, round } in &COSTS {
        let curves = runs.iter().filter_map(|run| Some((run, comparable(run, first)?)));
        let series = curves.map(|(run, curve)| Series {
            name: run.name.clone(),
            colour: run.colour,
            dashed: false,
            points: curve.best_so_far().filter_map(|(p, best)| Some((of(p)?, best))).collect(),
        });
        let series: Vec<Series> = series.collect();
        let totals = series.iter().filter_map(|s| s.points.iter().map(|p| p.0).reduce(f64::max)).filter(|&t| t > 0.0);
        let totals: Vec<f64> = totals.collect();
        let Some(most) = totals.iter().copied().reduce(f64::max) else { continue };
        let least = totals.iter().copied().fold(most, f64::min);
        let title = format!("{} over {}", first.metric, name.to_lowercase());
        let y_format = |y| quality(&first.metric, y);
        let plot = Plot {
            title: &title,
            x_label: name,
            x_format: format,
            y_format: &y_format,
            log_x: Some(*round),
            from_zero: false,
            series,
        };
        if PLOTTED.contains(name) {
            figures += &plot.figure();
        }

        let budgets = spread(round(most).into_iter().filter(|&b| b > least / 40.0).collect());
        let cell = |run: &Run<'_>, budget: f64| {
            let within = |p: &Point| of(p).is_some_and(|cost| cost <= budget);
            let best = comparable(run, first).and_then(|curve| curve.best_within(within));
            best.map_or("–".into(), |p| quality(&first.metric, p.value) + &after(p))
        };
        let mut rows: Vec<(String, Vec<String>)> = budgets
            .into_iter()
            .map(|budget| (format(budget), runs.iter().map(|run| cell(run, budget)).collect()))
            .collect();
        rows.push(("no limit".into(), runs.iter().map(|run| cell(run, f64::INFINITY)).collect()));
        tables += &format!("<div class=\"card\"><h3>{name}</h3>{}</div>", table(runs, &rows));
    }
    if tables.is_empty() {
        return String::new();
    }
    let grid = if runs.len() > 1 { "stack" } else { "thirds" };
    format!(
        "<section><h2>What does a budget buy?</h2><p>The best {} a run has reached by the time it has used so much, all \
         devices together.</p><div class=\"plots\">{figures}</div><div class=\"{grid}\">{tables}</div></section>",
        escape(&first.metric)
    )
}

/// Values between the start and the best of all runs, of two decimals.
fn targets(runs: &[Run<'_>], first: &Curve) -> Vec<f64> {
    let curves = || runs.iter().filter_map(|run| comparable(run, first));
    let worst = |a: f64, b: f64| if first.better(a, b) { b } else { a };
    let start = curves().filter_map(|c| c.points.first()).map(|p| p.value).reduce(worst);
    let best = curves().filter_map(|c| c.best()).map(|p| p.value).reduce(|a, b| if first.better(a, b) { a } else { b });
    let (Some(start), Some(best)) = (start, best) else { return Vec::new() };
    let mut targets: Vec<f64> = Vec::new();
    for share in [0.5, 0.75, 0.9, 0.97] {
        let exact = start + share * (best - start);
        // Rounded towards the start, so that a target is never beyond the best.
        let rounded = if best > start { (exact * 100.0).floor() / 100.0 } else { (exact * 100.0).ceil() / 100.0 };
        if first.better(rounded, start) && !targets.contains(&rounded) {
            targets.push(rounded);
        }
    }
    targets
}

pub(super) fn target(runs: &[Run<'_>]) -> String {
    let Some(first) = metric(runs) else { return String::new() };
    let cell = |run: &Run<'_>, target: f64| {
        let Some(point) = comparable(run, first).and_then(|curve| curve.reached(target)) else {
            return "<span class=\"never\">not reached</span>".to_string();
        };
        let costs = COSTS.iter().filter_map(|cost| Some((cost.format)((cost.of)(point)?)));
        let costs: Vec<String> = costs.collect();
        format!("<b>{} rounds</b> <small class=\"cost\">{}</small>", point.rounds, costs.join(" · "))
    };
    let rows: Vec<(String, Vec<String>)> = targets(runs, first)
        .into_iter()
        .map(|target| (quality(&first.metric, target), runs.iter().map(|run| cell(run, target)).collect()))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<section><h2>What does a target cost?</h2><p>When the global adapter first measured so much {}, and what had \
         been used by then.</p><div class=\"card\">{}</div></section>",
        escape(&first.metric),
        table(runs, &rows)
    )
}
