//! What is asked of the host, and its answers. What needs a bundle is prepared outside of the loop, which never waits for it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use fedtt_edge::source::Source;
use fedtt_wire::{Plan, RunId};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::hub::Hub;
use super::registry::{Registry, Tests};
use super::scribe::Events;
use super::{DaemonError, measuring, now, view};
use crate::control::Request;
use crate::control::fleet::{self, FleetRequest};
use crate::coordinator::RequestError;
use crate::fleet::Registrar;
use crate::model;
use crate::run::{Blueprint, RunError};

/// An answer.
pub(crate) enum Reply {
    /// What was asked for.
    Data(Value),
    /// The same, and what happens from then on.
    Watch {
        /// The run.
        run: String,
        /// How it stands.
        data: Value,
        /// What happens, in all runs.
        events: Events,
    },
}

pub(super) type Answer = oneshot::Sender<Result<Value, String>>;

/// A question to the loop.
pub(super) enum Ask {
    /// A plan that fits its backbone.
    Start { prepared: Box<Prepared>, token: Option<String>, test: Tests, answer: Answer },
    /// Something that needs no preparation.
    Plain { request: Request, answer: Answer },
    /// A run and what happens in it.
    Watch { run: String, answer: Answer, events: oneshot::Sender<Events> },
    /// To remove runs, and their folders too.
    Remove { runs: Vec<String>, files: bool, answer: Answer },
    /// To write a run's adapter.
    Adapter { run: String, answer: oneshot::Sender<Result<PathBuf, String>> },
}

/// A plan that fits its backbone, which is there.
pub(super) struct Prepared {
    plan: Plan,
    blueprint: Blueprint,
    source: Source,
    /// The bundle's folder; none for the embedded encoder.
    folder: Option<PathBuf>,
}

/// Where requests are taken.
pub(crate) struct Desk {
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) registry: Arc<Registry>,
    pub(super) registrar: Arc<Mutex<Registrar>>,
}

const GONE: &str = "the host is stopping";

async fn answered<T>(answer: oneshot::Receiver<Result<T, String>>) -> Result<T, String> {
    answer.await.unwrap_or_else(|_| Err(GONE.into()))
}

impl Desk {
    /// Answers a request.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub(crate) async fn ask(&self, request: Request) -> Result<Reply, String> {
        let (answer, reply) = oneshot::channel();
        let ask = |ask| async { self.asks.send(ask).await.map_err(|_| GONE.to_string()) };
        match request {
            Request::Start { plan, path, token, test, reading } => {
                let test = Tests { files: test, reading };
                let files = test.clone();
                let prepared = tokio::task::spawn_blocking(move || prepare(&plan, &path, &files));
                let prepared = Box::new(prepared.await.map_err(|e| e.to_string())??);
                ask(Ask::Start { prepared, token, test, answer }).await?;
                answered(reply).await.map(Reply::Data)
            }
            Request::Watch { run } => {
                let (events, subscribed) = oneshot::channel();
                ask(Ask::Watch { run: run.clone(), answer, events }).await?;
                let data = answered(reply).await?;
                let events = subscribed.await.map_err(|_| GONE.to_string())?;
                Ok(Reply::Watch { run, data, events })
            }
            Request::Adapter { run } => {
                let (answer, written) = oneshot::channel();
                let (shown, show) = oneshot::channel();
                ask(Ask::Plain { request: Request::Show { run: run.clone() }, answer: shown }).await?;
                let data = answered(show).await?;
                ask(Ask::Adapter { run, answer }).await?;
                let path = answered(written).await?;
                let bundle = data["plan"]["model"]["bundle"].as_str().unwrap_or_default();
                let folder = self.registry.folder(bundle).map_err(|e| e.to_string())?;
                Ok(Reply::Data(json!({ "adapter": path, "bundle": folder, "hash": bundle })))
            }
            Request::Remove { runs, files } => {
                ask(Ask::Remove { runs, files, answer }).await?;
                answered(reply).await.map(Reply::Data)
            }
            Request::Fleet { ask } => self.about_identities(ask).await.map(Reply::Data),
            Request::Devices => {
                ask(Ask::Plain { request, answer }).await?;
                let mut data = answered(reply).await?;
                add_identities(&mut data, &self.about_identities(FleetRequest::Known).await?);
                Ok(Reply::Data(data))
            }
            request => {
                ask(Ask::Plain { request, answer }).await?;
                answered(reply).await.map(Reply::Data)
            }
        }
    }
}

impl Desk {
    async fn about_identities(&self, ask: FleetRequest) -> Result<Value, String> {
        let (registrar, runtime) = (self.registrar.clone(), tokio::runtime::Handle::current());
        let answered = tokio::task::spawn_blocking(move || fleet::answer(&registrar, &runtime, ask)).await;
        answered.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }
}

/// Adds to each device how it is known, and the devices that are known and were not heard of.
fn add_identities(data: &mut Value, known: &Value) {
    let mut known = known["devices"].as_object().cloned().unwrap_or_default();
    let Some(devices) = data["devices"].as_array_mut() else { return };
    for device in devices.iter_mut() {
        let identity = device["name"].as_str().and_then(|name| known.remove(name));
        device["identity"] = identity.unwrap_or(Value::Null);
    }
    for (name, identity) in known {
        devices.push(json!({ "name": name, "online": false, "identity": identity }));
    }
}

/// Everything about a plan that needs its bundle and files.
fn prepare(text: &str, path: &std::path::Path, test: &Tests) -> Result<Prepared, String> {
    let (plan, source) = model::resolve(text, path).map_err(|e| e.to_string())?;
    let blueprint = model::blueprint(&plan, &source).map_err(|e| format!("{}: {e}", path.display()))?;
    measuring::read(test, plan.model.task).map_err(|e| format!("{e:#}"))?;
    let named = toml::from_str::<Plan>(text).map(|plan| plan.model.bundle).unwrap_or_default();
    let folder =
        path.parent().map(|parent| parent.join(&named)).filter(|folder| named != model::EMBEDDED && folder.exists());
    Ok(Prepared { plan, blueprint, source, folder })
}

/// A refusal is for who asked; a fault of the database ends the host.
pub(super) fn refused<T>(outcome: Result<T, RequestError>) -> Result<Result<T, String>, DaemonError> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(RequestError::Run(RunError::Store(error))) => Err(error.into()),
        Err(error) => Ok(Err(error.to_string())),
    }
}

impl Hub {
    pub(super) fn answer(&mut self, ask: Ask) -> Result<(), DaemonError> {
        // Whoever asked may be gone by now: that their answer cannot be sent is no error.
        match ask {
            Ask::Start { prepared, token, test, answer } => {
                let Prepared { plan, blueprint, source, folder } = *prepared;
                // Here, where what no run needs is forgotten as well.
                if let Err(error) = self.registry.add(source, folder) {
                    drop(answer.send(Err(error.to_string())));
                    return Ok(());
                }
                let started = refused(self.coordinator.start(plan, blueprint, token.as_deref(), now()))?;
                let _ = answer.send(self.started(started, test)?);
            }
            Ask::Plain { request, answer } => {
                let reply = self.plain(request)?;
                let _ = answer.send(reply);
            }
            Ask::Watch { run, answer, events } => {
                let shown = self.show(&run)?;
                if shown.is_ok() {
                    self.scribe.subscribe(events);
                }
                let _ = answer.send(shown);
            }
            Ask::Remove { runs, files, answer } => self.remove(&runs, files, answer)?,
            Ask::Adapter { run, answer } => match self.find(&run) {
                Ok(run) => self.write_adapter(&run, Some(answer))?,
                Err(error) => drop(answer.send(Err(error))),
            },
        }
        Ok(())
    }

    fn started(
        &mut self,
        started: Result<(RunId, bool), String>,
        test: Tests,
    ) -> Result<Result<Value, String>, DaemonError> {
        let (run, fresh) = match started {
            Ok(started) => started,
            Err(error) => return Ok(Err(error)),
        };
        if !test.files.is_empty()
            && self.registry.tests(run.as_str()).files.is_empty()
            && let Err(error) = self.registry.add_tests(run.as_str(), test)
        {
            return Ok(Err(format!("run {run} is started, but its --test files cannot be remembered: {error}")));
        }
        if !self.tests(&run).files.is_empty() {
            self.coordinator.measures(run.clone());
        }
        self.turn(Vec::new())?;
        let summary = self.coordinator.runs().get(&run).map(|run| run.summary());
        Ok(Ok(json!({ "run": run, "started": fresh, "summary": summary })))
    }

    fn plain(&mut self, request: Request) -> Result<Result<Value, String>, DaemonError> {
        Ok(match request {
            Request::List => {
                let runs: Vec<Value> = self.coordinator.runs().values().map(|run| json!(run.summary())).collect();
                Ok(json!({ "runs": runs }))
            }
            Request::Show { run } => self.show(&run)?,
            Request::Command { run, command } => {
                let done = refused(self.coordinator.command(&run, command, now()))?;
                self.turn(Vec::new())?;
                done.map(|status| json!({ "run": run, "status": status }))
            }
            Request::Devices => {
                let mut devices = Vec::new();
                for (name, device) in self.coordinator.devices() {
                    let mut shown = json!(view::device_view(name, device));
                    shown["bundles"] = json!(device.presence.bundles);
                    shown["fetching"] = json!(device.presence.fetching);
                    let runs = self.coordinator.runs().values().filter(|run| run.summary().devices.contains(name));
                    shown["runs"] = runs.map(|run| run.id().to_string()).collect();
                    devices.push(shown);
                }
                Ok(json!({ "devices": devices }))
            }
            Request::Start { .. }
            | Request::Watch { .. }
            | Request::Remove { .. }
            | Request::Adapter { .. }
            | Request::Fleet { .. } => Err("this request is prepared elsewhere".into()),
        })
    }

    fn find(&self, run: &str) -> Result<RunId, String> {
        let known = RunId::new(run).ok().filter(|run| self.coordinator.runs().contains_key(run));
        known.ok_or_else(|| RequestError::NoRun(run.to_string()).to_string())
    }

    fn show(&self, run: &str) -> Result<Result<Value, String>, DaemonError> {
        let run = match self.find(run) {
            Ok(run) => run,
            Err(error) => return Ok(Err(error)),
        };
        let Some(report) = self.report(&run)? else { return Ok(Err(RequestError::NoRun(run.to_string()).to_string())) };
        let current = self.coordinator.runs().get(&run).and_then(|run| view::round(run, self.coordinator.devices()));
        Ok(Ok(json!({
            "summary": report.summary,
            "plan": report.plan,
            "rounds": report.rounds,
            "current": current,
        })))
    }
}
