//! Long payloads in parts, and the parts together again.

use serde_bytes::ByteBuf;

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
    let part = |index: u32| {
        let from = index as usize * size;
        let data = &payload[from..payload.len().min(from + size)];
        Chunk { run: run.clone(), round, parcel, index, data: ByteBuf::from(data) }
    };
    (0..parcel.chunks).map(part).collect()
}

/// A payload whose chunks are coming in, in any order, any of them more than once.
#[derive(Debug)]
pub struct Assembly {
    parcel: Parcel,
    parts: Vec<Option<ByteBuf>>,
    held: u64,
}

impl Assembly {
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
        Ok(Assembly { parcel, parts: vec![None; parcel.chunks as usize], held: 0 })
    }

    /// The payload it is for.
    pub fn parcel(&self) -> &Parcel {
        &self.parcel
    }

    /// Takes a chunk in; the payload once it is whole.
    ///
    /// # Errors
    /// When the chunk is of another payload or does not fit, or the whole is not what its digest says; the assembly
    /// is of no further use then.
    pub fn add(&mut self, chunk: Chunk) -> Result<Option<Vec<u8>>, WireError> {
        let refuse = |reason| WireError::Chunk { index: chunk.index, count: chunk.parcel.chunks, reason };
        if chunk.parcel != self.parcel {
            return Err(refuse("it belongs to another payload"));
        }
        let Some(part) = self.parts.get_mut(chunk.index as usize) else {
            return Err(refuse("there is no such chunk"));
        };
        if part.is_none() {
            self.held += chunk.data.len() as u64;
            if self.held > self.parcel.size {
                return Err(refuse("it holds more than the payload has left"));
            }
            *part = Some(chunk.data);
        }
        if self.parts.iter().any(Option::is_none) {
            return Ok(None);
        }
        let payload = self.parts.iter().flatten().map(|part| part.as_slice()).collect::<Vec<_>>().concat();
        if payload.len() as u64 != self.parcel.size || Digest::of(&payload) != self.parcel.digest {
            return Err(WireError::Checksum("payload"));
        }
        Ok(Some(payload))
    }

    /// Chunks that are not there yet.
    pub fn missing(&self) -> Vec<u32> {
        (0u32..).zip(&self.parts).filter(|(_, part)| part.is_none()).map(|(index, _)| index).collect()
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
