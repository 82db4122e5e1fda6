//! `edge.toml`: what the owner of a device writes, checked field by field.

use std::path::{Path, PathBuf};

use fedtt_link::TlsFiles;
use fedtt_runtime::EngineConfig;
use fedtt_wire::{DeviceName, FleetName, PublicKey};
use serde::Deserialize;
use toml::{Table, Value};

use super::place::Place;
use super::{DaemonError, Data, Settings};
use crate::board::{Board, Limits};
use crate::data::{Columns, Format, ReadOptions};
use crate::fetch::{FetchSettings, is_address};
use crate::round::{LocalPolicy, QuietHours};
use crate::source::Available;
use crate::task::TaskKind;

/// A setting cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML, or holds what is no setting.
    #[error("{name}: {message}")]
    Content {
        /// The file, or where else the settings come from.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// A setting is out of range.
    #[error("setting `{field}`: {message}")]
    Field {
        /// Where it stands.
        field: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
    /// `--set` was not given a key and a value.
    #[error("`{0}` is not of the form key=value, such as policy.min_examples=50")]
    Override(String),
}

/// The settings of a device. With none at all it works with the embedded encoder and field reports, over a broker on the
/// same machine.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeConfig {
    /// The broker's address, `mqtt[s]://[user[:password]@]host[:port]`.
    pub broker: String,
    /// Files for TLS; without any, those of the device's enrolment.
    pub tls: TlsFiles,
    /// Seed file to enrol with at the first start, if it is there; else `enroll.toml` beside this file or in `/etc/fedtt`. It
    /// is removed once used.
    pub enroll: Option<PathBuf>,
    /// Whom the device listens to.
    pub security: SecuritySettings,
    /// The fleet the device belongs to.
    pub fleet: String,
    /// The device's name, unique in its fleet; the machine's name if absent.
    pub name: Option<String>,
    /// The groups it belongs to.
    pub labels: Vec<String>,
    /// The folder of what must outlive the process.
    pub state: PathBuf,
    /// Prepared backbones; the embedded encoder if there are none.
    pub bundles: Vec<PathBuf>,
    /// What it trains on.
    pub data: DataFiles,
    /// What its owner allows.
    pub policy: PolicySettings,
    /// What its owner allows training to take of the board.
    pub limits: Limits,
    /// What runs its graphs.
    pub engine: EngineSettings,
    /// Where it gets bundles it lacks.
    pub fetch: FetchSettings,
}

/// Whom a device listens to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecuritySettings {
    /// What the host signs with; learnt by enrolling, or else of the first host that says that it is the fleet's.
    pub host_key: Option<PublicKey>,
}

/// Files of examples, and how they are read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataFiles {
    /// The files; the embedded field reports if there are none.
    pub files: Vec<PathBuf>,
    /// Column of the text.
    pub text: Option<String>,
    /// Column of the second text of a pair.
    pub text_pair: Option<String>,
    /// Column of the label.
    pub label: Option<String>,
    /// tsv, csv, jsonl, labelled, lines or text; by name and content if absent.
    pub format: Option<Format>,
    /// Character encoding; UTF-8 if absent.
    pub encoding: Option<String>,
    /// Whether the first line of a table names its columns; by its content if absent.
    pub header: Option<bool>,
}

/// What the owner of a device allows.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySettings {
    /// Fewer examples are not trained on.
    pub min_examples: u64,
    /// Longest local work in a round, in seconds.
    pub max_seconds: Option<u64>,
    /// When nothing is trained, such as `22:00-06:00` (UTC) or `22:00-06:00+02:00`.
    pub quiet: Option<QuietHours>,
}

/// What runs the device's graphs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSettings {
    /// auto, ort or tract.
    pub engine: String,
    /// ONNX Runtime's library, or a folder that holds it.
    pub library: Option<PathBuf>,
    /// cpu, cuda or tensorrt.
    pub provider: String,
    /// Threads; 0 lets the engine choose.
    pub threads: usize,
    /// Most tokens computed at once; 0 for whole batches.
    pub micro_batch: Option<usize>,
    /// Whether backward passes compute the blocks' values again instead of keeping them.
    pub recompute: bool,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        EdgeConfig {
            broker: "mqtt://127.0.0.1:1883".into(),
            tls: TlsFiles::default(),
            enroll: None,
            security: SecuritySettings::default(),
            fleet: "fedtt".into(),
            name: None,
            labels: Vec::new(),
            state: "fedtt-edge-state".into(),
            bundles: Vec::new(),
            data: DataFiles::default(),
            policy: PolicySettings::default(),
            limits: Limits::default(),
            engine: EngineSettings::default(),
            fetch: FetchSettings::default(),
        }
    }
}

impl Default for PolicySettings {
    fn default() -> Self {
        PolicySettings { min_examples: 1, max_seconds: None, quiet: None }
    }
}

impl Default for EngineSettings {
    fn default() -> Self {
        EngineSettings {
            engine: "auto".into(),
            library: None,
            provider: "cpu".into(),
            threads: 0,
            micro_batch: None,
            recompute: false,
        }
    }
}

/// Settings that are paths: in a file they are relative to its folder.
const PATHS: [&[&str]; 9] = [
    &["state"],
    &["bundles"],
    &["data", "files"],
    &["enroll"],
    &["tls", "ca"],
    &["fetch", "ca"],
    &["tls", "cert"],
    &["tls", "key"],
    &["engine", "library"],
];

impl EdgeConfig {
    /// The settings of `file`, if there is one, with `overrides` (`key=value`, keys with dots) over them.
    ///
    /// # Errors
    /// When the file cannot be read, or something in it, or among the overrides, is no setting.
    pub fn read(file: Option<&Path>, overrides: &[String]) -> Result<Self, ConfigError> {
        let mut name = "the settings given".to_string();
        let mut table = Table::new();
        if let Some(path) = file {
            name = path.display().to_string();
            let io = |source| ConfigError::Io { path: path.to_path_buf(), source };
            let text = std::fs::read_to_string(path).map_err(io)?;
            let content = |e: toml::de::Error| ConfigError::Content { name: name.clone(), message: e.to_string() };
            // Read as settings first: its errors name the line.
            toml::from_str::<EdgeConfig>(&text).map_err(content)?;
            table = toml::from_str(&text).map_err(content)?;
            let folder = path.parent().unwrap_or(Path::new(""));
            PATHS.iter().for_each(|keys| rebase(&mut table, keys, folder));
        }
        for setting in overrides {
            set(&mut table, setting)?;
        }
        let content = |e: toml::de::Error| ConfigError::Content { name, message: e.to_string().trim().to_string() };
        Value::Table(table).try_into().map_err(content)
    }

    /// The settings, checked.
    ///
    /// # Errors
    /// When a setting is out of range, or what the device was enrolled with cannot be read.
    pub fn settings(self) -> Result<Settings, DaemonError> {
        let field = |field: &'static str| move |message: String| ConfigError::Field { field, message };
        let Place { broker, tls, fleet, name, labels } = Place::of(&self)?;
        if self.policy.max_seconds == Some(0) {
            return Err(field("policy.max_seconds")("must be at least 1".into()).into());
        }
        if self.policy.min_examples == 0 {
            return Err(field("policy.min_examples")("must be at least 1".into()).into());
        }
        if let Some(address) = self.fetch.bundles.as_deref().filter(|address| !is_address(address)) {
            let message = format!("`{address}` does not begin with http:// or https:// and a host");
            return Err(field("fetch.bundles")(message).into());
        }
        self.limits.check().map_err(|(field, message)| ConfigError::Field { field, message })?;
        if let Some(label) = self.labels.iter().find(|label| label.is_empty() || label.len() > 200) {
            return Err(field("labels")(format!("`{label}` has not 1 to 200 bytes")).into());
        }
        // What a device fetches it need not be given: the embedded encoder is always at hand then.
        let embedded = self.bundles.is_empty() || self.fetch.bundles.is_some();
        Ok(Settings {
            broker: broker.parse().map_err(|e: fedtt_link::LinkError| field("broker")(e.to_string()))?,
            tls,
            host_key: self.security.host_key,
            fleet: FleetName::new(fleet).map_err(|e| field("fleet")(e.to_string()))?,
            name: DeviceName::new(name).map_err(|e| field("name")(e.to_string()))?,
            labels,
            state: self.state,
            bundles: self.bundles,
            sources: embedded.then(Available::embedded).into_iter().collect(),
            data: self.data.open(),
            policy: LocalPolicy {
                min_examples: self.policy.min_examples,
                max_seconds: self.policy.max_seconds,
                quiet: self.policy.quiet,
                limited: true,
                fetch: self.fetch.bundles.is_some(),
            },
            fetch: self.fetch,
            board: Some(Board::default()),
            workshop: None,
            limits: self.limits,
            engine: EngineConfig {
                choice: self.engine.engine.parse().map_err(|e| field("engine.engine")(format!("{e}")))?,
                library: self.engine.library,
                provider: self.engine.provider.parse().map_err(|e| field("engine.provider")(format!("{e}")))?,
                threads: self.engine.threads,
                micro_batch: self.engine.micro_batch,
                recompute: self.engine.recompute,
            },
        })
    }
}

impl DataFiles {
    fn open(self) -> Data {
        if self.files.is_empty() {
            return Data::Embedded;
        }
        let options = ReadOptions {
            format: self.format,
            encoding: self.encoding,
            header: self.header,
            columns: Columns { text: self.text, pair: self.text_pair, label: self.label },
            labelled: true,
            task: TaskKind::Classify,
        };
        Data::Files { paths: self.files, options }
    }
}

pub(super) fn machine() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME")).ok()?;
    Some(name.trim().to_string()).filter(|name| !name.is_empty())
}

fn rebase(table: &mut Table, keys: &[&str], folder: &Path) {
    let Some((key, rest)) = keys.split_first() else { return };
    let join = |path: &mut String| *path = folder.join(&path).to_string_lossy().into_owned();
    match (table.get_mut(*key), rest) {
        (Some(Value::Table(inner)), [_, ..]) => rebase(inner, rest, folder),
        (Some(Value::String(path)), []) => join(path),
        (Some(Value::Array(paths)), []) => paths.iter_mut().for_each(|path| {
            if let Value::String(path) = path {
                join(path);
            }
        }),
        _ => {}
    }
}

/// Applies `key=value`; the value is TOML where it can be read as that, else a string.
fn set(table: &mut Table, setting: &str) -> Result<(), ConfigError> {
    let refuse = || ConfigError::Override(setting.to_string());
    let (key, text) = setting.split_once('=').ok_or_else(refuse)?;
    let value = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_string()));
    let mut keys: Vec<&str> = key.trim().split('.').collect();
    let last = keys.pop().filter(|last| !last.is_empty()).ok_or_else(refuse)?;
    let mut inner = table;
    for key in keys {
        let entry = inner.entry(key).or_insert_with(|| Value::Table(Table::new()));
        inner = entry.as_table_mut().ok_or_else(refuse)?;
    }
    inner.insert(last.to_string(), value);
    Ok(())
}
