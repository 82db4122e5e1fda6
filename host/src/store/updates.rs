//! Accepted updates: what they say in one table, their tensors in another or, where they are long, each in a file. Tensors
//! lie one after the other as they are encoded, so that any of them can be read alone.

use std::collections::BTreeSet;
use std::ops::Range;

use fedtt_wire::message::Update;
use fedtt_wire::plan::Encoding;
use fedtt_wire::tensor::{Data, EncodedTensor};
use fedtt_wire::{DeviceName, RunId};
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::{Changes, StoreError, content};
use crate::aggregate::Survey;

/// Run, round, device to what there is to say of an accepted update, CBOR.
const UPDATES: TableDefinition<(&str, u32, &str), &[u8]> = TableDefinition::new("accepted");
/// The same to its tensors' bytes, unless they are in a file.
const TENSORS: TableDefinition<(&str, u32, &str), &[u8]> = TableDefinition::new("accepted-tensors");

/// More bytes of tensors than this go to a file.
pub(super) const INLINE: usize = 256 << 10;

/// What there is to say of an accepted update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The update without its tensors.
    pub(crate) update: Update,
    /// Bytes of its payload.
    pub(crate) payload: u64,
    /// What its values amount to.
    pub(crate) survey: Survey,
    tensors: Vec<Form>,
    file: Option<u64>,
}

/// How a tensor is encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Form {
    encoding: Encoding,
    shuffled: bool,
    scale: f32,
    bytes: u64,
}

/// Makes sure there are tables; the files they name.
pub(super) fn prepare(transaction: &WriteTransaction) -> Result<BTreeSet<u64>, StoreError> {
    transaction.open_table(TENSORS)?;
    let mut named = BTreeSet::new();
    for entry in transaction.open_table(UPDATES)?.iter()? {
        let (key, bytes) = entry?;
        named.extend(read(&key.value(), bytes.value())?.file);
    }
    Ok(named)
}

fn read((run, round, device): &(&str, u32, &str), bytes: &[u8]) -> Result<Kept, StoreError> {
    ciborium::from_reader(bytes).map_err(|e| StoreError::Content {
        what: format!("the update of {device} for round {round} of run {run}"),
        reason: e.to_string(),
    })
}

impl Changes {
    /// Keeps an accepted update of `payload` bytes.
    pub(crate) fn put_update(
        &self,
        from: &DeviceName,
        mut update: Update,
        payload: u64,
        survey: Survey,
    ) -> Result<(), StoreError> {
        let tensors = std::mem::take(&mut update.tensors);
        let form = |t: &EncodedTensor| {
            let EncodedTensor { encoding, shuffled, scale, ref data } = *t;
            Form { encoding, shuffled, scale, bytes: data.len() as u64 }
        };
        let parts = || tensors.iter().map(|tensor| &*tensor.data);
        let long = parts().map(<[u8]>::len).sum::<usize>() > INLINE;
        let file = self.made.as_ref().filter(|_| long).map(|made| made.write(parts())).transpose()?;
        let (run, round) = (update.run.clone(), update.round);
        let key = (run.as_str(), round, from.as_str());
        if file.is_none() {
            let bytes = Data::together(&tensors.iter().map(|t| &t.data).collect::<Vec<_>>());
            self.table(TENSORS)?.insert(key, &*bytes)?;
        }
        let kept = Kept { update, payload, survey, tensors: tensors.iter().map(form).collect(), file };
        let mut bytes = Vec::new();
        ciborium::into_writer(&kept, &mut bytes).map_err(|e| content(&run, format!("round {round}"), e))?;
        self.table(UPDATES)?.insert(key, bytes.as_slice())?;
        Ok(())
    }

    /// The accepted updates of a round, in the order of the devices' names.
    pub(crate) fn updates(&self, run: &RunId, round: u32) -> Result<Vec<(String, Kept)>, StoreError> {
        self.updates_of(run, round..round + 1)
    }

    fn updates_of(&self, run: &RunId, rounds: Range<u32>) -> Result<Vec<(String, Kept)>, StoreError> {
        let table = self.transaction.open_table(UPDATES)?;
        let mut updates = Vec::new();
        for entry in table.range((run.as_str(), rounds.start, "")..(run.as_str(), rounds.end, ""))? {
            let (key, bytes) = entry?;
            updates.push((key.value().2.to_string(), read(&key.value(), bytes.value())?));
        }
        Ok(updates)
    }

    /// Some of an update's tensors.
    pub(crate) fn update_tensors(
        &self,
        from: &str,
        kept: &Kept,
        which: Range<usize>,
    ) -> Result<Vec<EncodedTensor>, StoreError> {
        let (run, round) = (&kept.update.run, kept.update.round);
        let wrong = |reason: &str| content(run, format!("the update of {from} for round {round}"), reason);
        let forms = kept.tensors.get(which.clone()).ok_or_else(|| wrong("it has fewer tensors"))?;
        let begin: u64 = kept.tensors[..which.start].iter().map(|form| form.bytes).sum();
        let length: u64 = forms.iter().map(|form| form.bytes).sum();
        let bytes = match (kept.file, &self.made) {
            (Some(file), Some(made)) => made.files().read_at(file, begin..begin + length)?,
            (Some(_), None) => return Err(wrong("its tensors are in a file, of which there are none")),
            (None, _) => {
                let table = self.transaction.open_table(TENSORS)?;
                let all = table.get((run.as_str(), round, from))?.ok_or_else(|| wrong("its tensors are not there"))?;
                let own = all.value().get(begin as usize..(begin + length) as usize);
                own.ok_or_else(|| wrong("its tensors are shorter"))?.to_vec()
            }
        };
        let (bytes, mut end) = (Data::from(bytes), 0);
        let tensor = |form: &Form| {
            let start = end;
            end += form.bytes as usize;
            let data = bytes.part(start..end).ok_or_else(|| wrong("its tensors are shorter"))?;
            Ok(EncodedTensor { encoding: form.encoding, shuffled: form.shuffled, scale: form.scale, data })
        };
        forms.iter().map(tensor).collect()
    }

    /// Forgets the updates of a round.
    pub(crate) fn drop_updates(&self, run: &RunId, round: u32) -> Result<(), StoreError> {
        self.drop_updates_of(run, round..round + 1)
    }

    /// Forgets the updates of all rounds.
    pub(super) fn drop_all_updates(&self, run: &RunId) -> Result<(), StoreError> {
        self.drop_updates_of(run, 0..u32::MAX)
    }

    fn drop_updates_of(&self, run: &RunId, rounds: Range<u32>) -> Result<(), StoreError> {
        for (_, kept) in self.updates_of(run, rounds.clone())? {
            self.made.iter().zip(kept.file).for_each(|(made, file)| made.remove(file));
        }
        let all = (run.as_str(), rounds.start, "")..(run.as_str(), rounds.end, "");
        self.table(UPDATES)?.retain_in(all.clone(), |_, _| false)?;
        self.table(TENSORS)?.retain_in(all, |_, _| false)?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use fedtt_wire::Digest;
    use ndarray::ArrayD;

    use super::*;
    use crate::store::Store;

    fn update(device: &str, length: usize) -> Update {
        let tensor = |value: f32, encoding| {
            EncodedTensor::encode(
                ArrayD::from_elem(vec![length], value).view(),
                encoding,
                Some(encoding != Encoding::Int8),
            )
        };
        Update {
            run: RunId::new("a-1").unwrap(),
            began: 1,
            round: 2,
            state: Digest::of(b"state"),
            device: DeviceName::new(device).unwrap(),
            examples: 10,
            steps: 1,
            tokens: 0,
            loss: 0.1,
            seconds: 0.2,
            joules: None,
            measured: None,
            sent: 0,
            received: 0,
            tensors: vec![tensor(1.5, Encoding::F32), tensor(0.1, Encoding::Int8), tensor(-2.0, Encoding::Bf16)],
        }
    }

    /// Keeps a short update for a round of a run.
    pub(in super::super) fn put(changes: &Changes, run: &RunId, round: u32) {
        let update = Update { run: run.clone(), round, ..update("d1", 10) };
        changes.put_update(&update.device.clone(), update, 99, Survey::default()).unwrap();
    }

    #[test]
    fn updates_and_their_files_outlast_a_restart_and_are_gone_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (path, files) = (folder.path().join("host.redb"), folder.path().join("updates"));
        let there = || std::fs::read_dir(&files).unwrap().count();
        let run = RunId::new("a-1").unwrap();
        let sent = [update("d1", 10), update("d2", INLINE)];
        let store = Store::open(&path).unwrap();
        let changes = store.begin().unwrap();
        for update in &sent {
            changes.put_update(&update.device.clone(), update.clone(), 99, Survey::default()).unwrap();
        }
        changes.commit().unwrap();
        let aborted = store.begin().unwrap();
        aborted.put_update(&DeviceName::new("d3").unwrap(), update("d3", INLINE), 99, Survey::default()).unwrap();
        drop(aborted);
        store.files().unwrap().create().unwrap();
        assert_eq!(there(), 2);
        drop(store);

        let store = Store::open(&path).unwrap();
        assert_eq!(there(), 1, "what was incomplete is swept");
        let changes = store.begin().unwrap();
        let kept = changes.updates(&run, 2).unwrap();
        assert_eq!(kept.len(), 2);
        for ((name, kept), sent) in kept.iter().zip(&sent) {
            assert_eq!(kept.update, Update { tensors: Vec::new(), ..sent.clone() });
            for which in [0..3, 1..3, 2..2, 0..1] {
                assert_eq!(changes.update_tensors(name, kept, which.clone()).unwrap(), sent.tensors[which]);
            }
            assert!(changes.update_tensors(name, kept, 2..4).is_err());
        }
        changes.drop_updates(&run, 2).unwrap();
        assert_eq!(there(), 1, "not before the commit");
        changes.commit().unwrap();
        assert_eq!(there(), 0);
        assert!(store.begin().unwrap().updates(&run, 2).unwrap().is_empty());
    }
}
