//! Updates of which not all chunks have come. Short ones are in memory, long ones in files: what a cohort sends at a time may
//! be far more than memory. Neither outlasts the process; devices send again what was not answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use fedtt_wire::chunk::Ledger;
use fedtt_wire::digest::Hashing;
use fedtt_wire::message::{Chunk, Parcel};
use fedtt_wire::{DeviceName, Digest, Message, RunId, WireError};

use crate::store::{Files, Parts, StoreError};

/// Most updates being put together at a time; beyond, the oldest is dropped and asked for again. Of a device and run there
/// is one.
const MOST: usize = 4096;

/// Payloads up to this size are put together in memory, unless there are too many.
const SHORT: u64 = 256 << 10;

/// Most bytes in memory.
const HELD: u64 = 64 << 20;

type Key = (DeviceName, RunId);

/// All updates of which parts are there.
pub(super) struct Assemblies {
    incomplete: BTreeMap<Key, Incomplete>,
    /// None where everything is in memory.
    files: Option<Arc<Files>>,
    /// Bytes of the payloads put together in memory.
    held: u64,
}

/// An update of which parts are there.
struct Incomplete {
    round: u32,
    ledger: Ledger,
    /// Unix milliseconds of the last chunk.
    last: u64,
    bytes: Bytes,
}

/// The chunks' bytes, as they came.
enum Bytes {
    Memory(Vec<u8>),
    File(u64),
}

/// What a chunk led to.
pub(super) enum Added {
    /// There is more to come. What is missing is told where the sender seems to believe that all was sent.
    Part {
        /// Chunks to be sent again.
        missing: Option<Vec<u32>>,
    },
    /// A whole message.
    Whole(Box<Message>),
    /// All of it came as it was sent, and makes no sense.
    Malformed(WireError),
    /// It did not come as it was sent.
    Damaged {
        /// What is wrong.
        error: WireError,
        /// Chunks to be sent again: all, or of very many the first.
        missing: Vec<u32>,
    },
}

impl Assemblies {
    pub(super) fn new(files: Option<Arc<Files>>) -> Self {
        Assemblies { incomplete: BTreeMap::new(), files, held: 0 }
    }

    pub(super) fn clear(&mut self) {
        while let Some((_, incomplete)) = self.incomplete.pop_first() {
            self.discard(incomplete);
        }
    }

    /// Drops what came from a device.
    pub(super) fn forget(&mut self, device: &DeviceName) {
        self.forget_all(|(of, _)| of == device);
    }

    /// Drops what came for a run.
    pub(super) fn forget_run(&mut self, run: &RunId) {
        self.forget_all(|(_, of)| of == run);
    }

    fn forget_all(&mut self, is_gone: impl Fn(&Key) -> bool) {
        let gone: Vec<Key> = self.incomplete.keys().filter(|key| is_gone(key)).cloned().collect();
        gone.iter().for_each(|key| self.drop_one(key));
    }

    fn drop_one(&mut self, key: &Key) {
        if let Some(incomplete) = self.incomplete.remove(key) {
            self.discard(incomplete);
        }
    }

    fn discard(&mut self, incomplete: Incomplete) {
        match incomplete.bytes {
            Bytes::Memory(_) => self.held -= incomplete.ledger.parcel().size,
            Bytes::File(number) => self.files.iter().for_each(|files| files.remove(number)),
        }
    }

    /// Takes in a chunk of a payload of at most `limit` bytes.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(super) fn add(
        &mut self,
        device: &DeviceName,
        chunk: Chunk,
        limit: usize,
        now: u64,
    ) -> Result<Added, StoreError> {
        let key = (device.clone(), chunk.run.clone());
        let same = |found: &Incomplete| found.round == chunk.round && *found.ledger.parcel() == chunk.parcel;
        if !self.incomplete.get(&key).is_some_and(same) {
            self.drop_one(&key);
            match Ledger::new(chunk.parcel, limit) {
                Ok(ledger) => self.begin(key.clone(), chunk.round, ledger, now)?,
                Err(error) => return Ok(Added::Malformed(error)),
            }
        }
        let Some(found) = self.incomplete.get_mut(&key) else { return Ok(Added::Part { missing: None }) };
        found.last = now;
        let is_last = chunk.index + 1 == chunk.parcel.chunks;
        let fresh = match found.ledger.note(&chunk) {
            Ok(fresh) => fresh,
            Err(error) => {
                self.drop_one(&key);
                return Ok(damaged(error, chunk.parcel, limit));
            }
        };
        if fresh {
            match (&mut found.bytes, &self.files) {
                (Bytes::Memory(bytes), _) => bytes.extend_from_slice(&chunk.data),
                (Bytes::File(number), Some(files)) => files.append(*number, &chunk.data)?,
                (Bytes::File(_), None) => {}
            }
        }
        if !found.ledger.is_whole() {
            let missing = (!fresh || is_last).then(|| found.ledger.missing());
            return Ok(Added::Part { missing });
        }
        let Some(whole) = self.incomplete.remove(&key) else { return Ok(Added::Part { missing: None }) };
        let read = self.read(&whole, limit);
        self.discard(whole);
        read
    }

    fn begin(&mut self, key: Key, round: u32, ledger: Ledger, now: u64) -> Result<(), StoreError> {
        if self.incomplete.len() >= MOST
            && let Some((oldest, _)) = self.incomplete.iter().min_by_key(|(_, found)| found.last)
        {
            let oldest = oldest.clone();
            self.drop_one(&oldest);
        }
        let size = ledger.parcel().size;
        let bytes = match &self.files {
            Some(files) if size > SHORT || self.held + size > HELD => Bytes::File(files.create()?.0),
            _ => {
                self.held += size;
                Bytes::Memory(Vec::with_capacity(size as usize))
            }
        };
        self.incomplete.insert(key, Incomplete { round, ledger, last: now, bytes });
        Ok(())
    }

    /// The message of a payload of which all chunks are there.
    fn read(&self, whole: &Incomplete, limit: usize) -> Result<Added, StoreError> {
        let order = whole.ledger.order();
        let (message, digest) = match (&whole.bytes, &self.files) {
            (Bytes::File(number), Some(files)) => read(Hashing::new(Parts::new(files.read(*number)?, order)), limit),
            (Bytes::Memory(bytes), _) if order.len() == 1 => (Message::decode(bytes, limit), Ok(Digest::of(bytes))),
            (Bytes::Memory(bytes), _) => read(Hashing::new(Parts::new(bytes.as_slice(), order)), limit),
            (Bytes::File(_), None) => return Ok(Added::Part { missing: None }),
        };
        let unread = |reason| StoreError::Content { what: "an update that came in".into(), reason };
        if digest.map_err(|e| unread(e.to_string()))? != whole.ledger.parcel().digest {
            return Ok(damaged(WireError::Checksum("payload"), *whole.ledger.parcel(), limit));
        }
        match message {
            Ok(message) => Ok(Added::Whole(message.into())),
            Err(WireError::Source(reason)) => Err(unread(reason)),
            Err(error) => Ok(Added::Malformed(error)),
        }
    }
}

fn damaged(error: WireError, parcel: Parcel, limit: usize) -> Added {
    Added::Damaged { error, missing: Ledger::new(parcel, limit).map(|ledger| ledger.missing()).unwrap_or_default() }
}

/// The message, and the digest of all that was to be read.
fn read<R: std::io::Read>(
    mut source: Hashing<R>,
    limit: usize,
) -> (Result<Message, WireError>, std::io::Result<Digest>) {
    let message = Message::read(&mut source, limit);
    (message, source.finish())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use fedtt_wire::chunk::split;
    use fedtt_wire::message::End;

    use super::*;
    use crate::store::Store;

    fn device(name: &str) -> DeviceName {
        DeviceName::new(name).unwrap()
    }

    /// A payload of which nothing can be made, in chunks.
    fn noise(length: usize, seed: u8) -> Vec<Chunk> {
        let bytes: Vec<u8> = (0..length).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
        split(&RunId::new("r-1").unwrap(), 0, &bytes, 64 << 10)
    }

    fn files(folder: &std::path::Path) -> usize {
        std::fs::read_dir(folder.join("updates")).unwrap().count()
    }

    #[test]
    fn long_updates_are_files_until_they_are_whole_and_short_ones_memory() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("host.redb")).unwrap();
        let mut assemblies = Assemblies::new(store.files().cloned());
        let limit = 1 << 20;
        let (long, short) = (noise(900_000, 1), noise(200_000, 2));
        for chunk in long[1..].iter().rev() {
            let added = assemblies.add(&device("a"), chunk.clone(), limit, 0).unwrap();
            assert!(matches!(added, Added::Part { .. }));
        }
        for chunk in &short[..short.len() - 1] {
            assemblies.add(&device("b"), chunk.clone(), limit, 0).unwrap();
        }
        assert_eq!((files(folder.path()), assemblies.held), (1, 200_000));
        let again = assemblies.add(&device("a"), long[2].clone(), limit, 0).unwrap();
        assert!(matches!(again, Added::Part { missing: Some(missing) } if missing == [0]));
        let whole = assemblies.add(&device("a"), long[0].clone(), limit, 0).unwrap();
        assert!(matches!(whole, Added::Malformed(WireError::Foreign(_))), "as it was sent, and no message");
        assert_eq!(files(folder.path()), 0);
        assemblies.forget_run(&RunId::new("r-2").unwrap());
        assert_eq!(assemblies.held, 200_000);
        assemblies.forget_run(&RunId::new("r-1").unwrap());
        assert_eq!(assemblies.held, 0);
        assemblies.add(&device("b"), short[0].clone(), limit, 0).unwrap();
        assemblies.forget(&device("b"));
        assert_eq!(assemblies.held, 0);
    }

    #[test]
    fn what_is_damaged_is_told_from_what_makes_no_sense() {
        let mut assemblies = Assemblies::new(None);
        let end = Message::from(End { run: RunId::new("r-1").unwrap(), began: 7 });
        let payload = end.encode(0).unwrap();
        let chunks = split(&RunId::new("r-1").unwrap(), 0, &payload, 10);
        let mut damaged = chunks[1].clone();
        damaged.data[3] ^= 1;
        for chunk in [&chunks[0], &damaged] {
            assemblies.add(&device("a"), chunk.clone(), 1000, 0).unwrap();
        }
        let mut last = None;
        for chunk in &chunks[2..] {
            last = Some(assemblies.add(&device("a"), chunk.clone(), 1000, 0).unwrap());
        }
        assert!(
            matches!(&last, Some(Added::Damaged { error: WireError::Checksum("payload"), missing }) if missing.len() == chunks.len())
        );
        for chunk in &chunks {
            last = Some(assemblies.add(&device("a"), chunk.clone(), 1000, 0).unwrap());
        }
        assert!(matches!(last, Some(Added::Whole(message)) if *message == end));
        assert!(assemblies.incomplete.is_empty() && assemblies.held == 0);
    }

    #[test]
    fn neither_number_nor_bytes_in_memory_grow_beyond_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("host.redb")).unwrap();
        let mut assemblies = Assemblies::new(store.files().cloned());
        let chunk = noise(250_000, 3).remove(0);
        for i in 0..300 {
            assemblies.add(&device(&format!("d{i}")), chunk.clone(), 1 << 20, i).unwrap();
        }
        assert!(assemblies.held <= HELD && files(folder.path()) == 300 - (HELD / 250_000) as usize);
        assemblies.clear();
        assert_eq!((assemblies.held, files(folder.path())), (0, 0));
        let mut small = noise(100, 4).remove(0);
        small.parcel.chunks = 2;
        for i in 0..MOST as u64 + 10 {
            assemblies.add(&device(&format!("d{i}")), small.clone(), 1 << 20, i).unwrap();
        }
        assert_eq!(assemblies.incomplete.len(), MOST);
        assert!(!assemblies.incomplete.contains_key(&(device("d9"), small.run.clone())));
    }
}
