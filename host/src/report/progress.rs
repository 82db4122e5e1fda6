//! How quality, loss and traffic went, round by round.

use super::Run;
use super::curve::{Curve, Point, Source};
use super::plot::{Plot, Series};
use super::text::{bytes, duration, escape, number, quality};
use crate::record::RoundRecord;

fn rounds(x: f64) -> String {
    format!("{x:.0}")
}

fn of_curve(run: &Run<'_>, curve: &Curve, dashed: bool, value: impl Fn(&Point) -> f64) -> Series {
    let points = curve.points.iter().map(|p| (f64::from(p.rounds), value(p))).collect();
    Series { name: run.name.clone(), colour: run.colour, dashed, points }
}

fn of_rounds(run: &Run<'_>, value: impl Fn(&RoundRecord) -> f64) -> Series {
    let points = run.report.rounds.iter().map(|r| (f64::from(r.round + 1), value(r))).collect();
    Series { name: run.name.clone(), colour: run.colour, dashed: false, points }
}

/// With one run, both curves where both host and devices measured.
fn curves(runs: &[Run<'_>], value: impl Fn(&Point) -> f64 + Copy) -> Vec<Series> {
    let mut series: Vec<Series> = runs.iter().map(|run| of_curve(run, &run.curve, false, value)).collect();
    if let [run] = runs
        && run.curve.source == Source::Host
    {
        let devices = Curve::from(run.report, Source::Devices);
        if devices.metric == run.curve.metric {
            series[0].name = "on the host".into();
            series.push(Series { name: "on devices".into(), colour: 1, ..of_curve(run, &devices, true, value) });
        }
    }
    series
}

pub(super) fn section(runs: &[Run<'_>]) -> String {
    if runs.iter().all(|run| run.report.rounds.is_empty()) {
        return String::new();
    }
    let metric = runs.iter().map(|r| r.curve.metric.as_str()).find(|m| !m.is_empty()).unwrap_or("quality");
    let title = |metric: &str| {
        let mut letters = metric.chars();
        letters.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
    };
    let comparable: Vec<Series> = curves(runs, |p| p.value)
        .into_iter()
        .enumerate()
        .filter_map(|(i, s)| {
            let own = runs.get(i).or(runs.first())?;
            (own.curve.metric == metric).then_some(s)
        })
        .collect();
    let per_round = |title, y_format, series| {
        Plot { title, x_label: "round", x_format: &rounds, y_format, log_x: None, from_zero: true, series }.figure()
    };
    let figures = [
        Plot {
            title: &title(metric),
            x_label: "rounds trained",
            x_format: &rounds,
            y_format: &|y| quality(metric, y),
            log_x: None,
            from_zero: false,
            series: comparable,
        }
        .figure(),
        Plot {
            title: "Loss",
            x_label: "rounds trained",
            x_format: &rounds,
            y_format: &number,
            log_x: None,
            from_zero: false,
            series: curves(runs, |p| p.loss),
        }
        .figure(),
        traffic(runs, &per_round),
        per_round("Time of a round", &duration, runs.iter().map(|run| of_rounds(run, |r| r.seconds)).collect()),
    ];
    let truncated = runs.iter().any(|run| run.report.rounds.iter().any(|r| r.truncation.is_some()));
    let truncation = if truncated {
        let truncation = |r: &RoundRecord| r.truncation.unwrap_or(f64::NAN);
        let series = runs.iter().map(|run| of_rounds(run, truncation)).collect();
        per_round("Relative error of rounding", &|y| number(y), series)
    } else {
        String::new()
    };
    format!(
        "<section><h2>Round by round</h2><p>{}</p><div class=\"plots\">{}{truncation}</div></section>",
        note(runs, metric),
        figures.concat()
    )
}

fn traffic(
    runs: &[Run<'_>],
    figure: &dyn Fn(&'static str, &'static dyn Fn(f64) -> String, Vec<Series>) -> String,
) -> String {
    let series = |value: &dyn Fn(&RoundRecord) -> u64| -> Vec<Series> {
        runs.iter().map(|run| of_rounds(run, |r| value(r) as f64)).collect()
    };
    let (mut up, down) = (series(&|r| r.traffic.up), series(&|r| r.traffic.down));
    if runs.len() > 1 {
        return figure("Bytes up in a round", &bytes, up) + &figure("Bytes down in a round", &bytes, down);
    }
    up.iter_mut().for_each(|s| s.name = "up".into());
    up.extend(down.into_iter().map(|s| Series { name: "down".into(), colour: 1, ..s }));
    figure("Bytes in a round, all devices", &bytes, up)
}

fn note(runs: &[Run<'_>], metric: &str) -> String {
    let other: Vec<&str> = runs
        .iter()
        .filter(|r| !r.curve.metric.is_empty() && r.curve.metric != metric)
        .map(|r| r.name.as_str())
        .collect();
    let apart = if other.is_empty() {
        String::new()
    } else {
        format!(" Measured otherwise and so not comparable: {}.", other.join(", "))
    };
    format!(
        "{} of the global adapter after so many rounds.{apart} Touch a point for its value.",
        match metric {
            "" | "quality" => "Quality".to_string(),
            metric => format!("Quality is {}", escape(metric)),
        }
    )
}
