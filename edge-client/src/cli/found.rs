//! Which adapter, and in which backbone: by file, or by the run it is of.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use fedtt_edge::adapter_file::AdapterFile;
use fedtt_edge::adapters::Adapters;
use fedtt_edge::daemon::EdgeConfig;
use fedtt_edge::fetch::{Held, Shelf};
use fedtt_edge::source::Available;
use fedtt_wire::RunId;

/// The word for the adapter this device replaced last.
const CURRENT: &str = "current";

/// What `train` writes by default.
const HERE: &str = "adapter.safetensors";

/// An adapter, and the backbone it was trained in.
#[derive(Clone, Debug, Args)]
pub(crate) struct AdapterArgs {
    /// Prepared backbone, a folder made by `fedtt backbone prepare` [default: the adapter's, where it is at hand: the embedded
    /// encoder, a bundle of the settings file, or one this device fetched]
    #[arg(long, value_name = "DIR", help_heading = "Backbone")]
    pub(crate) bundle: Option<PathBuf>,
    /// Adapter made by `fedtt-edge train`, or `current`: the one the device's daemon put in use last [default:
    /// adapter.safetensors]
    #[arg(long, value_name = "FILE")]
    pub(crate) adapter: Option<PathBuf>,
    /// The adapter of a run this device takes part in, as it is in use now
    #[arg(long, value_name = "RUN", conflicts_with = "adapter")]
    pub(crate) run: Option<RunId>,
    /// The daemon's state folder [default: that of --config, else fedtt-edge-state]
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// The daemon's settings file, for its state folder and bundles
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Where an adapter and its backbone are.
#[derive(Debug)]
pub(crate) struct Found {
    /// The adapter's file.
    pub(crate) file: PathBuf,
    /// The bundle's folder; none for the embedded encoder.
    pub(crate) bundle: Option<PathBuf>,
    /// Keeps the daemon from removing a bundle it fetched.
    pub(crate) held: Option<Held>,
}

impl AdapterArgs {
    /// Looks for both.
    pub(crate) fn find(&self) -> anyhow::Result<Found> {
        let config = EdgeConfig::read(self.config.as_deref(), &[])?;
        let state = self.state.clone().unwrap_or(config.state);
        let (file, previous) = self.adapter(&state)?;
        if file == Path::new(HERE) && !file.exists() {
            bail!(
                "there is no adapter yet: {HERE} is not here, and none was named; --run or --adapter name one, of a run from its \
                 first round on ({} is where this device keeps those)",
                state.display()
            );
        }
        let read = AdapterFile::header(&file);
        let (file, header) = match (read, previous) {
            (Ok(header), _) => (file, header),
            // Damaged on the disk: the one before it is better than none.
            (Err(error), Some(previous)) if previous.exists() => {
                let header = AdapterFile::header(&previous).with_context(|| error.to_string())?;
                (previous, header)
            }
            (Err(error), _) => return Err(error.into()),
        };
        let (bundle, held) = match &self.bundle {
            Some(folder) => (Some(folder.clone()), None),
            None => bundle(&header.bundle, &config.bundles, &state)?,
        };
        Ok(Found { file, bundle, held })
    }

    /// The same, with what this device uses now, or will, for a default; before that what is here.
    pub(crate) fn or_current(mut self) -> anyhow::Result<Self> {
        let used = Adapters::of(&self.state()?).newest().is_some();
        if self.run.is_none() && self.adapter.is_none() && (used || !Path::new(HERE).exists()) {
            self.adapter = Some(CURRENT.into());
        }
        Ok(self)
    }

    /// Whether it is an adapter of the daemon's that is yet to come.
    pub(crate) fn is_awaited(&self) -> anyhow::Result<bool> {
        let comes = self.run.is_some() || self.adapter.as_deref() == Some(Path::new(CURRENT));
        Ok(self.adapter(&self.state()?).is_err() && comes)
    }

    /// The file the adapter is in at the moment, whether or not it can be read.
    pub(crate) fn file(&self) -> anyhow::Result<PathBuf> {
        Ok(self.adapter(&self.state()?)?.0)
    }

    fn state(&self) -> anyhow::Result<PathBuf> {
        match &self.state {
            Some(state) => Ok(state.clone()),
            None => Ok(EdgeConfig::read(self.config.as_deref(), &[])?.state),
        }
    }

    fn adapter(&self, state: &Path) -> anyhow::Result<(PathBuf, Option<PathBuf>)> {
        let adapters = Adapters::of(state);
        let run = match (&self.run, self.adapter.as_deref()) {
            (Some(run), _) => run.clone(),
            (None, Some(word)) if word == Path::new(CURRENT) => {
                let newest = adapters.newest();
                newest.with_context(|| format!("{} holds the adapter of no run yet", state.display()))?
            }
            (None, Some(file)) => return Ok((file.to_path_buf(), None)),
            (None, None) => return Ok((HERE.into(), None)),
        };
        let file = adapters.current(&run);
        if !file.exists() {
            bail!("{} holds no adapter of run {run} yet: there is one after its first round", state.display());
        }
        Ok((file, Some(adapters.previous(&run))))
    }
}

/// The folder of the bundle with a hash.
fn bundle(hash: &str, given: &[PathBuf], state: &Path) -> anyhow::Result<(Option<PathBuf>, Option<Held>)> {
    for folder in given {
        if Available::find(Some(folder))?.hash == hash {
            return Ok((Some(folder.clone()), None));
        }
    }
    let shelf = Shelf::of(state);
    match shelf.find(hash)? {
        Some(_) => Ok((Some(shelf.place(hash)), Some(shelf.hold(hash)?))),
        None => Ok((None, None)),
    }
}
