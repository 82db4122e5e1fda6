//! The host's persistent state, in redb. What one `handle` changes is committed as a whole, before anything is said.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fedtt_wire::{DeviceName, RunId};
use redb::{Database, Durability, Key, ReadableTable, Table, TableDefinition, Value, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::record::RoundRecord;

/// Run to what it is and how it stands, CBOR.
const RUNS: TableDefinition<&str, &[u8]> = TableDefinition::new("runs");
/// Run to its global state, CBOR.
const GLOBALS: TableDefinition<&str, &[u8]> = TableDefinition::new("globals");
/// Run to the best adapter so far, CBOR.
const BEST: TableDefinition<&str, &[u8]> = TableDefinition::new("best");
/// Run, round, device to an accepted update, as it came.
const UPDATES: TableDefinition<(&str, u32, &str), &[u8]> = TableDefinition::new("updates");
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
}

/// Changes that are committed together.
pub struct Changes {
    transaction: WriteTransaction,
    /// Whether anything was written: a commit of nothing would still wait for the disk.
    written: Cell<bool>,
}

/// What a walk over updates hands each of them to: the device's name and the bytes.
pub(crate) type Visit<'a, E> = dyn FnMut(&str, &[u8]) -> Result<(), E> + 'a;

/// Part of a run's state.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// What it is and how it stands.
    Run,
    /// Its global state.
    Global,
    /// The best adapter so far.
    Best,
}

impl Part {
    fn table(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        match self {
            Part::Run => RUNS,
            Part::Global => GLOBALS,
            Part::Best => BEST,
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
    /// Opens or creates the state in a file.
    ///
    /// # Errors
    /// When the file cannot be opened, or another process has.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::prepared(open(path, 16 << 20)?, Durability::Immediate)
    }

    /// State that is gone with the process, for simulations.
    ///
    /// # Errors
    /// When the database cannot be set up.
    pub fn memory() -> Result<Self, StoreError> {
        let backend = redb::backends::InMemoryBackend::new();
        Self::prepared(Database::builder().create_with_backend(backend)?, Durability::None)
    }

    fn prepared(database: Database, durability: Durability) -> Result<Self, StoreError> {
        let transaction = database.begin_write()?;
        for table in [RUNS, GLOBALS, BEST] {
            transaction.open_table(table)?;
        }
        transaction.open_table(UPDATES)?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(TOKENS)?;
        transaction.commit()?;
        Ok(Store { database, durability })
    }

    /// Begins changes; without [`Changes::commit`] they never were.
    ///
    /// # Errors
    /// When the database fails.
    pub fn begin(&self) -> Result<Changes, StoreError> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        Ok(Changes { transaction, written: Cell::new(false) })
    }
}

impl Changes {
    /// Makes the changes last.
    ///
    /// # Errors
    /// When the database fails; nothing has changed then.
    pub fn commit(self) -> Result<(), StoreError> {
        match self.written.get() {
            true => Ok(self.transaction.commit()?),
            false => Ok(self.transaction.abort()?),
        }
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

    /// Keeps an accepted update.
    pub(crate) fn put_update(
        &self,
        run: &RunId,
        round: u32,
        from: &DeviceName,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.table(UPDATES)?.insert((run.as_str(), round, from.as_str()), bytes)?;
        Ok(())
    }

    /// Hands every update of a round to `visit`, in the order of device names.
    pub(crate) fn each_update<E: From<StoreError>>(
        &self,
        run: &RunId,
        round: u32,
        visit: &mut Visit<'_, E>,
    ) -> Result<(), E> {
        let fail = |e: redb::Error| E::from(StoreError::Database(Box::new(e)));
        let table = self.transaction.open_table(UPDATES).map_err(|e| fail(e.into()))?;
        let from = (run.as_str(), round, "");
        for entry in table.range(from..).map_err(|e| fail(e.into()))? {
            let (key, bytes) = entry.map_err(|e| fail(e.into()))?;
            let (of, at, device) = key.value();
            if (of, at) != (run.as_str(), round) {
                break;
            }
            visit(device, bytes.value())?;
        }
        Ok(())
    }

    /// Forgets the updates of a round.
    pub(crate) fn drop_updates(&self, run: &RunId, round: u32) -> Result<(), StoreError> {
        let mut table = self.table(UPDATES)?;
        table.retain_in((run.as_str(), round, "")..(run.as_str(), round + 1, ""), |_, _| false)?;
        Ok(())
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

fn content(run: &RunId, what: String, reason: impl std::fmt::Display) -> StoreError {
    StoreError::Content { what: format!("{what} of run {run}"), reason: reason.to_string() }
}
