//! Prometheus' text format, version 0.0.4.

use std::fmt::Display;

use super::snapshot::{MemberState, Phase, Snapshot};
use crate::record::{Refused, Status};

/// A label's value, as the format wants it.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Metrics(String);

impl Metrics {
    /// One metric with all its samples: labels and values.
    fn add<V: Display>(&mut self, name: &str, kind: &str, help: &str, samples: impl IntoIterator<Item = (Labels, V)>) {
        let mut lines = String::new();
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            lines += &format!("{name}{labels} {value}\n");
        }
        if !lines.is_empty() {
            self.0 += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
        }
    }
}

type Labels = Vec<(&'static str, String)>;

fn kinds(refused: &Refused) -> [(&'static str, u64); 7] {
    [
        ("late", refused.late),
        ("duplicate", refused.duplicate),
        ("foreign", refused.foreign),
        ("malformed", refused.malformed),
        ("outlying", refused.outlying),
        ("forged", refused.forged),
        ("replayed", refused.replayed),
    ]
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Running => "running",
        Status::Pausing => "pausing",
        Status::Paused => "paused",
        Status::Finished => "finished",
        Status::Stopped => "stopped",
    }
}

/// All metrics of a snapshot.
pub(super) fn text(snapshot: &Snapshot) -> String {
    let mut metrics = Metrics(String::new());
    let none = Labels::new;
    let version = vec![("version", snapshot.version.clone()), ("fleet", snapshot.fleet.clone())];
    metrics.add("fedtt_info", "gauge", "The host's program and fleet.", [(version, 1)]);
    let connected = u8::from(snapshot.broker.connected);
    metrics.add(
        "fedtt_broker_connected",
        "gauge",
        "Whether the host is connected to the broker.",
        [(none(), connected)],
    );
    metrics.add("fedtt_errors_total", "counter", "Errors since the start.", [(none(), snapshot.errors_total)]);
    let online = snapshot.devices.iter().filter(|d| d.online).count();
    let states = [("online", online), ("offline", snapshot.devices.len() - online)];
    let devices = states.map(|(state, n)| (vec![("state", state.to_string())], n));
    metrics.add("fedtt_devices", "gauge", "Devices known.", devices);
    let stray = kinds(&snapshot.refused).map(|(kind, n)| (vec![("kind", kind.to_string())], n));
    metrics.add("fedtt_refused_total", "counter", "Messages refused that belong to no run.", stray);

    let runs = || snapshot.runs.iter().map(|run| (vec![("run", run.summary.run.to_string())], run));
    let with = |mut labels: Labels, key, value: &str| {
        labels.push((key, value.to_string()));
        labels
    };
    let summaries = || runs().map(|(labels, run)| (labels, &run.summary));
    metrics.add(
        "fedtt_run_info",
        "gauge",
        "A run's name and status.",
        summaries().map(|(l, s)| (with(with(l, "name", &s.name), "status", status(s.status)), 1)),
    );
    metrics.add("fedtt_run_rounds", "gauge", "Rounds planned.", summaries().map(|(l, s)| (l, s.rounds)));
    metrics.add("fedtt_run_rounds_total", "counter", "Rounds done.", summaries().map(|(l, s)| (l, s.rounds_done)));
    metrics.add("fedtt_run_updates_total", "counter", "Updates aggregated.", summaries().map(|(l, s)| (l, s.updates)));
    metrics.add(
        "fedtt_run_traffic_bytes_total",
        "counter",
        "Bytes at the devices' sockets.",
        summaries().flat_map(|(l, s)| {
            [(with(l.clone(), "direction", "up"), s.traffic.up), (with(l, "direction", "down"), s.traffic.down)]
        }),
    );
    metrics.add(
        "fedtt_run_refused_total",
        "counter",
        "Messages not aggregated.",
        summaries().flat_map(|(l, s)| kinds(&s.refused).map(|(kind, n)| (with(l.clone(), "kind", kind), n))),
    );
    let last = || summaries().filter_map(|(l, s)| Some((l, s.last.as_ref()?)));
    metrics.add("fedtt_run_loss", "gauge", "Loss measured last.", last().map(|(l, m)| (l, m.loss)));
    let quality = last().map(|(l, m)| (with(l, "metric", &m.metric), m.value));
    metrics.add("fedtt_run_quality", "gauge", "Quality measured last.", quality);

    let rounds = || runs().filter_map(|(l, run)| Some((l, run.current.as_ref()?)));
    metrics.add("fedtt_round", "gauge", "The round going on, from 0.", rounds().map(|(l, r)| (l, r.round)));
    let collecting = || rounds().filter(|(_, r)| r.phase == Phase::Collecting);
    metrics.add("fedtt_round_cohort", "gauge", "Devices asked.", collecting().map(|(l, r)| (l, r.cohort.len())));
    metrics.add("fedtt_round_received", "gauge", "Updates in.", collecting().map(|(l, r)| (l, r.received)));
    let declined =
        |cohort: &[super::snapshot::MemberView]| cohort.iter().filter(|m| m.state == MemberState::Declined).count();
    metrics.add(
        "fedtt_round_declined",
        "gauge",
        "Devices that do not take part.",
        collecting().map(|(l, r)| (l, declined(&r.cohort))),
    );
    metrics.0
}
