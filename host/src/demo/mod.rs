//! A whole federation on one machine: the host's daemon with its broker, devices as they run on boards, all over MQTT.

mod methods;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fedtt_edge::daemon as device;
use fedtt_edge::data::Dataset;
use fedtt_edge::round::LocalPolicy;
use fedtt_edge::source::Source;
use fedtt_link::BrokerUrl;
use fedtt_runtime::EngineConfig;
use fedtt_wire::{DeviceName, FleetName, Plan};
use tokio::sync::{mpsc, oneshot, watch};

use crate::control::{Client, ControlError, Request};
use crate::daemon::{self, EmbeddedSettings, HostConfig, Told, WebSettings};
use crate::record::{RoundRecord, RunSummary, Status};
use crate::report::RunReport;
use crate::run::{RunEvent, What};

pub use methods::{Method, methods};

/// What the demonstration consists of.
pub struct Demo {
    /// The backbone all devices have.
    pub source: Arc<Source>,
    /// Where it came from: a bundle's folder, or none for the embedded one.
    pub bundle: Option<PathBuf>,
    /// Each device's examples.
    pub data: Vec<Dataset>,
    /// Files the host measures every round's adapter on.
    pub test: Vec<PathBuf>,
    /// The federations, one after the other.
    pub methods: Vec<Method>,
    /// What runs the graphs.
    pub engine: EngineConfig,
    /// Where the runs' folders go.
    pub runs: PathBuf,
    /// Where host and devices keep their state.
    pub state: PathBuf,
}

/// One federation of the demonstration.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The method's name.
    pub name: String,
    /// Its run.
    pub report: RunReport,
    /// Seconds it took.
    pub seconds: f64,
}

/// The demonstration failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The host failed.
    #[error(transparent)]
    Host(#[from] daemon::DaemonError),
    /// A device failed.
    #[error("device {name}: {source}")]
    Device {
        /// Which.
        name: String,
        /// Why.
        source: Box<device::DaemonError>,
    },
    /// A device cannot take part.
    #[error("device {name}: {reason}")]
    Unready {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// The host refused.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A plan cannot be written.
    #[error("the plan of {name}: {reason}")]
    Plan {
        /// Whose.
        name: String,
        /// Why.
        reason: String,
    },
    /// A name or an address cannot be used.
    #[error("{0}")]
    Name(String),
    /// A run did not come to its end.
    #[error("{name}: {reason}")]
    Unfinished {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Told of what goes on.
pub trait Watcher: Send + Sync {
    /// Broker and live page are up.
    fn ready(&self, broker: &str);
    /// A federation begins.
    fn began(&self, method: &Method);
    /// Something happened in it.
    fn event(&self, method: &Method, event: &RunEvent);
    /// It is over.
    fn finished(&self, finished: &Finished);
}

/// Runs all federations of the demonstration, one after the other, on the same devices.
///
/// # Errors
/// When the host or a device fails, or a run does not come to its end.
pub async fn run(demo: Demo, watcher: &dyn Watcher) -> Result<Vec<Finished>, DemoError> {
    let (stop, stopped) = watch::channel(false);
    let (events_in, mut events) = mpsc::unbounded_channel();
    let (ready_in, ready) = oneshot::channel();
    let ready_in = std::sync::Mutex::new(Some(ready_in));
    let tell = move |told: Told| match told {
        Told::Ready { broker, .. } => {
            let sender = ready_in.lock().ok().and_then(|mut slot| slot.take());
            if let Some(sender) = sender {
                // An error: nobody waits any more.
                let _ = sender.send(broker);
            }
        }
        Told::Event(event) => drop(events_in.send(event)),
        _ => {}
    };
    let host = tokio::spawn(daemon::serve(host_config(&demo), until(stopped.clone()), Arc::new(tell)));
    let Ok(broker) = ready.await else {
        return match host.await {
            Ok(outcome) => outcome.map(|()| Vec::new()).map_err(DemoError::from),
            Err(_) => Err(DemoError::Name("the host panicked".into())),
        };
    };
    watcher.ready(&broker);
    let mut devices = tokio::task::JoinSet::new();
    for (i, data) in demo.data.iter().enumerate() {
        let settings = device_settings(&demo, i, data, &broker)?;
        let (name, stopped) = (settings.name.to_string(), stopped.clone());
        devices.spawn(async move {
            let (unready_in, mut unready) = mpsc::unbounded_channel();
            let tell = move |told| {
                if let device::Told::Unready { reason } = told {
                    // An error: the first was heard.
                    let _ = unready_in.send(reason);
                }
            };
            tokio::select! {
                outcome = device::run(settings, until(stopped), tell) => {
                    outcome.map_err(|source| DemoError::Device { name, source: Box::new(source) })
                }
                // A fleet's device would wait for somebody to mend it.
                Some(reason) = unready.recv() => Err(DemoError::Unready { name, reason }),
            }
        });
    }
    let mut all = Vec::new();
    let outcome = loop {
        let Some(method) = demo.methods.get(all.len()) else { break Ok(()) };
        watcher.began(method);
        tokio::select! {
            finished = one(&demo, method, &mut events, watcher) => match finished {
                Ok(finished) => {
                    watcher.finished(&finished);
                    all.push(finished);
                }
                Err(error) => break Err(error),
            },
            Some(ended) = devices.join_next() => break match ended {
                Ok(Err(error)) => Err(error),
                _ => Err(DemoError::Name("a device stopped by itself".into())),
            },
        }
    };
    // An error: all are gone already.
    let _ = stop.send(true);
    while devices.join_next().await.is_some() {}
    match host.await {
        Ok(Err(error)) if outcome.is_ok() => return Err(error.into()),
        _ => outcome?,
    }
    Ok(all)
}

fn host_config(demo: &Demo) -> HostConfig {
    let loopback = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
    HostConfig {
        fleet: "demo".into(),
        state: demo.state.join("host"),
        runs: demo.runs.clone(),
        embedded: EmbeddedSettings { bind: loopback, ..EmbeddedSettings::default() },
        web: WebSettings { enabled: false, ..WebSettings::default() },
        ..HostConfig::default()
    }
}

fn device_settings(demo: &Demo, i: usize, data: &Dataset, broker: &str) -> Result<device::Settings, DemoError> {
    let name = format!("device-{}", i + 1);
    let odd = |e: &dyn std::fmt::Display| DemoError::Name(e.to_string());
    Ok(device::Settings {
        broker: broker.parse::<BrokerUrl>().map_err(|e| odd(&e))?,
        tls: None,
        host_key: None,
        fleet: FleetName::new("demo").map_err(|e| odd(&e))?,
        state: demo.state.join(&name),
        name: DeviceName::new(name).map_err(|e| odd(&e))?,
        labels: Vec::new(),
        bundles: Vec::new(),
        sources: vec![demo.source.clone().into()],
        data: device::Data::Given(Arc::new(data.clone())),
        policy: LocalPolicy::default(),
        board: None,
        limits: Default::default(),
        engine: demo.engine.clone(),
        workshop: None,
        fetch: Default::default(),
    })
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error: whoever could stop it is gone.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// One federation, from its plan to its last round.
async fn one(
    demo: &Demo,
    method: &Method,
    events: &mut mpsc::UnboundedReceiver<RunEvent>,
    watcher: &dyn Watcher,
) -> Result<Finished, DemoError> {
    let mut plan: Plan = method.plan.clone();
    plan.selection.min = demo.data.len() as u32;
    plan.model.bundle = demo.bundle.as_ref().map_or_else(|| "embedded".into(), |b| b.display().to_string());
    let unwritten = |e: toml::ser::Error| DemoError::Plan { name: method.name.clone(), reason: e.to_string() };
    let plan = toml::to_string(&plan).map_err(unwritten)?;
    let path = demo.state.join(format!("{}.toml", method.name));
    let request = Request::Start { plan, path, token: None, test: demo.test.clone(), reading: Default::default() };
    let state = demo.state.join("host");
    let asked = tokio::task::spawn_blocking(move || Client::connect(&state)?.ask(request)).await;
    let answer = asked.map_err(|_| DemoError::Name("asking the host failed".into()))??;
    let run = answer["run"].as_str().unwrap_or_default().to_string();
    let unfinished = |reason: String| DemoError::Unfinished { name: method.name.clone(), reason };
    let mut finished = false;
    while !finished {
        let Some(event) = events.recv().await else { return Err(unfinished("the host stopped".into())) };
        if event.run != run {
            continue;
        }
        watcher.event(method, &event);
        match &event.what {
            What::Status { status: Status::Finished, .. } => finished = true,
            What::Status { status: Status::Paused | Status::Stopped, reason } => {
                return Err(unfinished(reason.clone().unwrap_or_else(|| "it was stopped".into())));
            }
            _ => {}
        }
    }
    let report = shown(demo, &run).await?;
    let seconds = report.rounds.iter().map(|round| round.seconds).sum();
    Ok(Finished { name: method.name.clone(), report, seconds })
}

/// A run as the host shows it.
async fn shown(demo: &Demo, run: &str) -> Result<RunReport, DemoError> {
    #[derive(serde::Deserialize)]
    struct Shown {
        summary: RunSummary,
        plan: Plan,
        rounds: Vec<RoundRecord>,
    }
    let (state, run) = (demo.state.join("host"), run.to_string());
    let request = Request::Show { run };
    let asked = tokio::task::spawn_blocking(move || Client::connect(&state)?.ask(request)).await;
    let answer = asked.map_err(|_| DemoError::Name("asking the host failed".into()))??;
    let odd = |e: serde_json::Error| ControlError::Content(e.to_string());
    let Shown { summary, plan, rounds } = serde_json::from_value(answer).map_err(odd)?;
    Ok(RunReport { summary, plan, rounds })
}

/// Writes labelled examples as a table, for a host to measure on.
///
/// # Errors
/// When the file cannot be written.
pub fn write_table(data: &Dataset, path: &Path) -> std::io::Result<()> {
    let clean = |text: &str| text.replace(['\t', '\n', '\r'], " ");
    let mut table = String::from("label\ttext\n");
    for example in &data.examples {
        let label = example.label.as_deref().unwrap_or_default();
        table += &format!("{}\t{}\n", clean(label), clean(&example.text));
    }
    std::fs::write(path, table)
}
