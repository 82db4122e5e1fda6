//! Where messages go. Rounds are named in payloads, never in topics, so that topics stay few.
//!
//! | topic | from | retained | payload |
//! |---|---|---|---|
//! | `fedtt/{fleet}/host` | host | yes | who the host is |
//! | `fedtt/{fleet}/presence/{device}` | device, and its last will | yes | presence |
//! | `fedtt/{fleet}/run/{run}/plan` | host | yes | plan; the run's end |
//! | `fedtt/{fleet}/run/{run}/round` | host | yes | manifest of the current round |
//! | `fedtt/{fleet}/run/{run}/change/{chunk}` | host | yes | chunks of the change since the round before |
//! | `fedtt/{fleet}/run/{run}/state/{chunk}` | host | yes | chunks of a whole global state |
//! | `fedtt/{fleet}/up/{device}` | device | no | updates, progress, refusals, needs, hellos |
//! | `fedtt/{fleet}/down/{device}` | host | no | verdicts, refusals, greetings |
//! | `fedtt/{fleet}/enroll/{request}/ask` | device | no | request for a certificate |
//! | `fedtt/{fleet}/enroll/{request}/answer` | host | no | the certificate, or why there is none |

use crate::names::{DeviceName, FleetName, RequestId, RunId};

/// The topics of one fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    root: String,
}

/// What a topic of the fleet is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Who the host is.
    Host,
    /// A device's presence.
    Presence(DeviceName),
    /// A run's plan.
    Plan(RunId),
    /// A run's current round.
    Round(RunId),
    /// A part of what changed since the round before.
    Change(RunId, u32),
    /// A part of a global state.
    State(RunId, u32),
    /// From a device to the host.
    Up(DeviceName),
    /// From the host to a device.
    Down(DeviceName),
    /// A request for a certificate, from a device that may not be of the fleet yet.
    Ask(RequestId),
    /// The host's answer to it.
    Answer(RequestId),
}

impl Topics {
    /// The topics of `fleet`.
    pub fn new(fleet: &FleetName) -> Self {
        Topics { root: format!("fedtt/{fleet}") }
    }

    /// The topic's name.
    pub fn name(&self, topic: &Topic) -> String {
        let root = &self.root;
        match topic {
            Topic::Host => format!("{root}/host"),
            Topic::Presence(device) => format!("{root}/presence/{device}"),
            Topic::Plan(run) => format!("{root}/run/{run}/plan"),
            Topic::Round(run) => format!("{root}/run/{run}/round"),
            Topic::Change(run, chunk) => format!("{root}/run/{run}/change/{chunk}"),
            Topic::State(run, chunk) => format!("{root}/run/{run}/state/{chunk}"),
            Topic::Up(device) => format!("{root}/up/{device}"),
            Topic::Down(device) => format!("{root}/down/{device}"),
            Topic::Ask(request) => format!("{root}/enroll/{request}/ask"),
            Topic::Answer(request) => format!("{root}/enroll/{request}/answer"),
        }
    }

    /// What a topic's name means; `None` for topics that are not this fleet's or hold an unsafe name.
    pub fn parse(&self, name: &str) -> Option<Topic> {
        let rest = name.strip_prefix(&self.root)?.strip_prefix('/')?;
        let parts: Vec<&str> = rest.split('/').collect();
        let device = |name: &str| DeviceName::new(name).ok();
        let run = |name: &str| RunId::new(name).ok();
        Some(match parts.as_slice() {
            ["host"] => Topic::Host,
            ["presence", name] => Topic::Presence(device(name)?),
            ["run", name, "plan"] => Topic::Plan(run(name)?),
            ["run", name, "round"] => Topic::Round(run(name)?),
            ["run", name, "change", chunk] => Topic::Change(run(name)?, chunk.parse().ok()?),
            ["run", name, "state", chunk] => Topic::State(run(name)?, chunk.parse().ok()?),
            ["up", name] => Topic::Up(device(name)?),
            ["down", name] => Topic::Down(device(name)?),
            ["enroll", name, "ask"] => Topic::Ask(RequestId::new(*name).ok()?),
            ["enroll", name, "answer"] => Topic::Answer(RequestId::new(*name).ok()?),
            _ => return None,
        })
    }

    /// What the host listens to: every presence, everything devices send.
    pub fn host_filters(&self) -> Vec<String> {
        let root = &self.root;
        vec![format!("{root}/presence/+"), format!("{root}/up/+")]
    }

    /// What a host that enrols devices listens to as well.
    pub fn enrolment_filter(&self) -> String {
        format!("{}/enroll/+/ask", self.root)
    }

    /// What a device always listens to: who the host is, plans, rounds, changes, and what is for it alone.
    pub fn device_filters(&self, device: &DeviceName) -> Vec<String> {
        let root = &self.root;
        vec![
            format!("{root}/host"),
            format!("{root}/down/{device}"),
            format!("{root}/run/+/plan"),
            format!("{root}/run/+/round"),
            format!("{root}/run/+/change/+"),
        ]
    }

    /// Where the host, runs and their rounds are announced, of [`Topics::device_filters`].
    pub fn announcements(&self) -> [String; 3] {
        ["host", "run/+/plan", "run/+/round"].map(|topic| format!("{}/{topic}", self.root))
    }

    /// What a device listens to while it lacks a run's global state.
    pub fn state_filter(&self, run: &RunId) -> String {
        format!("{}/run/{run}/state/+", self.root)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_read_back_and_foreign_ones_are_not() {
        let topics = Topics::new(&FleetName::new("north").unwrap());
        let (device, run) = (DeviceName::new("d1").unwrap(), RunId::new("r1").unwrap());
        let all = [
            Topic::Host,
            Topic::Presence(device.clone()),
            Topic::Plan(run.clone()),
            Topic::Round(run.clone()),
            Topic::Change(run.clone(), 3),
            Topic::State(run.clone(), 0),
            Topic::Up(device.clone()),
            Topic::Down(device),
            Topic::Ask(RequestId::new("0f").unwrap()),
            Topic::Answer(RequestId::new("0f").unwrap()),
        ];
        for topic in all {
            assert_eq!(topics.parse(&topics.name(&topic)), Some(topic));
        }
        let foreign = ["fedtt/south/up/d1", "fedtt/north", "fedtt/north/up", "fedtt/north/up/a/b", "fedtt/north/up/+"];
        let odd = [
            "fedtt/north/enroll/0f",
            "fedtt/northern/up/d1",
            "fedtt/north/run/r1/change/-1",
            "fedtt/north/run/r1/else",
            "",
        ];
        for name in foreign.into_iter().chain(odd) {
            assert_eq!(topics.parse(name), None, "{name}");
        }
    }
}
