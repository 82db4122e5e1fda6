//! What is long but read and written again and again, in pieces, tensor by tensor: no more than one of them is held twice.

use fedtt_wire::layout::Entry;
use fedtt_wire::plan::Encoding;
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::{Layout, RunId};
use ndarray::ArrayD;
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::{Changes, StoreError, content};

/// Run, what, index, piece to bytes.
const LONG: TableDefinition<(&str, u8, u32, u32), &[u8]> = TableDefinition::new("long");

/// Bytes of a piece: with what the database adds, a page of 256 KiB.
const PIECE: usize = (256 << 10) - 4096;

/// Number of the change the current round began with; tensors have those of [`Tensors`].
const CHANGE: u8 = 0;

/// Tensors of a run, each row-major, little-endian binary32.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tensors {
    /// Those of its global state.
    Global = 1,
    /// What encoding their changes lost so far; those that are absent lost nothing.
    Carry = 2,
    /// Those of its best adapter.
    Best = 3,
}

pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(LONG)?;
    Ok(())
}

impl Changes {
    fn put_long(&self, run: &RunId, what: u8, index: u32, bytes: &[u8]) -> Result<(), StoreError> {
        let run = run.as_str();
        let mut table = self.table(LONG)?;
        let mut count = 0;
        for (piece, bytes) in (0u32..).zip(bytes.chunks(PIECE)) {
            table.insert((run, what, index, piece), bytes)?;
            count = piece + 1;
        }
        table.retain_in((run, what, index, count)..=(run, what, index, u32::MAX), |_, _| false)?;
        Ok(())
    }

    fn get_long(&self, run: &RunId, what: u8, index: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.transaction.open_table(LONG)?;
        let mut bytes = None;
        for piece in table.range((run.as_str(), what, index, 0)..=(run.as_str(), what, index, u32::MAX))? {
            bytes.get_or_insert_with(Vec::new).extend_from_slice(piece?.1.value());
        }
        Ok(bytes)
    }

    /// Forgets all that is long of a run.
    pub(super) fn drop_long(&self, run: &RunId) -> Result<(), StoreError> {
        let all = (run.as_str(), 0, 0, 0)..=(run.as_str(), u8::MAX, u32::MAX, u32::MAX);
        Ok(self.table(LONG)?.retain_in(all, |_, _| false)?)
    }

    /// Keeps the payload of the change the current round began with.
    pub(crate) fn put_change(&self, run: &RunId, payload: &[u8]) -> Result<(), StoreError> {
        self.put_long(run, CHANGE, 0, payload)
    }

    /// The payload of the change the current round began with.
    pub(crate) fn change(&self, run: &RunId) -> Result<Vec<u8>, StoreError> {
        let found = self.get_long(run, CHANGE, 0)?;
        found.ok_or_else(|| StoreError::missing(run, "the change"))
    }

    /// Keeps a tensor, or that there is none.
    pub(crate) fn put_tensor(
        &self,
        run: &RunId,
        of: Tensors,
        index: u32,
        values: Option<&ArrayD<f32>>,
    ) -> Result<(), StoreError> {
        let bytes = |values: &ArrayD<f32>| EncodedTensor::encode(values.view(), Encoding::F32, Some(false)).data;
        self.put_long(run, of as u8, index, &values.map(bytes).unwrap_or_default())
    }

    /// A tensor of the layout's entry.
    pub(crate) fn tensor(
        &self,
        run: &RunId,
        of: Tensors,
        index: u32,
        entry: &Entry,
    ) -> Result<Option<ArrayD<f32>>, StoreError> {
        let Some(data) = self.get_long(run, of as u8, index)? else { return Ok(None) };
        let encoded = EncodedTensor { encoding: Encoding::F32, shuffled: false, scale: 1.0, data: data.into() };
        let values = encoded.decode(&entry.name, &entry.shape);
        values.map(Some).map_err(|e| content(run, format!("{of:?}"), e))
    }

    /// All tensors of the layout, if they are there.
    pub(crate) fn tensors(
        &self,
        run: &RunId,
        of: Tensors,
        layout: &Layout,
    ) -> Result<Option<Vec<ArrayD<f32>>>, StoreError> {
        (0u32..).zip(&layout.0).map(|(index, entry)| self.tensor(run, of, index, entry)).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn what_is_long_is_read_as_it_was_put() {
        let (store, run) = (Store::memory().unwrap(), RunId::new("a-1").unwrap());
        let changes = store.begin().unwrap();
        assert!(changes.change(&run).is_err());
        for length in [3 * PIECE + 7, PIECE, 10] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            changes.put_change(&run, &payload).unwrap();
            changes.put_change(&RunId::new("a-11").unwrap(), b"another").unwrap();
            assert_eq!(changes.change(&run).unwrap(), payload);
        }
        let layout = Layout(vec![
            Entry { name: "a".into(), shape: vec![2, 3] },
            Entry { name: "b".into(), shape: vec![300_000] },
        ]);
        let values = [ArrayD::from_elem(vec![2, 3], 0.1f32), ArrayD::from_elem(vec![300_000], -7.5)];
        assert!(changes.tensors(&run, Tensors::Best, &layout).unwrap().is_none());
        for (index, value) in values.iter().enumerate() {
            changes.put_tensor(&run, Tensors::Best, index as u32, Some(value)).unwrap();
            changes.put_tensor(&run, Tensors::Carry, index as u32, Some(value)).unwrap();
        }
        assert_eq!(changes.tensors(&run, Tensors::Best, &layout).unwrap().unwrap(), values);
        changes.put_tensor(&run, Tensors::Carry, 0, None).unwrap();
        assert!(changes.tensor(&run, Tensors::Carry, 0, &layout.0[0]).unwrap().is_none());
        assert!(changes.tensor(&run, Tensors::Carry, 1, &layout.0[1]).unwrap().is_some());
    }
}
