//! `fedtt run list` and `fedtt run show`

use fedtt::control::Request;
use fedtt::record::{Measured, RoundRecord, RunSummary};
use fedtt::web::snapshot::{MemberState, Phase, RoundView};

use super::super::host::{HostArgs, ago, now};
use super::field;
use crate::output::{Outcome, bytes, table};

/// What was measured, in a few words.
pub(super) fn measured(measured: &Measured) -> String {
    format!("{} {:.3}", measured.metric, measured.value)
}

fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".into())
}

/// Rounds done of those planned.
pub(super) fn progress(summary: &RunSummary) -> String {
    format!("{}/{}", summary.rounds_done, summary.rounds)
}

pub(super) fn list(host: &HostArgs) -> anyhow::Result<Outcome> {
    let data = host.ask(Request::List)?;
    let mut runs: Vec<RunSummary> = field(&data, "runs")?;
    runs.sort_by_key(|run| std::cmp::Reverse(run.began));
    if runs.is_empty() {
        let text = "No runs yet. `fedtt run plan > PLAN.toml` makes a plan, `fedtt run start PLAN.toml` starts it.\n";
        return Ok(Outcome { text: text.into(), data, ok: true });
    }
    let row = |run: &RunSummary| {
        vec![
            run.run.to_string(),
            run.status.word().to_string(),
            progress(run),
            or_dash(run.last.as_ref().map(measured)),
            or_dash(run.best.as_ref().map(|(_, best)| format!("{:.3}", best.value))),
            run.devices.len().to_string(),
            bytes(run.traffic.up),
            bytes(run.traffic.down),
            ago(run.began),
        ]
    };
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    let header = ["run", "status", "rounds", "last", "best", "devices", "up", "down", "started"];
    let mut text = table(&header, &rows);
    for run in &runs {
        if let Some(reason) = &run.reason {
            text += &format!("\n  {}: {reason}\n", run.run);
        }
    }
    Ok(Outcome { text, data, ok: true })
}

pub(super) fn run(run: &str, host: &HostArgs) -> anyhow::Result<Outcome> {
    let data = host.ask(Request::Show { run: run.to_string() })?;
    let summary: RunSummary = field(&data, "summary")?;
    let rounds: Vec<RoundRecord> = field(&data, "rounds")?;
    let current: Option<RoundView> = field(&data, "current")?;
    let mut text = format!("{run}\n\n");
    let reason = summary.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let refused = &summary.refused;
    for (name, value) in [
        ("plan", summary.name.clone()),
        ("status", format!("{}{reason}", summary.status.word())),
        ("rounds", progress(&summary)),
        ("started", ago(summary.began)),
        ("values", summary.values.to_string()),
        ("best", or_dash(summary.best.as_ref().map(|(round, m)| format!("{} after {round} rounds", measured(m))))),
        ("devices", summary.devices.len().to_string()),
        ("up", bytes(summary.traffic.up)),
        ("down", bytes(summary.traffic.down)),
        (
            "not counted",
            format!(
                "{} late, {} duplicate, {} foreign, {} malformed, {} outlying",
                refused.late, refused.duplicate, refused.foreign, refused.malformed, refused.outlying
            ),
        ),
    ] {
        text += &format!("  {name:<12}{value}\n");
    }
    if !rounds.is_empty() {
        let row = |record: &RoundRecord| {
            vec![
                (record.round + 1).to_string(),
                format!("{}/{}", record.contributions.len(), record.cohort),
                or_dash(record.before.as_ref().map(measured)),
                or_dash(record.after.as_ref().map(measured)),
                bytes(record.traffic.up),
                bytes(record.traffic.down),
                format!("{:.1} s", record.seconds),
            ]
        };
        let rows: Vec<Vec<String>> = rounds.iter().map(row).collect();
        text += &format!("\n{}", table(&["round", "updates", "began at", "ended at", "up", "down", "time"], &rows));
    }
    if let Some(current) = current {
        text += &format!("\n{}", standing(&current));
    }
    Ok(Outcome { text, data, ok: true })
}

fn standing(current: &RoundView) -> String {
    let round = current.round + 1;
    match current.phase {
        Phase::Resting => format!("Round {round} waits for `resume` or `step`.\n"),
        Phase::Selecting => match current.again {
            Some(again) => {
                format!("Round {round} failed, and begins again in {} s.\n", again.saturating_sub(now()).div_ceil(1000))
            }
            None => {
                format!("Round {round} waits for devices: {} of {} are there.\n", current.cohort.len(), current.needed)
            }
        },
        Phase::Collecting => {
            let mut text = format!("Round {round}: {} of {} updates are in.\n", current.received, current.cohort.len());
            for member in &current.cohort {
                let state = match member.state {
                    MemberState::Asked => "asked".to_string(),
                    MemberState::Fetching => "fetching the bundle".to_string(),
                    MemberState::Training => format!("training, step {}/{}", member.step, member.steps),
                    MemberState::Received => "received".to_string(),
                    MemberState::Declined => "declined".to_string(),
                };
                text += &format!("  {:<24}{state}\n", member.device);
            }
            text
        }
    }
}
