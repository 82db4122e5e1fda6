//! Payloads whose chunks come in before or after it is known what they are for.

use std::collections::VecDeque;

use fedtt_wire::chunk::Assembly;
use fedtt_wire::message::{Chunk, Parcel};
use fedtt_wire::{Digest, WireError};

/// So many payloads are put together at a time: the current one, and its successor if it overtakes the manifest.
const HELD: usize = 2;

/// The last payloads of a run, whole or in parts.
#[derive(Debug, Default)]
pub(super) struct Parcels {
    held: VecDeque<Held>,
}

#[derive(Debug)]
enum Held {
    Parts(Assembly),
    Whole(Parcel, Vec<u8>),
}

impl Held {
    fn digest(&self) -> Digest {
        match self {
            Held::Parts(assembly) => assembly.parcel().digest,
            Held::Whole(parcel, _) => parcel.digest,
        }
    }
}

impl Parcels {
    /// Takes a chunk of a payload of at most `limit` bytes in; whether that made it whole.
    ///
    /// # Errors
    /// When it does not fit; what was there of its payload is dropped.
    pub(super) fn add(&mut self, chunk: Chunk, limit: usize) -> Result<bool, WireError> {
        let digest = chunk.parcel.digest;
        let place = match self.held.iter().position(|held| held.digest() == digest) {
            Some(place) => place,
            None => {
                let assembly = Assembly::new(chunk.parcel, limit)?;
                if self.held.len() == HELD {
                    self.held.pop_front();
                }
                self.held.push_back(Held::Parts(assembly));
                self.held.len() - 1
            }
        };
        let Held::Parts(assembly) = &mut self.held[place] else { return Ok(false) };
        let parcel = *assembly.parcel();
        match assembly.add(chunk) {
            Ok(None) => Ok(false),
            Ok(Some(payload)) => {
                self.held[place] = Held::Whole(parcel, payload);
                Ok(true)
            }
            Err(error) => {
                self.held.remove(place);
                Err(error)
            }
        }
    }

    /// A payload that is whole.
    pub(super) fn get(&self, digest: &Digest) -> Option<&[u8]> {
        self.held.iter().find_map(|held| match held {
            Held::Whole(parcel, payload) if parcel.digest == *digest => Some(payload.as_slice()),
            _ => None,
        })
    }

    /// Takes out the last payload that became whole.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let place = self.held.iter().rposition(|held| matches!(held, Held::Whole(..)))?;
        match self.held.remove(place) {
            Some(Held::Whole(_, payload)) => Some(payload),
            _ => None,
        }
    }

    /// Drops a payload.
    pub(super) fn discard(&mut self, digest: &Digest) {
        self.held.retain(|held| held.digest() != *digest);
    }
}
