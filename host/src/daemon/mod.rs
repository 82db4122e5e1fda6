//! The host as a process: [`crate::coordinator`] over MQTT, its state on disk, requests from the command line, a live page.
//!
//! [`serve`] wires them. The loop in `hub` has a thread of its own; files are written by the one in `scribe`, adapters
//! measured by the one in `measuring`; link, page and control socket are tasks of the runtime.

pub(crate) mod answer;
mod config;
mod enrolment;
mod gate;
mod hub;
mod measuring;
mod outbox;
mod pages;
mod registry;
mod removing;
mod scribe;
mod tell;
mod upkeep;
mod view;

use std::os::unix::fs::DirBuilderExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fedtt_identity::authority::{CLIENT_ID, HOST};
use fedtt_link::broker::EmbeddedBroker;
use fedtt_link::{BrokerUrl, Link, LinkConfig, LinkError};
use fedtt_wire::names::NameError;
use fedtt_wire::{FleetName, Topics};
use tokio::sync::{mpsc, oneshot, watch};

pub use config::{
    ConfigError, EmbeddedSettings, EvaluationSettings, HostConfig, ReconnectSettings, SecuritySettings, WebSettings,
    state_folder,
};
pub use registry::RegistryError;
pub use tell::{Tell, Told};

use crate::artefacts::ArtefactError;
use crate::control;
use crate::coordinator::Coordinator;
use crate::fleet::{self, Devices, FleetError, Registrar};
use crate::run::RunError;
use crate::store::{Store, StoreError};
use crate::web::snapshot::{Broker, Snapshot};
use answer::Desk;
use gate::{Gate, Sealer};
use hub::{Hub, HubState};
use measuring::Measuring;
use outbox::Outbox;
use pages::Pages;
use registry::Registry;
use scribe::Scribe;
use tell::Teller;

/// Largest packet that comes in; brokers are to have a lower limit.
const MAX_PACKET: usize = 72 << 20;

/// Bytes of messages that may wait before the link is left unread: devices, and what they send, wait in the broker.
const WAITING: usize = 4 << 20;

/// Why a host stopped, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The fleet's name cannot be used.
    #[error("setting `fleet`: {0}")]
    Fleet(#[from] NameError),
    /// A folder, socket or address cannot be used.
    #[error("{what}: {source}")]
    Io {
        /// Which.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A run cannot be carried on.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Bundles and test files cannot be remembered.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What runs leave behind cannot be written.
    #[error(transparent)]
    Artefacts(#[from] ArtefactError),
    /// The broker or the link cannot be set up.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The fleet's identities cannot be kept.
    #[error(transparent)]
    Identities(#[from] FleetError),
    /// The loop is gone.
    #[error("the host's loop {0}")]
    Loop(&'static str),
}

/// Unix milliseconds.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> DaemonError {
    let what = what.into();
    |source| DaemonError::Io { what, source }
}

/// Serves a fleet until `shutdown` is ready. `tell` is called, from any thread, with what happens.
///
/// # Errors
/// When the settings cannot be used, an address is taken, or the database fails.
pub async fn serve(config: HostConfig, shutdown: impl Future<Output = ()>, tell: Tell) -> Result<(), DaemonError> {
    let fleet = FleetName::new(config.fleet.clone())?;
    let teller = Teller::new(tell);
    let state = &config.state;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state);
    made.map_err(io(format!("state folder {}", state.display())))?;
    let store = Store::open(&state.join("host.redb"))?;
    let registry = Arc::new(Registry::open(&state.join("known.json"))?);
    let coordinator = Coordinator::open(store, now())?.within(config.limits());
    let folder = fleet::folder(state);
    std::fs::create_dir_all(&folder).map_err(io(format!("folder {}", folder.display())))?;
    let host_key = Arc::new(fleet::host_key(&fleet::host_key_file(state)).map_err(FleetError::from)?);
    let devices = Devices::open(&fleet::devices_file(state))?;
    let mut registrar =
        Registrar::open(state, fleet.clone(), config.identity.clone(), host_key.clone(), devices.clone())?;
    if let Some(problem) = registrar.take_problem() {
        teller.warn("broker", problem);
    }
    let registrar = Arc::new(Mutex::new(registrar));
    // Before the host comes to the broker: what it comes with may have ended.
    let kept = upkeep::look(&registrar, &teller).await;
    let scribe = Scribe::start(&config.runs, registry.clone(), teller.clone())?;

    let broker = match config.broker {
        Some(_) => None,
        None => Some(EmbeddedBroker::start(config.broker_config()).await?),
    };
    let url: BrokerUrl = match (&config.broker, &broker) {
        (Some(url), _) => url.parse()?,
        (None, Some(broker)) => broker.url(),
        (None, None) => return Err(DaemonError::Loop("has no broker")),
    };
    let (link, inbox) = connect(&config, &fleet, url.clone()).await?;
    let sealer = Sealer::new(Topics::new(&fleet), host_key.clone());
    let (outbox, publishing) = {
        let teller = teller.clone();
        Outbox::new(link.clone(), sealer.clone(), config.limits().packet, move |error| teller.warn("broker", error))
    };

    link.subscribe(Topics::new(&fleet).enrolment_filter()).await?;
    let enrolment = enrolment::start(registrar.clone(), link.clone(), teller.clone());
    let upkeep = kept.map(|kept| tokio::spawn(upkeep::run(registrar.clone(), link.clone(), teller.clone(), kept)));
    let (asks, asked) = mpsc::channel(64);
    let (measured, measurements) = mpsc::unbounded_channel();
    let measuring = Measuring::start(registry.clone(), measured, teller.clone()).map_err(io("a thread"))?;
    let (snapshot, view) = watch::channel(Arc::new(Snapshot::default()));
    let hub = Hub {
        coordinator,
        topics: Topics::new(&fleet),
        fleet: fleet.to_string(),
        broker: Broker { address: url.to_string(), embedded: broker.is_some(), connected: false },
        gate: Gate::new(sealer, devices.clone(), config.enrolled_only(&url)),
        inbox,
        asks: asked,
        enrolment,
        outbox,
        scribe,
        measuring,
        measured: measurements,
        registry: registry.clone(),
        snapshot,
        teller: teller.clone(),
        tests: config.evaluation.data.clone(),
        state: HubState::default(),
    };

    let pages = Pages::start(&config, view, registry.clone()).await?;
    let control = control::listen(state, Desk { asks, registry, registrar })
        .map_err(io(format!("control socket {}", control::socket(state).display())))?;

    let (stop, stopped) = oneshot::channel();
    let mut ended = start(hub, stopped)?;
    teller.say(Told::Ready {
        broker: url.to_string(),
        embedded: broker.is_some(),
        web: pages.web,
        bundles: pages.bundles,
        control: control.path().to_path_buf(),
        key: host_key.public(),
    });

    let outcome = tokio::select! {
        outcome = &mut ended => outcome,
        () = shutdown => {
            drop(stop);
            ended.await
        }
    };
    drop(control);
    upkeep.iter().for_each(tokio::task::JoinHandle::abort);
    let pages = pages.stop();
    // The outbox is dropped with the loop: what it holds is handed to the link, which sends it before it takes leave. With a
    // broker that is away there may be no room for it.
    let _ = tokio::time::timeout(Duration::from_secs(1), publishing).await;
    link.shutdown().await;
    pages.await;
    if let Some(broker) = broker {
        broker.shutdown().await?;
    }
    outcome.unwrap_or(Err(DaemonError::Loop("panicked")))
}

async fn connect(
    config: &HostConfig,
    fleet: &FleetName,
    url: BrokerUrl,
) -> Result<(Link, fedtt_link::Inbox), DaemonError> {
    let link = LinkConfig {
        tls: config.tls_files(),
        max_packet: MAX_PACKET,
        incoming_bytes: WAITING,
        retry: config.retry(),
        ..LinkConfig::new(url, format!("{CLIENT_ID}{HOST}-{fleet}"))
    };
    let (link, inbox) = Link::connect(link).await?;
    for filter in Topics::new(fleet).host_filters() {
        link.subscribe(filter).await?;
    }
    Ok((link, inbox))
}

/// Starts the loop on a thread of its own.
fn start(hub: Hub, stop: oneshot::Receiver<()>) -> Result<oneshot::Receiver<Result<(), DaemonError>>, DaemonError> {
    let runtime = tokio::runtime::Handle::current();
    let (end, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("coordinator".into());
    // Not joined: it tells its end.
    let _thread = thread
        .spawn(move || {
            // An error: nobody waits for it any more.
            let _ = end.send(runtime.block_on(hub.run(stop)));
        })
        .map_err(io("a thread"))?;
    Ok(ended)
}
