//! Floating-point figures kept as bits: a run that goes on must compare with exactly what it saw.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn serialize<S: Serializer, const N: usize>(figures: &[f64; N], s: S) -> Result<S::Ok, S::Error> {
    figures.map(f64::to_bits).as_slice().serialize(s)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(d: D) -> Result<[f64; N], D::Error> {
    let bits = <[u64; N]>::try_from(Vec::<u64>::deserialize(d)?);
    bits.map(|bits| bits.map(f64::from_bits)).map_err(|found| D::Error::invalid_length(found.len(), &"another number"))
}
