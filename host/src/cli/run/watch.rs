//! `fedtt run watch` and `fedtt run wait`

use std::time::{Duration, Instant};

use fedtt::control::{Client, ControlError, Request, Watched};
use fedtt::record::{Measured, RunSummary, Status};
use fedtt::run::{RunEvent, What};
use serde_json::{Value, json};

use super::super::host::HostArgs;
use super::field;
use super::show::{measured, progress};
use crate::output::{self, Outcome};

/// A host that was restarted takes its runs up again; so long it is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(200);

/// Something heard of a run.
enum Heard {
    /// How it stands.
    Summary(Box<RunSummary>),
    /// What happened.
    Event(RunEvent),
    /// So many events were missed.
    Missed(u64),
}

/// Tells `hear` of everything that happens in a run until it says that it has heard enough.
fn follow(run: &str, host: &HostArgs, mut hear: impl FnMut(Heard) -> bool) -> anyhow::Result<()> {
    let mut known = false;
    let mut away: Option<Instant> = None;
    loop {
        match listen(run, host, &mut hear, &mut known, &mut away) {
            Ok(()) => return Ok(()),
            Err(error) => {
                let gone = matches!(
                    error.downcast_ref::<ControlError>(),
                    Some(ControlError::Absent { .. } | ControlError::Gone { .. })
                );
                let since = *away.get_or_insert_with(Instant::now);
                if !known || !gone || since.elapsed() > PATIENCE {
                    return Err(error);
                }
                std::thread::sleep(RETRY);
            }
        }
    }
}

fn listen(
    run: &str,
    host: &HostArgs,
    hear: &mut impl FnMut(Heard) -> bool,
    known: &mut bool,
    away: &mut Option<Instant>,
) -> anyhow::Result<()> {
    let mut client: Client = host.connect()?;
    let data = client.ask(Request::Watch { run: run.to_string() })?;
    (*known, *away) = (true, None);
    if hear(Heard::Summary(Box::new(field(&data, "summary")?))) {
        return Ok(());
    }
    loop {
        let heard = match client.hear_next()? {
            Watched::Event(event) => Heard::Event(event),
            Watched::Missed(events) => Heard::Missed(events),
        };
        if hear(heard) {
            return Ok(());
        }
    }
}

/// Whether a run with this status goes on only with somebody's help, if at all.
fn is_over(status: Status, reason: Option<&str>) -> bool {
    status.is_final() || status == Status::Paused && reason.is_some()
}

pub(super) fn wait(run: &str, host: &HostArgs) -> anyhow::Result<Outcome> {
    follow(run, host, |heard| match heard {
        Heard::Summary(summary) => is_over(summary.status, summary.reason.as_deref()),
        Heard::Event(RunEvent { what: What::Status { status, reason }, .. }) => is_over(status, reason.as_deref()),
        Heard::Event(_) | Heard::Missed(_) => false,
    })?;
    ended(run, host)
}

pub(super) fn watch(run: &str, host: &HostArgs, as_json: bool) -> anyhow::Result<Outcome> {
    let mut rounds = None;
    // Whether somebody still reads.
    let say = |value: Value, text: String| if as_json { output::line(value) } else { output::line(text) };
    follow(run, host, |heard| match heard {
        Heard::Summary(summary) => {
            rounds = Some(summary.rounds);
            // How a run ended is said in the end, and to people not twice.
            let over = summary.status.is_final();
            let heard = over && !as_json || say(json!({ "version": 1, "summary": summary }), standing(&summary));
            !heard || over
        }
        Heard::Event(event) => {
            let heard = say(json!({ "version": 1, "event": event }), line(&event, rounds));
            !heard || matches!(event.what, What::Status { status, .. } if status.is_final())
        }
        Heard::Missed(events) => {
            !say(json!({ "version": 1, "missed": events }), format!("{events} events were missed"))
        }
    })?;
    ended(run, host)
}

/// What a run came to.
fn ended(run: &str, host: &HostArgs) -> anyhow::Result<Outcome> {
    let data = host.ask(Request::Show { run: run.to_string() })?;
    let summary: RunSummary = field(&data, "summary")?;
    let ok = summary.status == Status::Finished;
    Ok(Outcome { text: format!("{}\n", standing(&summary)), data: json!({ "summary": summary }), ok })
}

fn standing(summary: &RunSummary) -> String {
    let reason = summary.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let best = summary.best.as_ref().map(|(_, best)| format!(", best {}", measured(best))).unwrap_or_default();
    format!("{} is {}{reason}: {} rounds{best}", summary.run, summary.status.word(), progress(summary))
}

/// Hours, minutes and seconds of the day, UTC.
fn clock(time: u64) -> String {
    let seconds = time / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn with(measured_as: Option<&Measured>) -> String {
    measured_as.map(|m| format!(", began at {}", measured(m))).unwrap_or_default()
}

/// An event, for people.
pub(crate) fn line(event: &RunEvent, rounds: Option<u32>) -> String {
    let planned = rounds.map(|rounds| format!("/{rounds}")).unwrap_or_default();
    let round = format!("round {}{planned}", event.round + 1);
    let again = |attempt: u32| if attempt == 0 { String::new() } else { format!(", attempt {}", attempt + 1) };
    let said = match &event.what {
        What::Started => "started".to_string(),
        What::Restored => "taken up again".to_string(),
        What::Waiting { present, needed } => format!("{round} waits for devices: {present} of {needed} are there"),
        What::RoundBegan { attempt, cohort, trained: 0 } => {
            format!("measuring the last adapter on {cohort} devices{}", again(*attempt))
        }
        What::RoundBegan { attempt, cohort, trained } => {
            format!("{round} begins{}: {cohort} devices, {trained} values train", again(*attempt))
        }
        What::Accepted { device, received, expected } => format!("{round} {received}/{expected} {device}"),
        What::Fetching { device } => format!("{round} {device} is fetching the bundle"),
        What::Refused { device, kind, reason } => format!("{round} {device} does not count, {kind}: {reason}"),
        What::Declined { device, reason } => format!("{round} {device} declines: {reason}"),
        What::RoundFailed { reason } => format!("{round} failed: {reason}"),
        What::RoundEnded { updates, seconds, before } => {
            format!("{round} ends: {updates} updates in {seconds:.1} s{}", with(before.as_ref()))
        }
        What::Measured { after } => format!("after round {}{planned}: {}", event.round, measured(after)),
        What::Status { status, reason } => {
            let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{}{reason}", status.word())
        }
    };
    format!("{}  {said}", clock(event.time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_cannot_go_on_by_themselves_are_over() {
        assert!(is_over(Status::Finished, None) && is_over(Status::Stopped, None));
        assert!(is_over(Status::Paused, Some("round 3 failed 4 times")));
        assert!(!is_over(Status::Paused, None) && !is_over(Status::Running, None));
    }

    #[test]
    fn events_read_as_sentences() {
        let event = |what| RunEvent { time: 45_296_000, run: "r".into(), round: 2, what };
        let began = event(What::RoundBegan { attempt: 1, cohort: 6, trained: 100 });
        assert_eq!(line(&began, Some(10)), "12:34:56  round 3/10 begins, attempt 2: 6 devices, 100 values train");
        let before = Some(Measured { examples: 9, loss: 0.5, metric: "accuracy".into(), value: 0.75 });
        let ended = event(What::RoundEnded { updates: 5, seconds: 1.25, before });
        assert_eq!(line(&ended, None), "12:34:56  round 3 ends: 5 updates in 1.2 s, began at accuracy 0.750");
    }
}
