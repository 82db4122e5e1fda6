//! A message as bytes: `FT`, version, kind, checksum, body.
//!
//! | bytes | what |
//! |---|---|
//! | 0-1 | `FT` |
//! | 2 | version, 2 |
//! | 3 | kind; 128 more where the body is compressed |
//! | 4-7 | CRC-32 (IEEE) of bytes 0-3 and the body, little-endian |
//! | 8.. | body: CBOR, or a zstd frame of it that states its size |

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::WireError;

/// The version spoken here.
pub const VERSION: u8 = 2;
const MAGIC: [u8; 2] = *b"FT";
const HEADER: usize = 8;
const COMPRESSED: u8 = 128;

/// Below this a body is not worth compressing.
const WORTH_COMPRESSING: usize = 64;

fn checksum(head: &[u8], body: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(body);
    crc.finalize().to_le_bytes()
}

/// Encodes a body of kind `kind`, compressed at `level` where that makes it smaller; with level 0 never.
///
/// # Errors
/// When the body has no CBOR form.
pub fn encode<T: Serialize>(kind: u8, body: &T, level: i32) -> Result<Vec<u8>, WireError> {
    let mut cbor = Vec::new();
    let unfit = |reason: String| WireError::Body { what: "body", reason };
    ciborium::into_writer(body, &mut cbor).map_err(|e| unfit(e.to_string()))?;
    let mut kind = kind;
    if level != 0 && cbor.len() >= WORTH_COMPRESSING {
        let small = zstd::bulk::compress(&cbor, level).map_err(|e| unfit(e.to_string()))?;
        if small.len() < cbor.len() {
            (cbor, kind) = (small, kind | COMPRESSED);
        }
    }
    let head = [MAGIC[0], MAGIC[1], VERSION, kind];
    let crc = checksum(&head, &cbor);
    Ok([&head[..], &crc, &cbor].concat())
}

/// What is wrong with the version of a frame, where that can be told.
pub(crate) fn foreign_version(bytes: &[u8]) -> Option<WireError> {
    let found = *bytes.strip_prefix(&MAGIC)?.first()?;
    (found != VERSION).then_some(WireError::Version { found, supported: VERSION })
}

/// The kind of a frame, and its body decompressed to at most `limit` bytes.
///
/// # Errors
/// When the bytes are no frame, of another version, damaged, or too large.
pub fn open(bytes: &[u8], limit: usize) -> Result<(u8, std::borrow::Cow<'_, [u8]>), WireError> {
    let Some((head, rest)) = bytes.split_at_checked(4) else { return Err(WireError::Foreign("it is too short")) };
    if head[..2] != MAGIC {
        return Err(WireError::Foreign("it does not begin with `FT`"));
    }
    // Before the checksum, whose place another version may have moved.
    if let Some(error) = foreign_version(head) {
        return Err(error);
    }
    let Some((crc, body)) = rest.split_at_checked(HEADER - 4) else {
        return Err(WireError::Foreign("it is too short"));
    };
    if checksum(head, body) != crc {
        return Err(WireError::Checksum("message"));
    }
    let too_large = |size: u64| WireError::TooLarge { what: "message", size, limit: limit as u64 };
    if head[3] & COMPRESSED == 0 {
        if body.len() > limit {
            return Err(too_large(body.len() as u64));
        }
        return Ok((head[3], body.into()));
    }
    let unfit = |reason: String| WireError::Body { what: "compressed body", reason };
    let size = match zstd::zstd_safe::get_frame_content_size(body) {
        Ok(Some(size)) => size,
        Ok(None) => return Err(unfit("it does not state its size".into())),
        Err(_) => return Err(unfit("it is no zstd frame".into())),
    };
    if size > limit as u64 {
        return Err(too_large(size));
    }
    let plain = zstd::bulk::decompress(body, size as usize).map_err(|e| unfit(e.to_string()))?;
    Ok((head[3] & !COMPRESSED, plain.into()))
}

/// A body from its CBOR.
///
/// # Errors
/// When it is not one, or something follows it.
pub fn body<T: DeserializeOwned>(what: &'static str, cbor: &[u8]) -> Result<T, WireError> {
    let mut rest = cbor;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, 32)
        .map_err(|e| WireError::Body { what, reason: e.to_string() })?;
    if rest.is_empty() {
        return Ok(value);
    }
    Err(WireError::Body { what, reason: format!("{} bytes follow it", rest.len()) })
}
