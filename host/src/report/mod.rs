//! `report.html`: what one run or several came to, in one file that needs no network and no script.
//!
//! It answers what those ask who deploy: what quality a budget buys, what a target costs, how well a run bears dropout,
//! skew and attacks. Everything from outside, names included, is escaped.

mod curve;
mod devices;
mod map;
mod overview;
mod plot;
mod progress;
mod questions;
mod robustness;
#[cfg(test)]
mod tests;
pub(crate) mod text;

use fedtt_wire::plan::Plan;

use crate::record::{RoundRecord, RunSummary};
use curve::Curve;
use text::escape;

/// A run as it is reported.
#[derive(Clone, Debug, PartialEq)]
pub struct RunReport {
    /// How it stands.
    pub summary: RunSummary,
    /// Its plan.
    pub plan: Plan,
    /// Its rounds, in their order.
    pub rounds: Vec<RoundRecord>,
}

/// A run with what is derived from it once.
struct Run<'a> {
    report: &'a RunReport,
    /// unique on the page, escaped
    name: String,
    /// number of its colour
    colour: usize,
    curve: Curve,
}

impl Run<'_> {
    fn swatch(&self) -> String {
        format!("<i class=\"swatch s{}\"></i>", self.colour)
    }

    fn heading(&self) -> String {
        format!("{}{}", self.swatch(), self.name)
    }
}

/// The report of these runs, side by side where there are several.
pub fn html(runs: &[RunReport]) -> String {
    let twice = |name: &str| runs.iter().filter(|r| r.summary.name == name).count() > 1;
    let runs: Vec<Run<'_>> = runs
        .iter()
        .enumerate()
        .map(|(i, report)| {
            let RunSummary { name, run, .. } = &report.summary;
            let name = if twice(name) { format!("{name} ({run})") } else { name.clone() };
            Run { report, name: escape(&name), colour: i % plot::COLOURS, curve: Curve::of(report) }
        })
        .collect();
    let title = match runs.as_slice() {
        [one] => one.name.clone(),
        many => format!("{} runs side by side", many.len()),
    };
    let sections = [
        overview::section(&runs),
        progress::section(&runs),
        questions::budget(&runs),
        questions::target(&runs),
        robustness::section(&runs),
        devices::section(&runs),
        overview::plans(&runs),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title} · FedTT</title>\n<style>{}</style>\n\
         </head>\n<body>\n<main>\n<header><p class=\"eyebrow\">FedTT · run report</p><h1>{title}</h1>{}</header>\n{}\n\
         <footer>Written by fedtt {}. Bytes are counted at the devices' sockets, MQTT included, both ways.</footer>\n\
         </main>\n</body>\n</html>\n",
        include_str!("style.css"),
        overview::lead(&runs),
        sections.concat(),
        env!("CARGO_PKG_VERSION"),
    )
}
