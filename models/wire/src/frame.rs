//! A message as bytes: `FT`, version, kind, checksum, body.
//!
//! | bytes | what |
//! |---|---|
//! | 0-1 | `FT` |
//! | 2 | version, 3 |
//! | 3 | kind; 128 more where the body is compressed |
//! | 4-7 | CRC-32 (IEEE) of bytes 0-3 and the body, little-endian |
//! | 8.. | body: CBOR, or a zstd frame of it that states its size |

mod read;

use std::cell::RefCell;
use std::io::Cursor;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zstd::bulk::Compressor;

use crate::buffer::buffer;
use crate::error::WireError;

pub(crate) use read::Opened;

/// The version spoken here.
pub const VERSION: u8 = 3;
const MAGIC: [u8; 2] = *b"FT";
const HEADER: usize = 8;
const COMPRESSED: u8 = 128;

/// Deepest nesting of a body.
const RECURSION: usize = 32;

/// Below this a body is not worth compressing.
const WORTH_COMPRESSING: usize = 64;

fn checksum(head: &[u8], body: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(body);
    crc.finalize().to_le_bytes()
}

thread_local! {
    /// Its tables, a megabyte at the usual levels, are made once.
    static COMPRESSOR: RefCell<Compressor<'static>> = RefCell::default();
}

/// Levels beyond this have tables that are not kept.
const KEPT: i32 = 4;

/// Compresses the rest of `frame`, behind room for another header.
fn compressed(frame: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    let plain = &frame[HEADER..];
    let mut small = buffer(HEADER + zstd::zstd_safe::compress_bound(plain.len()));
    small.resize(HEADER, 0);
    let mut small = Cursor::new(small);
    small.set_position(HEADER as u64);
    COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.set_compression_level(level)?;
        compressor.compress_to_buffer(plain, &mut small)?;
        if level > KEPT {
            *compressor = Compressor::default();
        }
        Ok(small.into_inner())
    })
}

/// Encodes a body of kind `kind`, compressed at `level` where that makes it smaller; with level 0 never.
///
/// # Errors
/// When the body has no CBOR form.
pub fn encode<T: Serialize>(kind: u8, body: T, level: i32) -> Result<Vec<u8>, WireError> {
    encode_into(Vec::new(), kind, body, level)
}

/// The same, written to an empty buffer that may have room already.
pub(crate) fn encode_into<T: Serialize>(
    mut frame: Vec<u8>,
    mut kind: u8,
    body: T,
    level: i32,
) -> Result<Vec<u8>, WireError> {
    // The body is written behind the room for the header, so that a long one is not copied once more.
    frame.resize(HEADER, 0);
    let unfit = |reason: String| WireError::Body { what: "body", reason };
    ciborium::into_writer(&body, &mut frame).map_err(|e| unfit(e.to_string()))?;
    drop(body);
    if level != 0 && frame.len() - HEADER >= WORTH_COMPRESSING {
        let small = compressed(&frame, level).map_err(|e| unfit(e.to_string()))?;
        if small.len() < frame.len() {
            (frame, kind) = (small, kind | COMPRESSED);
        }
    }
    let head = [MAGIC[0], MAGIC[1], VERSION, kind];
    let crc = checksum(&head, &frame[HEADER..]);
    frame[..4].copy_from_slice(&head);
    frame[4..HEADER].copy_from_slice(&crc);
    Ok(frame)
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
    if head[3] & COMPRESSED == 0 {
        if body.len() > limit {
            return Err(WireError::TooLarge { what: "message", size: body.len() as u64, limit: limit as u64 });
        }
        return Ok((head[3], body.into()));
    }
    let size = content_size(body, limit)?;
    let unfit = |e: std::io::Error| WireError::Body { what: "compressed body", reason: e.to_string() };
    let mut plain = buffer(size as usize);
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(unfit)?;
    decompressor.decompress_to_buffer(body, &mut plain).map_err(unfit)?;
    if plain.len() as u64 != size {
        let reason = "another frame follows it".into();
        return Err(WireError::Body { what: "compressed body", reason });
    }
    Ok((head[3] & !COMPRESSED, plain.into()))
}

/// What a zstd frame says of its content's size, from its first bytes.
fn content_size(frame: &[u8], limit: usize) -> Result<u64, WireError> {
    let unfit = |reason: &str| WireError::Body { what: "compressed body", reason: reason.into() };
    match zstd::zstd_safe::get_frame_content_size(frame) {
        Ok(Some(size)) if size > limit as u64 => {
            Err(WireError::TooLarge { what: "message", size, limit: limit as u64 })
        }
        Ok(Some(size)) => Ok(size),
        Ok(None) => Err(unfit("it does not state its size")),
        Err(_) => Err(unfit("it is no zstd frame")),
    }
}

/// A body from its CBOR.
///
/// # Errors
/// When it is not one, or something follows it.
pub fn body<T: DeserializeOwned>(what: &'static str, cbor: &[u8]) -> Result<T, WireError> {
    let mut rest = cbor;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, RECURSION)
        .map_err(|e| WireError::Body { what, reason: e.to_string() })?;
    if rest.is_empty() {
        return Ok(value);
    }
    Err(WireError::Body { what, reason: format!("{} bytes follow it", rest.len()) })
}
