//! The host's persistent state, in redb and, what is long and read once, in files beside it. What one `handle` changes is
//! committed as a whole, before anything is said.

mod files;
mod long;
mod removed;
mod updates;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fedtt_wire::RunId;
use redb::{Database, Durability, Key, ReadableTable, Table, TableDefinition, Value, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::record::RoundRecord;

pub(crate) use files::{Files, Parts};
pub(crate) use long::Tensors;
pub(crate) use updates::Kept;

use files::Made;

/// Run to what it is and how it stands, CBOR.
const RUNS: TableDefinition<&str, &[u8]> = TableDefinition::new("runs");
/// Run to what only the host knows of its global state, CBOR.
const SERVERS: TableDefinition<&str, &[u8]> = TableDefinition::new("servers");
/// Run, round to its record, JSON.
const RECORDS: TableDefinition<(&str, u32), &[u8]> = TableDefinition::new("records");
/// Start token to run.
const TOKENS: TableDefinition<&str, &str> = TableDefinition::new("tokens");

/// The state cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("cannot open {}: {source}; another `fedtt serve` may be using it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What redb said.
        source: Box<redb::Error>,
    },
    /// The database failed.
    #[error("the host's database: {0}")]
    Database(Box<redb::Error>),
    /// A file beside it cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An entry is not what it should be.
    #[error("the host's database: {what} is not understood: {reason}")]
    Content {
        /// Which entry.
        what: String,
        /// What is wrong.
        reason: String,
    },
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        StoreError::Database(Box::new(error.into()))
    }
}

/// The host's persistent state.
#[derive(Debug)]
pub struct Store {
    database: Database,
    durability: Durability,
    /// None for state in memory.
    files: Option<Arc<Files>>,
}

/// Changes that are committed together.
pub struct Changes {
    transaction: WriteTransaction,
    /// Whether anything was written: a commit of nothing would still wait for the disk.
    written: Cell<bool>,
    /// Files that are part of the changes.
    made: Option<Made>,
}

/// Part of a run's state.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// What it is and how it stands.
    Run,
    /// What only the host knows of its global state.
    Server,
}

impl Part {
    fn table(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        match self {
            Part::Run => RUNS,
            Part::Server => SERVERS,
        }
    }
}

/// How long another process may hold a file: a command that acts on the host's folder while no host runs is done sooner.
const HELD: Duration = Duration::from_secs(3);

/// Opens or creates a database with a cache of `cache` bytes; one that another process has open is waited for a moment.
///
/// # Errors
/// When the file cannot be opened, or another process keeps it.
pub(crate) fn open(path: &Path, cache: usize) -> Result<Database, StoreError> {
    let until = Instant::now() + HELD;
    loop {
        match Database::builder().set_cache_size(cache).create(path) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            outcome => {
                return outcome
                    .map_err(|source| StoreError::Open { path: path.to_path_buf(), source: Box::new(source.into()) });
            }
        }
    }
}

impl Store {
    /// Opens or creates the state in a file, and in a folder beside it.
    ///
    /// # Errors
    /// When file or folder cannot be opened, or another process has.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = open(path, 16 << 20)?;
        let files = Files::open(&path.with_file_name("updates"))?;
        Self::prepared(database, Durability::Immediate, Some(files))
    }

    /// State that is gone with the process, for simulations.
    ///
    /// # Errors
    /// When the database cannot be set up.
    pub fn memory() -> Result<Self, StoreError> {
        let backend = redb::backends::InMemoryBackend::new();
        Self::prepared(Database::builder().create_with_backend(backend)?, Durability::None, None)
    }

    fn prepared(database: Database, durability: Durability, files: Option<Files>) -> Result<Self, StoreError> {
        let transaction = database.begin_write()?;
        for table in [RUNS, SERVERS] {
            transaction.open_table(table)?;
        }
        transaction.open_table(RECORDS)?;
        transaction.open_table(TOKENS)?;
        long::prepare(&transaction)?;
        removed::prepare(&transaction)?;
        let named = updates::prepare(&transaction)?;
        transaction.commit()?;
        // Left behind by a host that was killed: parts of updates, and whole ones that were not yet committed.
        files.iter().try_for_each(|files| files.keep_only(&named))?;
        Ok(Store { database, durability, files: files.map(Arc::new) })
    }

    /// Where what is long may be put until it is whole; none for state in memory.
    pub(crate) fn files(&self) -> Option<&Arc<Files>> {
        self.files.as_ref()
    }

    /// Begins changes; without [`Changes::commit`] they never were.
    ///
    /// # Errors
    /// When the database fails.
    pub fn begin(&self) -> Result<Changes, StoreError> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        let made = self.files.clone().map(Made::new);
        Ok(Changes { transaction, written: Cell::new(false), made })
    }
}

impl Changes {
    /// Makes the changes last.
    ///
    /// # Errors
    /// When the database fails; nothing has changed then.
    pub fn commit(self) -> Result<(), StoreError> {
        if !self.written.get() {
            return Ok(self.transaction.abort()?);
        }
        if let Some(made) = &self.made {
            made.sync()?;
        }
        self.transaction.commit()?;
        if let Some(made) = self.made {
            made.tidy();
        }
        Ok(())
    }

    /// Whether there are any.
    pub(crate) fn is_written(&self) -> bool {
        self.written.get()
    }

    /// A table to write to.
    fn table<K: Key + 'static, V: Value + 'static>(
        &self,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<Table<'_, K, V>, StoreError> {
        self.written.set(true);
        Ok(self.transaction.open_table(definition)?)
    }

    /// The ids of all runs.
    pub(crate) fn runs(&self) -> Result<Vec<String>, StoreError> {
        let table = self.transaction.open_table(RUNS)?;
        let mut runs = Vec::new();
        for entry in table.iter()? {
            runs.push(entry?.0.value().to_string());
        }
        Ok(runs)
    }

    pub(crate) fn put<T: Serialize>(&self, part: Part, run: &RunId, value: &T) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        ciborium::into_writer(value, &mut bytes).map_err(|e| content(run, format!("{part:?}"), e))?;
        self.table(part.table())?.insert(run.as_str(), bytes.as_slice())?;
        Ok(())
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, part: Part, run: &RunId) -> Result<Option<T>, StoreError> {
        let table = self.transaction.open_table(part.table())?;
        let Some(bytes) = table.get(run.as_str())? else { return Ok(None) };
        ciborium::from_reader(bytes.value()).map(Some).map_err(|e| content(run, format!("{part:?}"), e))
    }

    pub(crate) fn put_record(&self, run: &RunId, record: &RoundRecord) -> Result<(), StoreError> {
        let json = serde_json::to_vec(record).map_err(|e| content(run, format!("round {}", record.round), e))?;
        self.table(RECORDS)?.insert((run.as_str(), record.round), json.as_slice())?;
        Ok(())
    }

    /// The record of one round, once it is over.
    pub(crate) fn record(&self, run: &RunId, round: u32) -> Result<Option<RoundRecord>, StoreError> {
        let table = self.transaction.open_table(RECORDS)?;
        let Some(json) = table.get((run.as_str(), round))? else { return Ok(None) };
        serde_json::from_slice(json.value()).map(Some).map_err(|e| content(run, format!("round {round}"), e))
    }

    /// The records of a run, by round.
    pub(crate) fn records(&self, run: &RunId) -> Result<Vec<RoundRecord>, StoreError> {
        let table = self.transaction.open_table(RECORDS)?;
        let mut records = Vec::new();
        for entry in table.range((run.as_str(), 0)..=(run.as_str(), u32::MAX))? {
            let (key, json) = entry?;
            let record = serde_json::from_slice(json.value());
            records.push(record.map_err(|e| content(run, format!("round {}", key.value().1), e))?);
        }
        Ok(records)
    }

    /// The run that was started with a token.
    pub(crate) fn run_of_token(&self, token: &str) -> Result<Option<String>, StoreError> {
        let table = self.transaction.open_table(TOKENS)?;
        Ok(table.get(token)?.map(|run| run.value().to_string()))
    }

    pub(crate) fn put_token(&self, token: &str, run: &RunId) -> Result<(), StoreError> {
        self.table(TOKENS)?.insert(token, run.as_str())?;
        Ok(())
    }
}

impl StoreError {
    /// Something of a run is not there.
    pub(crate) fn missing(run: &RunId, what: &str) -> Self {
        content(run, what.into(), "it is not there")
    }
}

fn content(run: &RunId, what: String, reason: impl std::fmt::Display) -> StoreError {
    StoreError::Content { what: format!("{what} of run {run}"), reason: reason.to_string() }
}
