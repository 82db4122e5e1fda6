//! Tensors in CBOR, neighbours of one format together: what is alike compresses well side by side.
//!
//! An array of groups `[kind, sizes, scales, data]`:
//!
//! - kind: 0 binary32, 1 bfloat16, 2 binary16, 3 signed bytes times a scale; 16 more where the bytes of each tensor are
//!   grouped by significance, all lowest bytes first;
//! - sizes: the number of values of each tensor;
//! - scales: for kind 3 one binary32 for each tensor, a typed array (RFC 8746, tag 85); else an empty one;
//! - data: the tensors' bytes one after the other, a typed array (tag 85, 69 for bfloat16, which has no tag of its own, 84,
//!   72), or a plain byte string where bytes are grouped.

use std::borrow::Cow;

use ciborium::tag::Captured;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteBuf;

use super::{Data, EncodedTensor};
use crate::plan::Encoding;

/// Typed arrays of RFC 8746, little-endian.
const TAG_F32: u64 = 85;
const TAG_F16: u64 = 84;
const TAG_U16: u64 = 69;
const TAG_I8: u64 = 72;

/// Added to a kind where bytes are grouped by significance.
const SHUFFLED: u8 = 16;

const ENCODINGS: [(Encoding, u64); 4] =
    [(Encoding::F32, TAG_F32), (Encoding::Bf16, TAG_U16), (Encoding::F16, TAG_F16), (Encoding::Int8, TAG_I8)];

fn kind(tensor: &EncodedTensor) -> u8 {
    let number = ENCODINGS.iter().position(|(encoding, _)| *encoding == tensor.encoding).unwrap_or(0) as u8;
    number + if tensor.shuffled { SHUFFLED } else { 0 }
}

/// Serialises tensors as groups.
///
/// # Errors
/// As the serializer has them.
pub fn serialize<S: Serializer>(tensors: &[EncodedTensor], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(tensors.chunk_by(|a, b| kind(a) == kind(b)).map(group))
}

/// A group of tensors of one kind, as it is written.
fn group(tensors: &[EncodedTensor]) -> (u8, Vec<u64>, Captured<ByteBuf>, Captured<CowBytes<'_>>) {
    let kind = kind(&tensors[0]);
    let sizes: Vec<u64> = tensors.iter().map(|t| (t.data.len() / t.encoding.width()) as u64).collect();
    let scaled = tensors.iter().filter(|t| t.encoding == Encoding::Int8);
    let scales: Vec<u8> = scaled.flat_map(|t| t.scale.to_le_bytes()).collect();
    let data = Data::together(&tensors.iter().map(|t| &t.data).collect::<Vec<_>>());
    let tag = (kind & SHUFFLED == 0).then(|| ENCODINGS[usize::from(kind)].1);
    (kind, sizes, Captured(Some(TAG_F32), ByteBuf::from(scales)), Captured(tag, CowBytes(data)))
}

/// Bytes as a byte string.
struct CowBytes<'a>(Cow<'a, [u8]>);

impl Serialize for CowBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

/// Characters of a reason; sizes may be very many.
const LONGEST_REASON: usize = 200;

/// A group as it is read.
#[derive(Deserialize)]
struct Group(u8, Vec<u64>, Captured<ByteBuf>, Captured<ByteBuf>);

/// Reads tensors back.
///
/// # Errors
/// When a group contradicts itself.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<EncodedTensor>, D::Error> {
    let mut tensors = Vec::new();
    for Group(kind, sizes, Captured(scales_tag, scales), Captured(tag, data)) in
        Vec::<Group>::deserialize(deserializer)?
    {
        let shuffled = kind & SHUFFLED != 0;
        let Some(&(encoding, typed)) = ENCODINGS.get(usize::from(kind & !SHUFFLED)) else {
            return Err(D::Error::custom(format!("tensors of unknown kind {kind}")));
        };
        if tag.is_some_and(|tag| shuffled || tag != typed) || scales_tag.is_some_and(|tag| tag != TAG_F32) {
            return Err(D::Error::custom(format!(
                "typed array tags {tag:?}, {scales_tag:?} do not go with kind {kind}"
            )));
        }
        let expected = if encoding == Encoding::Int8 { sizes.len() * 4 } else { 0 };
        if scales.len() != expected {
            return Err(D::Error::custom(format!("{} bytes of scales for {} tensors", scales.len(), sizes.len())));
        }
        let scale =
            |i: usize| scales.get(i * 4..i * 4 + 4).map_or(1.0, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let width = encoding.width() as u64;
        let expected = sizes.iter().try_fold(0u64, |sum, size| sum.checked_add(size.checked_mul(width)?));
        if expected != Some(data.len() as u64) {
            let reason = format!("{} bytes for {} tensors of {sizes:?} values", data.len(), sizes.len());
            return Err(D::Error::custom(reason.chars().take(LONGEST_REASON).collect::<String>()));
        }
        let data = Data::from(data.into_vec());
        let mut end = 0;
        for (i, size) in sizes.iter().enumerate() {
            let start = end;
            end += (size * width) as usize;
            let data = data.part(start..end).ok_or_else(|| D::Error::custom("fewer bytes than values"))?;
            tensors.push(EncodedTensor { encoding, shuffled, scale: scale(i), data });
        }
    }
    Ok(tensors)
}

/// Tensors on their own, for what is stored rather than said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packed(pub Vec<EncodedTensor>);

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Packed)
    }
}
