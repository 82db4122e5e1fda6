//! Who a device is and where it goes: by its settings, or by its enrolment.
//!
//! Files for TLS in the settings go before what the device was enrolled with, for brokers with certificates of their own.
//! Without them, an enrolled device has name, fleet and certificate of its enrolment, and goes to the broker of then unless
//! the settings name another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fedtt_identity::Seed;
use fedtt_link::TlsFiles;
use fedtt_wire::DeviceName;

use super::config::{ConfigError, EdgeConfig, machine};
use super::readiness::{self, Silent, Unready};
use super::service::{Alive, Service};
use super::telling::{Tell, telling};
use super::{DaemonError, Settings, Told};
use crate::identity::{EnrollError, Enrolled, Identity, Step, enroll, enrolled, own_name, tls};

/// Seed files that are looked for where the settings name none.
const SEED: &str = "enroll.toml";
const SYSTEM_SEED: &str = "/etc/fedtt/enroll.toml";

/// Who a device is and where it goes.
pub(super) struct Place {
    pub(super) broker: String,
    pub(super) tls: Option<TlsFiles>,
    pub(super) fleet: String,
    pub(super) name: String,
    pub(super) labels: Vec<String>,
}

impl Place {
    /// By the settings, and the enrolment if there was one.
    pub(super) fn of(config: &EdgeConfig) -> Result<Self, DaemonError> {
        let (broker, labels) = (config.broker.clone(), config.labels.clone());
        let known = match config.tls.clone().named() {
            None => enrolled(&config.state.join("identity"))?,
            Some(_) => None,
        };
        let Some(known) = known else {
            let unnamed =
                || ConfigError::Field { field: "name", message: "the machine's name is unknown; give one".into() };
            let name = config.name.clone().or_else(machine).ok_or_else(unnamed)?;
            return Ok(Place { broker, tls: config.tls.clone().named(), fleet: config.fleet.clone(), name, labels });
        };
        let same = |field, setting: &str, enrolled: &str| match setting == enrolled {
            true => Ok(()),
            false => {
                let message = format!("this device is enrolled as `{enrolled}`; remove the setting, or enrol it anew");
                Err(ConfigError::Field { field, message })
            }
        };
        let defaults = EdgeConfig::default();
        if let Some(name) = &config.name {
            same("name", name, known.name.as_str())?;
        }
        if config.fleet != defaults.fleet {
            same("fleet", &config.fleet, known.fleet.as_str())?;
        }
        let broker = if config.broker == defaults.broker { known.broker.clone() } else { broker };
        let tls = broker.starts_with("mqtts:").then(|| tls(&config.state.join("identity")));
        let more = known.labels.iter().filter(|label| !config.labels.contains(label)).cloned();
        let labels = labels.into_iter().chain(more).collect();
        Ok(Place { broker, tls, fleet: known.fleet.to_string(), name: known.name.to_string(), labels })
    }
}

/// The seed file a device that is not enrolled is to enrol with: the one its settings name, `enroll.toml` beside the
/// settings file, or that of the system. One that is not there has been used.
///
/// # Errors
/// When what the device was enrolled with cannot be read.
pub(super) fn seed_file(config: &EdgeConfig, settings: Option<&Path>) -> Result<Option<PathBuf>, DaemonError> {
    let set = config.tls.clone().named().is_some() || config.broker != EdgeConfig::default().broker;
    if enrolled(&config.state.join("identity"))?.is_some() || (set && config.enroll.is_none()) {
        return Ok(None);
    }
    let named = config.enroll.clone().filter(|path| path.exists());
    let beside = settings.map(|file| file.parent().unwrap_or(Path::new("")).join(SEED)).filter(|path| path.exists());
    let system = || Some(PathBuf::from(SYSTEM_SEED)).filter(|path| settings.is_some() && path.exists());
    Ok(named.or(beside).or_else(system))
}

/// The name a device enrols by: that of the seed, of the settings, or its own.
///
/// # Errors
/// When the one of the settings is not the seed's, or there is none.
pub fn enrolling_name(seed: &Seed, set: Option<&str>) -> Result<DeviceName, DaemonError> {
    let field = |message: String| ConfigError::Field { field: "name", message };
    let set = set.map(|name| DeviceName::new(name).map_err(|e| field(e.to_string()))).transpose()?;
    match (&seed.name, set) {
        (Some(name), Some(set)) if *name != set => {
            Err(field(format!("the seed file is for `{name}`, not for `{set}`")).into())
        }
        (Some(name), _) => Ok(name.clone()),
        (None, Some(set)) => Ok(set),
        (None, None) => own_name(Path::new("/"))
            .ok_or_else(|| field("the board has no serial number and no machine id: give a name".into()).into()),
    }
}

/// Reads a seed file.
///
/// # Errors
/// When it cannot be read or understood.
pub fn read_seed(path: &Path) -> Result<Seed, DaemonError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.into(), source })?;
    let name = path.display().to_string();
    Ok(Seed::read(&text).map_err(|e| ConfigError::Content { name, message: e.to_string() })?)
}

/// The settings of a device, enrolled before where there is a seed to enrol with. What cannot be read or written for now is tried
/// again; `file` is the settings' own.
///
/// # Errors
/// When a setting or the seed cannot be used.
pub async fn begin(
    config: &EdgeConfig,
    file: Option<&Path>,
    tell: impl Fn(Told) + Send + Sync + 'static,
) -> Result<Settings, DaemonError> {
    begin_looking(config, file, readiness::LOOK_EVERY, Arc::new(tell)).await
}

/// As [`begin`], looking `every` so long.
pub(super) async fn begin_looking(
    config: &EdgeConfig,
    file: Option<&Path>,
    every: Duration,
    tell: Tell,
) -> Result<Settings, DaemonError> {
    let mut silent = None;
    loop {
        let begun = async {
            if let Some(seed) = seed_file(config, file)? {
                let tell = tell.clone();
                enroll_first(config, &seed, move |told| tell(told)).await?;
            }
            config.clone().settings()
        };
        let problem = match begun.await.map_err(Unready::of) {
            Ok(settings) => return Ok(settings),
            Err(Ok(problem)) => problem,
            Err(Err(error)) => return Err(error),
        };
        silent.get_or_insert_with(|| Silent::begin(&tell)).say(&problem);
        tokio::time::sleep(every).await;
    }
}

/// Enrols a device at its first start, and removes the seed, which may let others in as well. A host that refuses is asked again
/// later, and at once with another seed.
///
/// # Errors
/// When the seed file cannot be read, or what enrolment leaves behind cannot be written.
async fn enroll_first(
    config: &EdgeConfig,
    seed: &Path,
    tell: impl Fn(Told) + Send + Sync + 'static,
) -> Result<Enrolled, DaemonError> {
    let service = Arc::new(Service::default());
    let tell = telling(tell, service.clone());
    // A board that is not enrolled yet is no failed service, which would be started again and again.
    service.up();
    let _alive = Alive::begin();
    let identity = Identity::open(&config.state)?;
    loop {
        let read = read_seed(seed)?;
        let name = enrolling_name(&read, config.name.as_deref())?;
        let told = |step| match step {
            Step::Asked => tell(Told::Enrolling { name: name.clone() }),
            Step::Disconnected { reason, retry_in } => tell(Told::Disconnected { reason, retry_in }),
            Step::Hint(reason) => tell(Told::NotEnrolled { reason }),
        };
        let outcome = tokio::select! {
            outcome = enroll(&identity, &read, &name, told) => outcome,
            // The broker may let nobody in any more with the one before.
            () = replaced(seed, &read, LOOK_EVERY) => continue,
        };
        match outcome {
            Ok(enrolled) => {
                // An error: it is in a folder of others, who put it there and may take it away.
                let _ = std::fs::remove_file(seed);
                tell(Told::Enrolled { name: enrolled.name.clone(), expires: enrolled.expires });
                return Ok(enrolled);
            }
            Err(EnrollError::Refused(reason)) => tell(Told::NotEnrolled { reason }),
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(REFUSED) => {}
            () = replaced(seed, &read, LOOK_EVERY) => {}
        }
    }
}

/// Ready once there is another seed in the file, looking `every` so long.
pub(super) async fn replaced(file: &Path, seed: &Seed, every: Duration) {
    while read_seed(file).map_or(true, |now| now == *seed) {
        tokio::time::sleep(every).await;
    }
}

/// How often it is looked for another seed.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The wait after a host has refused: it may take an operator to change that.
const REFUSED: Duration = Duration::from_secs(300);
