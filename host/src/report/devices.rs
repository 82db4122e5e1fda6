//! What each device gave and took, and why devices declined.

use std::collections::{BTreeMap, BTreeSet};

use super::text::{bytes, count, duration, energy, escape, number, percent, quality};
use super::{Run, map};

/// Rows shown of a table.
const SHOWN: usize = 60;

#[derive(Default)]
struct Device {
    rounds: u64,
    declined: u64,
    examples: u64,
    weight: f64,
    seconds: f64,
    up: u64,
    down: u64,
    joules: Option<f64>,
    /// rounds whose energy is known, and the tokens trained on in them
    metered: (u64, u64),
    quality: Option<f64>,
}

impl Device {
    /// Over the rounds whose energy is known.
    fn tokens_per_joule(&self) -> Option<f64> {
        let joules = self.joules.filter(|&joules| joules > 0.0)?;
        (self.metered.1 > 0).then(|| self.metered.1 as f64 / joules)
    }
}

fn gather<'a>(run: &Run<'a>) -> BTreeMap<&'a str, Device> {
    let mut devices: BTreeMap<&str, Device> = BTreeMap::new();
    for name in &run.report.summary.devices {
        devices.entry(name.as_str()).or_default();
    }
    for round in &run.report.rounds {
        for (name, own) in round.all() {
            let device = devices.entry(name).or_default();
            device.rounds += u64::from(round.contributions.contains_key(name));
            device.examples = device.examples.max(own.examples);
            device.weight += own.weight;
            device.seconds += own.seconds;
            device.up += own.traffic.up;
            device.down += own.traffic.down;
            if let Some(joules) = own.joules {
                device.joules = Some(device.joules.unwrap_or(0.0) + joules);
                device.metered = (device.metered.0 + 1, device.metered.1 + own.tokens);
            }
            if let Some(measured) = &own.measured {
                device.quality = Some(measured.value);
            }
        }
        for name in round.refusals.keys().filter(|name| !round.left_out.contains_key(*name)) {
            devices.entry(name).or_default().declined += 1;
        }
    }
    devices
}

fn bar(share: f64, text: &str) -> String {
    format!("<td class=\"bar\" style=\"--w:{:.1}%\"><span>{text}</span></td>", share.clamp(0.0, 1.0) * 100.0)
}

fn table(run: &Run<'_>, devices: &BTreeMap<&str, Device>) -> String {
    let rounds = run.report.rounds.len().max(1) as f64;
    let weight: f64 = devices.values().map(|d| d.weight).sum::<f64>().max(1e-12);
    let heaviest = devices.values().map(|d| d.weight).fold(1e-12, f64::max);
    let mean_seconds = |d: &Device| d.seconds / d.rounds.max(1) as f64;
    let slowest = devices.values().map(mean_seconds).fold(1e-12, f64::max);
    let energy_known = devices.values().any(|d| d.joules.is_some());
    let row = |(name, d): (&&str, &Device)| {
        let mut cells = bar(d.rounds as f64 / rounds, &count(d.rounds));
        cells += &bar(d.weight / heaviest, &percent(d.weight / weight));
        cells += &bar(mean_seconds(d) / slowest, &if d.rounds > 0 { duration(mean_seconds(d)) } else { "–".into() });
        cells +=
            &format!("<td>{}</td><td>{}</td><td>{}</td>", count(d.examples), bytes(d.up as f64), bytes(d.down as f64));
        if energy_known {
            let a_round = d.joules.map(|joules| joules / d.metered.0.max(1) as f64);
            cells += &format!("<td>{}</td>", d.joules.map_or("–".into(), energy));
            cells += &format!("<td>{}</td>", a_round.map_or("–".into(), energy));
            cells += &format!("<td>{}</td>", d.tokens_per_joule().map_or("–".into(), number));
        }
        cells += &format!("<td>{}</td>", d.quality.map_or("–".into(), |q| quality(&run.curve.metric, q)));
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>", escape(name))
    };
    let rows: String = devices.iter().take(SHOWN).map(row).collect();
    let more = devices.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("<p class=\"note\">and {more} more, in rounds.jsonl</p>") } else { String::new() };
    format!(
        "<div class=\"scroll\"><table class=\"devices\"><thead><tr><th scope=\"col\">Device</th><th scope=\"col\">Rounds\
         </th><th scope=\"col\">Share of the result</th><th scope=\"col\">Training a round</th><th scope=\"col\">Examples\
         </th><th scope=\"col\">Up</th><th scope=\"col\">Down</th>{}<th scope=\"col\">{}</th></tr></thead><tbody>{rows}\
         </tbody></table></div>{more}",
        if energy_known {
            "<th scope=\"col\">Energy</th><th scope=\"col\">Energy a round</th><th scope=\"col\">Tokens per joule</th>"
        } else {
            ""
        },
        if run.curve.metric.is_empty() { "Quality".into() } else { escape(&run.curve.metric) },
    )
}

/// Why devices declined: reason, times, devices.
fn declined(run: &Run<'_>) -> String {
    let mut reasons: BTreeMap<&str, (u64, BTreeSet<&str>)> = BTreeMap::new();
    for round in &run.report.rounds {
        for (name, reason) in &round.refusals {
            let entry = reasons.entry(reason).or_default();
            entry.0 += 1;
            entry.1.insert(name);
        }
    }
    if reasons.is_empty() {
        return String::new();
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, (times, _))| std::cmp::Reverse(*times));
    let line = |(reason, (times, devices)): &(&str, (u64, BTreeSet<&str>))| {
        let named: Vec<String> = devices.iter().take(5).map(|d| escape(d)).collect();
        let more = devices.len().saturating_sub(5);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("<li><b>{}×</b> {} <small>{}{more}</small></li>", count(*times), escape(reason), named.join(", "))
    };
    let lines: String = reasons.iter().take(20).map(line).collect();
    format!("<h3>Why devices are not in the result</h3><ul class=\"reasons\">{lines}</ul>")
}

pub(super) fn section(runs: &[Run<'_>]) -> String {
    let single = runs.len() == 1;
    let one = |run: &Run<'_>| {
        let devices = gather(run);
        let names: Vec<&str> = devices.keys().copied().collect();
        let body = map::figure(run.report, &names) + &table(run, &devices) + &declined(run);
        if single {
            return format!("<div class=\"card\">{body}</div>");
        }
        let open = if run.colour == 0 { " open" } else { "" };
        format!(
            "<details class=\"card\"{open}><summary>{} · {} devices</summary>{body}</details>",
            run.heading(),
            names.len()
        )
    };
    format!("<section><h2>Devices</h2>{}</section>", runs.iter().map(one).collect::<String>())
}
