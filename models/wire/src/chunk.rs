//! Long payloads in parts, and the parts together again.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_bytes::ByteBuf;

use crate::buffer::buffer;
use crate::digest::Digest;
use crate::error::WireError;
use crate::message::{Chunk, Parcel};
use crate::names::RunId;

/// What a payload is when cut into chunks of at most `size` bytes.
pub fn parcel(payload: &[u8], size: usize) -> Parcel {
    Parcel {
        digest: Digest::of(payload),
        size: payload.len() as u64,
        chunks: payload.len().div_ceil(size.max(1)).max(1) as u32,
    }
}

/// Cuts a payload into chunks of at most `size` bytes.
pub fn split(run: &RunId, round: u32, payload: &[u8], size: usize) -> Vec<Chunk> {
    let parcel = parcel(payload, size);
    (0..parcel.chunks).map(|index| part(run, round, parcel, payload, size, index)).collect()
}

/// One chunk of a payload, whose parcel for chunks of `size` bytes is known.
pub fn part(run: &RunId, round: u32, parcel: Parcel, payload: &[u8], size: usize, index: u32) -> Chunk {
    let from = payload.len().min(index as usize * size);
    let data = &payload[from..payload.len().min(from + size)];
    Chunk { run: run.clone(), round, parcel, index, data: ByteBuf::from(data) }
}

/// Which chunks of a payload have come, in any order, any of them more than once; their bytes are kept elsewhere, one chunk
/// after the other as they came.
#[derive(Clone, Debug)]
pub struct Ledger {
    parcel: Parcel,
    /// Chunk to where it lies among what came.
    places: BTreeMap<u32, Range<u64>>,
    held: u64,
}

impl Ledger {
    /// Of a payload of at most `limit` bytes.
    ///
    /// # Errors
    /// When it says it is larger, or of more chunks than it has bytes.
    pub fn new(parcel: Parcel, limit: usize) -> Result<Self, WireError> {
        if parcel.size > limit as u64 {
            return Err(WireError::TooLarge { what: "payload", size: parcel.size, limit: limit as u64 });
        }
        if parcel.chunks == 0 || u64::from(parcel.chunks) > parcel.size.max(1) {
            return Err(WireError::Chunk { index: 0, count: parcel.chunks, reason: "a payload of no such size" });
        }
        Ok(Ledger { parcel, places: BTreeMap::new(), held: 0 })
    }

    /// The payload it is for.
    pub fn parcel(&self) -> &Parcel {
        &self.parcel
    }

    /// Takes note of a chunk. Whether it is new: then its bytes belong behind those that came before.
    ///
    /// # Errors
    /// When it is of another payload or does not fit; the ledger is of no further use then.
    pub fn note(&mut self, chunk: &Chunk) -> Result<bool, WireError> {
        let refuse = |reason| WireError::Chunk { index: chunk.index, count: chunk.parcel.chunks, reason };
        if chunk.parcel != self.parcel {
            return Err(refuse("it belongs to another payload"));
        }
        if chunk.index >= self.parcel.chunks {
            return Err(refuse("there is no such chunk"));
        }
        if self.has(chunk.index) {
            return Ok(false);
        }
        let end = self.held + chunk.data.len() as u64;
        if end > self.parcel.size {
            return Err(refuse("it holds more than the payload has left"));
        }
        self.places.insert(chunk.index, self.held..end);
        self.held = end;
        Ok(true)
    }

    /// Whether a chunk has come.
    pub fn has(&self, index: u32) -> bool {
        self.places.contains_key(&index)
    }

    /// Whether all have.
    pub fn is_whole(&self) -> bool {
        self.places.len() == self.parcel.chunks as usize
    }

    /// Chunks that are not there yet; of very many the first.
    pub fn missing(&self) -> Vec<u32> {
        (0..self.parcel.chunks).filter(|index| !self.has(*index)).take(MOST_NAMED).collect()
    }

    /// Where the payload's bytes lie among what came, in their order.
    pub fn order(&self) -> Vec<Range<u64>> {
        let mut order: Vec<Range<u64>> = Vec::new();
        for place in self.places.values() {
            match order.last_mut() {
                Some(last) if last.end == place.start => last.end = place.end,
                _ => order.push(place.clone()),
            }
        }
        order
    }
}

/// Most missing chunks that are asked for at once.
const MOST_NAMED: usize = 4096;

/// A payload put together in memory.
#[derive(Debug)]
pub struct Assembly {
    ledger: Ledger,
    held: Vec<u8>,
}

impl Assembly {
    /// Of a payload of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Ledger::new`] has them.
    pub fn new(parcel: Parcel, limit: usize) -> Result<Self, WireError> {
        let ledger = Ledger::new(parcel, limit)?;
        Ok(Assembly { ledger, held: buffer(parcel.size as usize) })
    }

    /// The payload it is for.
    pub fn parcel(&self) -> &Parcel {
        &self.ledger.parcel
    }

    /// Takes a chunk in; the payload once it is whole.
    ///
    /// # Errors
    /// When the chunk is of another payload or does not fit, or the whole is not what its digest says; the assembly
    /// is of no further use then.
    pub fn add(&mut self, chunk: Chunk) -> Result<Option<Vec<u8>>, WireError> {
        if self.ledger.note(&chunk)? {
            self.held.extend_from_slice(&chunk.data);
        }
        if !self.ledger.is_whole() {
            return Ok(None);
        }
        let held = std::mem::take(&mut self.held);
        let order = self.ledger.order();
        let payload = match order.len() {
            0 | 1 => held,
            _ => order.iter().map(|at| &held[at.start as usize..at.end as usize]).collect::<Vec<_>>().concat(),
        };
        if payload.len() as u64 != self.ledger.parcel.size || Digest::of(&payload) != self.ledger.parcel.digest {
            return Err(WireError::Checksum("payload"));
        }
        Ok(Some(payload))
    }

    /// Chunks that are not there yet; of very many the first.
    pub fn missing(&self) -> Vec<u32> {
        self.ledger.missing()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chunks(payload: &[u8], size: usize) -> Vec<Chunk> {
        split(&RunId::new("r").unwrap(), 0, payload, size)
    }

    #[test]
    fn chunks_in_any_order_and_number_make_the_payload() {
        let payload: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let mut parts = chunks(&payload, 96);
        assert_eq!(parts.len(), 11);
        parts.reverse();
        let mut assembly = Assembly::new(parts[0].parcel, 1000).unwrap();
        let (last, rest) = parts.split_last().unwrap();
        for part in rest.iter().chain(rest) {
            assert_eq!(assembly.add(part.clone()).unwrap(), None);
        }
        assert_eq!(assembly.missing(), [0]);
        assert_eq!(assembly.add(last.clone()).unwrap().unwrap(), payload);
    }

    #[test]
    fn a_ledger_says_what_is_missing_and_where_the_rest_lies() {
        let payload: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let parts = chunks(&payload, 300);
        let mut ledger = Ledger::new(parts[0].parcel, 1000).unwrap();
        let mut came = Vec::new();
        for index in [1, 2, 1, 0] {
            if ledger.note(&parts[index]).unwrap() {
                came.extend_from_slice(&parts[index].data);
            }
        }
        assert!(!ledger.is_whole() && ledger.has(2) && !ledger.has(3));
        assert_eq!(ledger.missing(), [3]);
        ledger.note(&parts[3]).unwrap();
        came.extend_from_slice(&parts[3].data);
        assert_eq!((ledger.is_whole(), ledger.order()), (true, vec![600..900, 0..600, 900..1000]));
        let put: Vec<u8> =
            ledger.order().into_iter().flat_map(|p| came[p.start as usize..p.end as usize].to_vec()).collect();
        assert_eq!(put, payload);
    }

    #[test]
    fn an_empty_payload_is_one_chunk() {
        let parts = chunks(&[], 10);
        assert_eq!(parts.len(), 1);
        let mut assembly = Assembly::new(parts[0].parcel, 0).unwrap();
        assert_eq!(assembly.add(parts[0].clone()).unwrap().unwrap(), Vec::<u8>::new());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let parts = chunks(&[7; 100], 30);
        let parcel = parts[0].parcel;
        assert!(matches!(Assembly::new(parcel, 99), Err(WireError::TooLarge { .. })));
        assert!(Assembly::new(Parcel { chunks: u32::MAX, ..parcel }, 100).is_err());
        assert!(Assembly::new(Parcel { chunks: 0, ..parcel }, 100).is_err());
        let fresh = || Assembly::new(parcel, 100).unwrap();
        assert!(fresh().add(Chunk { index: 4, ..parts[0].clone() }).is_err());
        assert!(fresh().add(chunks(&[8; 100], 30)[0].clone()).is_err());
        assert!(fresh().add(Chunk { data: ByteBuf::from(vec![7; 101]), ..parts[0].clone() }).is_err());
        let mut damaged = fresh();
        for part in &parts[1..] {
            damaged.add(part.clone()).unwrap();
        }
        let wrong = Chunk { data: ByteBuf::from(vec![9; 30]), ..parts[0].clone() };
        assert_eq!(damaged.add(wrong).unwrap_err(), WireError::Checksum("payload"));
    }
}
