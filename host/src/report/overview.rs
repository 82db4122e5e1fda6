//! What the runs are and what they came to.

use super::curve::Source;
use super::text::{bytes, count, duration, escape, moment, quality};
use super::{Run, RunReport};
use crate::record::Status;

/// A table with a heading per run: rows of a label and one cell for each.
pub(super) fn table(runs: &[Run<'_>], rows: &[(String, Vec<String>)]) -> String {
    let heads: String = runs.iter().map(|run| format!("<th scope=\"col\">{}</th>", run.heading())).collect();
    let row = |(label, cells): &(String, Vec<String>)| {
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        format!("<tr><th scope=\"row\">{label}</th>{cells}</tr>")
    };
    let body: String = rows.iter().map(row).collect();
    let head = if runs.len() > 1 { format!("<thead><tr><td></td>{heads}</tr></thead>") } else { String::new() };
    let class = if runs.len() > 1 { "compare" } else { "compare one" };
    let columns = runs.len();
    format!(
        "<div class=\"scroll\"><table class=\"{class}\" style=\"--columns:{columns}\">{head}<tbody>{body}</tbody></table></div>"
    )
}

/// A row of [`table`]: `cell` of every run.
pub(super) fn row<'a>(label: &str, runs: &'a [Run<'a>], cell: impl Fn(&'a Run<'a>) -> String) -> (String, Vec<String>) {
    (label.to_string(), runs.iter().map(cell).collect())
}

fn status(report: &RunReport) -> String {
    let summary = &report.summary;
    let word = match summary.status {
        Status::Running => "running",
        Status::Pausing => "pausing",
        Status::Paused => "paused",
        Status::Finished => "finished",
        Status::Stopped => "stopped",
    };
    let reason = summary.reason.as_ref().map_or(String::new(), |r| format!(" <small>{}</small>", escape(r)));
    format!("<span class=\"status {word}\">{word}</span>{reason}")
}

fn seconds(report: &RunReport) -> f64 {
    report.rounds.iter().map(|r| r.seconds).sum()
}

/// Mean bytes of an update's payload; none without updates.
fn payload(report: &RunReport) -> Option<f64> {
    let payloads = || report.rounds.iter().flat_map(|r| r.contributions.values()).map(|c| c.payload as f64);
    let updates = payloads().count();
    (updates > 0).then(|| payloads().sum::<f64>() / updates as f64)
}

/// Least and most values that trained in a round.
fn trained(report: &RunReport) -> String {
    // Nothing trains where the last adapter is measured.
    let values = || report.rounds.iter().map(|r| r.trained).filter(|&trained| trained > 0);
    match (values().min(), values().max()) {
        (Some(least), Some(most)) if least < most => format!("{} to {}", count(least), count(most)),
        (Some(one), _) => count(one),
        _ => "–".into(),
    }
}

fn best(run: &Run<'_>) -> String {
    let found = run.curve.best();
    found.map_or("–".into(), |p| quality(&run.curve.metric, p.value))
}

/// A sentence on the whole.
pub(super) fn lead(runs: &[Run<'_>]) -> String {
    match runs {
        [] => "<p class=\"lead\">No runs.</p>".into(),
        [run] => {
            let summary = &run.report.summary;
            let measured = match (run.curve.source, run.curve.best()) {
                (_, None) => "Its adapter was not measured.".into(),
                (source, Some(best)) => format!(
                    "At best {} {} after {} rounds, measured {}.",
                    quality(&run.curve.metric, best.value),
                    escape(&run.curve.metric),
                    best.rounds,
                    match source {
                        Source::Host => "on the host’s examples",
                        Source::Devices => "on examples the devices hold out",
                    }
                ),
            };
            format!(
                "<p class=\"lead\">{} of {} rounds with {} devices, begun {}. {measured}</p>",
                summary.rounds_done,
                summary.rounds,
                summary.devices.len(),
                moment(summary.began)
            )
        }
        many => {
            let leader = many.iter().filter_map(|run| Some((run, run.curve.best()?))).reduce(|a, b| {
                let comparable = a.0.curve.metric == b.0.curve.metric;
                if comparable && a.0.curve.better(b.1.value, a.1.value) { b } else { a }
            });
            let leader = leader.map_or(String::new(), |(run, best)| {
                let metric = &run.curve.metric;
                format!("Best: {} with {} {}.", run.name, quality(metric, best.value), escape(metric))
            });
            format!("<p class=\"lead\">{leader} Colours mean the same run throughout.</p>")
        }
    }
}

/// Tiles for one run, a table for several.
pub(super) fn section(runs: &[Run<'_>]) -> String {
    let up = |run: &Run<'_>| bytes(run.report.summary.traffic.up as f64);
    let down = |run: &Run<'_>| bytes(run.report.summary.traffic.down as f64);
    let update = |run: &Run<'_>| payload(run.report).map_or("–".into(), bytes);
    let [run] = runs else {
        let rows = [
            row("Status", runs, |run| status(run.report)),
            row("Rounds", runs, |run| format!("{} of {}", run.report.summary.rounds_done, run.report.summary.rounds)),
            row("Devices", runs, |run| count(run.report.summary.devices.len() as u64)),
            row("Best", runs, |run| format!("<b>{}</b> {}", best(run), escape(&run.curve.metric))),
            row("Values trained in a round", runs, |run| trained(run.report)),
            row("One update", runs, update),
            row("Up, all devices", runs, up),
            row("Down, all devices", runs, down),
            row("Time", runs, |run| duration(seconds(run.report))),
        ];
        return format!("<section class=\"card\">{}</section>", table(runs, &rows));
    };
    let summary = &run.report.summary;
    let tile = |label: &str, value: String, note: String| {
        format!("<div class=\"tile\"><dt>{label}</dt><dd>{value}<small>{note}</small></dd></div>")
    };
    let best_note = run.curve.best().map_or(String::new(), |p| format!("after {} rounds", p.rounds));
    let metric = if run.curve.metric.is_empty() { "Quality".into() } else { escape(&run.curve.metric) };
    let tiles = [
        tile(&format!("Best {metric}"), best(run), best_note),
        tile("Rounds", format!("{} of {}", summary.rounds_done, summary.rounds), status(run.report)),
        tile("One update", update(run), format!("of {} values", trained(run.report))),
        tile("Traffic up", up(run), "all devices and rounds".into()),
        tile("Traffic down", down(run), "all devices and rounds".into()),
        tile("Time", duration(seconds(run.report)), format!("{} updates aggregated", count(summary.updates))),
    ];
    format!("<dl class=\"tiles\">{}</dl>", tiles.concat())
}

/// The plans, folded away.
pub(super) fn plans(runs: &[Run<'_>]) -> String {
    let one = |run: &Run<'_>| {
        let plan = serde_json::to_string_pretty(&run.report.plan).unwrap_or_default();
        format!("<details><summary>{}</summary><pre>{}</pre></details>", run.heading(), escape(&plan))
    };
    format!("<section><h2>Plans</h2>{}</section>", runs.iter().map(one).collect::<String>())
}
