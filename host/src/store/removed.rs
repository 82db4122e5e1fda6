//! Runs that were removed, and the little that is kept of them: their ids, which no other run gets, and what may have to be cleared at the
//! broker once more; also devices' traffic counters, which outlast runs.

use fedtt_wire::RunId;
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::{Changes, RECORDS, RUNS, SERVERS, StoreError, TOKENS, content};
use crate::record::Traffic;
use crate::run::Retained;

/// Removed run to what it may have left at the broker, CBOR.
const REMOVED: TableDefinition<&str, &[u8]> = TableDefinition::new("removed");
/// Device to its counters when it last reported, in whichever run: up and down.
const COUNTERS: TableDefinition<&str, (u64, u64)> = TableDefinition::new("counters");

pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(REMOVED)?;
    transaction.open_table(COUNTERS)?;
    Ok(())
}

impl Changes {
    /// Forgets everything of a run but its id, and that it may have left something at the broker.
    pub(crate) fn remove_run(&self, run: &RunId, left: &Retained) -> Result<(), StoreError> {
        let id = run.as_str();
        for table in [RUNS, SERVERS] {
            self.table(table)?.remove(id)?;
        }
        self.table(RECORDS)?.retain_in((id, 0)..=(id, u32::MAX), |_, _| false)?;
        self.table(TOKENS)?.retain(|_, run| run != id)?;
        self.drop_long(run)?;
        self.drop_all_updates(run)?;
        let mut bytes = Vec::new();
        ciborium::into_writer(left, &mut bytes).map_err(|e| content(run, "what is left".into(), e))?;
        self.table(REMOVED)?.insert(id, bytes.as_slice())?;
        Ok(())
    }

    /// Whether a run of this id was removed.
    pub(crate) fn was_removed(&self, run: &RunId) -> Result<bool, StoreError> {
        Ok(self.transaction.open_table(REMOVED)?.get(run.as_str())?.is_some())
    }

    /// The runs that were removed, and what they may have left at the broker.
    pub(crate) fn removed(&self) -> Result<Vec<(RunId, Retained)>, StoreError> {
        let mut removed = Vec::new();
        for entry in self.transaction.open_table(REMOVED)?.iter()? {
            let (id, bytes) = entry?;
            let wrong = |reason: String| StoreError::Content { what: "a run that was removed".into(), reason };
            let run = RunId::new(id.value()).map_err(|e| wrong(e.to_string()))?;
            removed.push((run, ciborium::from_reader(bytes.value()).map_err(|e| wrong(e.to_string()))?));
        }
        Ok(removed)
    }

    /// Keeps what a device's counters say, and tells what they said when it last reported: runs that go on at the same time share
    /// what a device sent, and none counts it again.
    pub(crate) fn exchange_counters(&self, device: &str, now: Traffic) -> Result<Traffic, StoreError> {
        let before = self.table(COUNTERS)?.insert(device, (now.up, now.down))?.map(|before| before.value());
        let (up, down) = before.unwrap_or_default();
        Ok(Traffic { up, down })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use redb::{ReadableDatabase, ReadableTableMetadata, TableHandle};

    use super::*;
    use crate::record::RoundRecord;
    use crate::store::{Part, Store};

    /// Rows of each table.
    fn rows(store: &Store) -> Vec<(String, u64)> {
        let reading = store.database.begin_read().unwrap();
        let rows = reading.list_tables().unwrap().map(|table| {
            let name = table.name().to_string();
            (name, reading.open_untyped_table(table).unwrap().len().unwrap())
        });
        rows.collect()
    }

    #[test]
    fn nothing_of_a_run_is_left_and_all_of_others() {
        let store = Store::memory().unwrap();
        let [first, other] = ["a-1", "a-11"].map(|id| RunId::new(id).unwrap());
        let fill = |run: &RunId| {
            let changes = store.begin().unwrap();
            changes.put(Part::Run, run, &1).unwrap();
            changes.put(Part::Server, run, &1).unwrap();
            for round in [0, 7] {
                changes.put_record(run, &RoundRecord { round, ..RoundRecord::default() }).unwrap();
                super::super::updates::tests::put(&changes, run, round);
            }
            changes.put_token(&format!("token of {run}"), run).unwrap();
            changes.put_change(run, b"change").unwrap();
            for of in [super::super::Tensors::Global, super::super::Tensors::Carry, super::super::Tensors::Best] {
                changes.put_tensor(run, of, 3, Some(&ndarray::ArrayD::zeros(vec![4]))).unwrap();
            }
            changes.commit().unwrap();
        };
        fill(&other);
        let alone = rows(&store);
        let filled = |rows: &[(String, u64)]| rows.iter().filter(|(_, rows)| *rows > 0).count();
        assert_eq!(filled(&alone) + 2, alone.len(), "every table but those of removed runs: {alone:?}");
        fill(&first);
        let changes = store.begin().unwrap();
        changes.remove_run(&first, &Retained::default()).unwrap();
        changes.exchange_counters("d1", Traffic { up: 5, down: 6 }).unwrap();
        changes.commit().unwrap();
        let left = rows(&store).into_iter().map(|(name, rows)| match name.as_str() {
            "removed" | "counters" => (name, rows - 1),
            _ => (name, rows),
        });
        assert_eq!(left.collect::<Vec<_>>(), alone);
        let changes = store.begin().unwrap();
        assert!(changes.was_removed(&first).unwrap() && !changes.was_removed(&other).unwrap());
        assert_eq!(changes.removed().unwrap(), [(first, Retained::default())]);
        assert_eq!(changes.exchange_counters("d1", Traffic::default()).unwrap(), Traffic { up: 5, down: 6 });
        assert_eq!(changes.run_of_token("token of a-1").unwrap(), None);
        assert_eq!(changes.updates(&other, 7).unwrap().len(), 1);
    }
}
