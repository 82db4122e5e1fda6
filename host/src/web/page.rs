//! The page: rendered here as a whole, brought up to date by the content that `/events` sends.

use super::snapshot::{DeviceView, Fault, MemberState, MemberView, Phase, RoundView, RunView, Snapshot};
use crate::record::{Refused, Status};
use crate::report::text::{bytes, count, duration, escape, moment, number, quality};

/// Keeps the content up to date and says when the host is gone; without it the page is still the state at its loading.
const SCRIPT: &str = "const live=document.body.classList;\
    const source=new EventSource('/events');\
    source.onmessage=e=>{const open=[...document.querySelectorAll('details[open]')].map(d=>d.id);\
    document.querySelector('main').innerHTML=e.data;\
    open.forEach(id=>{const d=document.getElementById(id);if(d)d.open=true});live.remove('lost')};\
    source.onerror=()=>live.add('lost');";

/// Rows of devices shown without unfolding.
const SHOWN: usize = 40;

pub(super) fn whole(snapshot: &Snapshot) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{} · FedTT</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <style>{}{}</style>\n</head>\n<body class=\"web\">\n<p class=\"gone\" role=\"status\">The host does not answer; \
         this is its last known state.</p>\n<main>{}</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        escape(&snapshot.fleet),
        include_str!("../report/style.css"),
        include_str!("style.css"),
        content(snapshot)
    )
}

/// Everything within `<main>`.
pub(super) fn content(snapshot: &Snapshot) -> String {
    let online = snapshot.devices.iter().filter(|d| d.online).count();
    let active = snapshot.runs.iter().filter(|r| matches!(r.summary.status, Status::Running | Status::Pausing)).count();
    let broker = &snapshot.broker;
    let place = if broker.embedded { "embedded broker" } else { "broker" };
    let link = if broker.connected { "connected to" } else { "not connected to" };
    let state = if broker.connected { "good" } else { "bad" };
    let title = match active {
        0 => "No run going on".into(),
        1 => "1 run going on".into(),
        n => format!("{n} runs going on"),
    };
    let runs: String = snapshot.runs.iter().map(|run| one_run(run, snapshot.time)).collect();
    let runs = if runs.is_empty() {
        "<p class=\"empty\">None yet. Start one with <code>fedtt run start PLAN.toml</code>.</p>".into()
    } else {
        runs
    };
    format!(
        "<header><p class=\"eyebrow\">FedTT · {}</p><h1>{title}</h1><p class=\"lead\">{online} of {} devices online. \
         <span class=\"dot-{state}\"></span>{link} {place} at {}.</p></header><section><h2>Runs</h2>{runs}</section>\
         <section><h2>Devices</h2>{}</section><section><h2>Last errors</h2>{}{}</section><footer>fedtt {} · as of {} · \
         <a href=\"/api/snapshot\">JSON</a> · <a href=\"/metrics\">metrics</a></footer>",
        escape(&snapshot.fleet),
        snapshot.devices.len(),
        escape(&broker.address),
        devices(&snapshot.devices, snapshot.time),
        errors(&snapshot.errors, snapshot.time),
        of_no_run(&snapshot.refused),
        escape(&snapshot.version),
        moment(snapshot.time),
    )
}

fn ago(then: u64, now: u64) -> String {
    match now.saturating_sub(then) / 1000 {
        0..=1 => "now".into(),
        seconds => format!("{} ago", duration(seconds as f64)),
    }
}

fn bar(part: f64, label: &str) -> String {
    let share = if part.is_finite() { part.clamp(0.0, 1.0) * 100.0 } else { 0.0 };
    format!("<div class=\"meter\" role=\"img\" aria-label=\"{label}\"><i style=\"width:{share:.1}%\"></i></div>")
}

fn status_name(status: Status) -> &'static str {
    match status {
        Status::Running => "running",
        Status::Pausing => "pausing",
        Status::Paused => "paused",
        Status::Finished => "finished",
        Status::Stopped => "stopped",
    }
}

fn one_run(run: &RunView, now: u64) -> String {
    let summary = &run.summary;
    let status = status_name(summary.status);
    let reason = summary.reason.as_ref().map_or(String::new(), |r| format!(" <small>{}</small>", escape(r)));
    let fact = |label: &str, value: String| format!("<div><dt>{label}</dt><dd>{value}</dd></div>");
    let measured = |m: &Option<crate::record::Measured>| {
        m.as_ref()
            .map_or("–".into(), |m| format!("{} <small>{}</small>", quality(&m.metric, m.value), escape(&m.metric)))
    };
    let best = summary.best.as_ref().map(|(_, m)| m.clone());
    let facts = [
        fact("Last", measured(&summary.last)),
        fact("Best", measured(&best)),
        fact("Updates", count(summary.updates)),
        fact("Up", bytes(summary.traffic.up as f64)),
        fact("Down", bytes(summary.traffic.down as f64)),
        fact("Refused", refused(&summary.refused)),
    ];
    let done = f64::from(summary.rounds_done) / f64::from(summary.rounds.max(1));
    let rounds = format!("{} of {} rounds", summary.rounds_done, summary.rounds);
    let current = run.current.as_ref().map_or(String::new(), |round| current(round, summary.run.as_str(), now));
    format!(
        "<article class=\"card run\"><div class=\"head\"><h3>{}</h3><span class=\"status {status}\">{status}</span>{reason}\
         <a href=\"/runs/{id}/report.html\">Report</a></div><div class=\"body\"><div><p class=\"progress\">{rounds} \
         <small>{id}</small></p>{}<dl class=\"facts\">{}</dl></div>{}</div>{current}</article>",
        escape(&summary.name),
        bar(done, &rounds),
        facts.concat(),
        sparkline(&run.quality),
        id = summary.run,
    )
}

fn refused(refused: &Refused) -> String {
    let Refused { late, duplicate, foreign, malformed, outlying, forged, replayed } = refused;
    let kinds = [
        (late, "late"),
        (duplicate, "duplicate"),
        (foreign, "foreign"),
        (malformed, "malformed"),
        (outlying, "outlying"),
        (forged, "forged"),
        (replayed, "replayed"),
    ];
    let some: Vec<String> =
        kinds.iter().filter(|(n, _)| **n > 0).map(|(n, kind)| format!("{} {kind}", count(**n))).collect();
    if some.is_empty() { "0".into() } else { format!("<small>{}</small>", some.join(" · ")) }
}

/// Quality over the rounds, without axes.
fn sparkline(points: &[(u32, f64)]) -> String {
    let points: Vec<(u32, f64)> = points.iter().copied().filter(|p| p.1.is_finite()).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let low = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    let place = |&(round, value): &(u32, f64)| {
        let right = 4.0 + 212.0 * f64::from(round - first.0) / f64::from((last.0 - first.0).max(1));
        let up = if high > low { (value - low) / (high - low) } else { 0.5 };
        (right, 60.0 - 52.0 * up)
    };
    let path: Vec<String> = points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let (x, y) = place(last);
    format!(
        "<svg class=\"spark s0\" viewBox=\"0 0 220 66\" role=\"img\" aria-label=\"quality by round\"><polyline class=\"line s0\" \
         points=\"{}\"/><circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.4\"/></svg>",
        path.join(" ")
    )
}

fn current(round: &RoundView, run: &str, now: u64) -> String {
    let number = round.round + 1;
    let since = ago(round.began, now);
    let asked = round.cohort.len();
    match round.phase {
        Phase::Resting => String::new(),
        Phase::Selecting => {
            let waits = match round.again {
                Some(again) => {
                    format!("failed, and begins again in {}", duration(again.saturating_sub(now).div_ceil(1000) as f64))
                }
                None => format!(
                    "waits for devices: {asked} of {} needed are there <small>for {}</small>",
                    round.needed,
                    duration((now.saturating_sub(round.began) / 1000) as f64),
                ),
            };
            format!("<div class=\"now\"><p><b>Round {number}</b> {waits}</p></div>")
        }
        Phase::Collecting => {
            let left = round.deadline.map(|end| end.saturating_sub(now)).filter(|&left| left > 0);
            let left = left.map_or(String::new(), |left| format!(" · at most {} left", duration((left / 1000) as f64)));
            let members: String = round.cohort.iter().map(member).collect();
            format!(
                "<div class=\"now\"><p><b>Round {number}</b> has {} of {asked} updates <small>begun {since}{left}</small></p>{}\
                 <details id=\"cohort-{run}\"><summary>Devices of the round</summary><ul class=\"members\">{members}</ul>\
                 </details></div>",
                round.received,
                bar(round.received as f64 / asked.max(1) as f64, "updates in"),
            )
        }
    }
}

fn member(member: &MemberView) -> String {
    let (share, note) = match member.state {
        MemberState::Asked => (0.0, "asked".to_string()),
        MemberState::Fetching => (0.0, "fetching the bundle".to_string()),
        MemberState::Training => {
            let loss = member.loss.map_or(String::new(), |loss| format!(", loss {}", number(f64::from(loss))));
            (
                f64::from(member.step) / f64::from(member.steps.max(1)),
                format!("step {} of {}{loss}", member.step, member.steps),
            )
        }
        MemberState::Received => (1.0, "update in".into()),
        MemberState::Declined => (0.0, "declined".into()),
    };
    let class = match member.state {
        MemberState::Asked | MemberState::Fetching => "asked",
        MemberState::Training => "training",
        MemberState::Received => "received",
        MemberState::Declined => "declined",
    };
    format!("<li class=\"{class}\"><span>{}</span>{}<small>{note}</small></li>", member.device, bar(share, &note))
}

fn devices(devices: &[DeviceView], now: u64) -> String {
    if devices.is_empty() {
        return "<p class=\"empty\">None yet. Start <code>fedtt-edge run</code> on a board.</p>".into();
    }
    let (mut online, mut offline): (Vec<_>, Vec<_>) = devices.iter().partition(|d| d.online);
    online.append(&mut offline);
    let row = |device: &&DeviceView| {
        let (dot, state) = match (device.online, &device.problem) {
            (true, None) => ("good", "online"),
            (true, Some(_)) => ("warn", "unready"),
            (false, _) => ("bad", "offline"),
        };
        let labels: Vec<String> =
            device.labels.iter().map(|l| format!("<span class=\"tag\">{}</span>", escape(l))).collect();
        let trouble = match (&device.problem, &device.last_refusal) {
            (Some(problem), _) => escape(problem),
            (None, Some((run, reason))) => format!("{} <small>{run}</small>", escape(reason)),
            (None, None) => String::new(),
        };
        format!(
            "<tr><th scope=\"row\"><span class=\"dot-{dot}\" title=\"{state}\"></span>{}</th><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td><td class=\"reason\">{trouble}</td></tr>",
            device.name,
            ago(device.last_seen, now),
            labels.concat(),
            escape(&device.engine),
            escape(&device.version),
            count(device.examples),
        )
    };
    let head = "<thead><tr><th>Device</th><th>Seen</th><th>Labels</th><th>Engine</th><th>Version</th><th>Examples</th>\
                <th>Trouble</th></tr></thead>";
    let rows = |devices: &[&DeviceView]| -> String {
        let rows: String = devices.iter().map(row).collect();
        format!("<div class=\"scroll\"><table class=\"devices\">{head}<tbody>{rows}</tbody></table></div>")
    };
    let (shown, more) = online.split_at(online.len().min(SHOWN));
    let more = if more.is_empty() {
        String::new()
    } else {
        format!("<details id=\"more-devices\"><summary>{} more</summary>{}</details>", more.len(), rows(more))
    };
    format!("<div class=\"card\">{}{more}</div>", rows(shown))
}

/// What was refused of messages that belong to no run.
fn of_no_run(stray: &Refused) -> String {
    if *stray == Refused::default() {
        return String::new();
    }
    format!("<p class=\"empty\">Messages refused that belong to no run: {}.</p>", refused(stray))
}

fn errors(errors: &[Fault], now: u64) -> String {
    if errors.is_empty() {
        return "<p class=\"empty\">None.</p>".into();
    }
    let line = |fault: &Fault| {
        format!(
            "<li><time>{}</time><b>{}</b><span>{}</span></li>",
            ago(fault.time, now),
            escape(&fault.source),
            escape(&fault.message)
        )
    };
    format!("<ul class=\"card errors\">{}</ul>", errors.iter().map(line).collect::<String>())
}
