//! A frame that is read as it is needed.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use serde::de::DeserializeOwned;

use super::{COMPRESSED, HEADER, MAGIC, RECURSION, content_size, foreign_version};
use crate::error::WireError;

/// Bytes looked at beforehand: the header, and that of a zstd frame.
const AHEAD: u64 = HEADER as u64 + 18;

/// Passes bytes on, with their checksum; remembers a failure, which the decoders above make a fault of the bytes.
struct Watched<R> {
    source: R,
    crc: crc32fast::Hasher,
    failed: Option<String>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.source.read(bytes) {
            Ok(count) => {
                self.crc.update(&bytes[..count]);
                Ok(count)
            }
            Err(error) => {
                self.failed = Some(error.to_string());
                Err(error)
            }
        }
    }
}

type Rest<R> = BufReader<Watched<Chain<Cursor<Vec<u8>>, R>>>;

enum Body<R: Read> {
    Plain(Rest<R>),
    Compressed(zstd::stream::read::Decoder<'static, Rest<R>>),
}

/// A frame whose header has been read.
pub(crate) struct Opened<R: Read> {
    kind: u8,
    crc: [u8; 4],
    limit: u64,
    body: Body<R>,
}

impl<R: Read> Opened<R> {
    /// Of a frame whose body is at most `limit` bytes, decompressed.
    pub(crate) fn new(mut source: R, limit: usize) -> Result<Self, WireError> {
        let mut ahead = Vec::new();
        let read = source.by_ref().take(AHEAD).read_to_end(&mut ahead);
        read.map_err(|e| WireError::Source(e.to_string()))?;
        if !ahead.starts_with(&MAGIC) {
            return Err(WireError::Foreign("it does not begin with `FT`"));
        }
        if let Some(error) = foreign_version(&ahead) {
            return Err(error);
        }
        let Some((header, begin)) = ahead.split_first_chunk::<HEADER>() else {
            return Err(WireError::Foreign("it is too short"));
        };
        let [head @ .., _, _, _, _] = header;
        let [.., c0, c1, c2, c3] = *header;
        let compressed = header[3] & COMPRESSED != 0;
        let limit = match compressed {
            true => content_size(begin, limit)?,
            false => limit as u64,
        };
        let mut crc = crc32fast::Hasher::new();
        crc.update(head);
        let source = Watched { source: Cursor::new(begin.to_vec()).chain(source), crc, failed: None };
        let rest = BufReader::with_capacity(BUFFER, source);
        let body = match compressed {
            false => Body::Plain(rest),
            true => {
                let decoder = zstd::stream::read::Decoder::with_buffer(rest);
                Body::Compressed(decoder.map_err(|e| WireError::Source(e.to_string()))?.single_frame())
            }
        };
        Ok(Opened { kind: header[3] & !COMPRESSED, crc: [c0, c1, c2, c3], limit, body })
    }

    pub(crate) fn kind(&self) -> u8 {
        self.kind
    }

    /// The body from its CBOR.
    pub(crate) fn body<T: DeserializeOwned>(&mut self, what: &'static str) -> Result<T, WireError> {
        let unfit = |reason: String| WireError::Body { what, reason };
        let source: &mut dyn Read = match &mut self.body {
            Body::Plain(rest) => rest,
            Body::Compressed(decoder) => decoder,
        };
        // One more than may be there, which then follows the body.
        let mut source = BufReader::with_capacity(BUFFER, source.take(self.limit + 1));
        let value = ciborium::de::from_reader_with_recursion_limit(&mut source, RECURSION);
        let value = value.map_err(|e| unfit(e.to_string()))?;
        match source.fill_buf() {
            Ok([]) => Ok(value),
            Ok(more) => Err(unfit(format!("{} bytes or more follow it", more.len()))),
            Err(error) => Err(unfit(error.to_string())),
        }
    }

    /// What was read, if the frame is at its end and its checksum is right.
    pub(crate) fn end<T>(self, read: Result<T, WireError>) -> Result<T, WireError> {
        let mut rest = match self.body {
            Body::Plain(rest) => rest,
            Body::Compressed(decoder) => decoder.finish(),
        };
        // The checksum is of all, also of what was not understood.
        let followed = io::copy(&mut rest, &mut io::sink()).unwrap_or_default();
        let Watched { crc, failed, .. } = rest.into_inner();
        if let Some(error) = failed {
            return Err(WireError::Source(error));
        }
        if crc.finalize().to_le_bytes() != self.crc {
            return Err(WireError::Checksum("message"));
        }
        let value = read?;
        if followed > 0 {
            return Err(WireError::Body { what: "frame", reason: format!("{followed} bytes follow it") });
        }
        Ok(value)
    }
}

const BUFFER: usize = 64 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::digest::{Digest, Hashing};
    use crate::message::{Host, Message};
    use crate::seal::SigningKey;

    /// Gives a few bytes at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let count = bytes.len().min(3).min(self.0.len());
            bytes[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }

    fn message(length: usize) -> Message {
        let key = SigningKey::from_seed(&[3; 32]).unwrap().public();
        Host { key, version: "v".repeat(length) }.into()
    }

    #[test]
    fn a_frame_is_read_as_it_is_decoded() {
        for (length, level) in [(1, 0), (3, 3), (100_000, 0), (100_000, 3), (300_000, 19)] {
            let bytes = message(length).encode(level).unwrap();
            let mut hashing = Hashing::new(Slow(&bytes));
            assert_eq!(Message::read(&mut hashing, 1 << 20).unwrap(), message(length));
            assert_eq!(hashing.finish().unwrap(), Digest::of(&bytes));
            for wrong in [0, 2, 3, 5, 8, 12, bytes.len() / 2, bytes.len() - 1] {
                let mut damaged = bytes.clone();
                damaged[wrong] ^= 0x41;
                assert_eq!(
                    Message::read(Slow(&damaged), 1 << 20).is_err(),
                    Message::decode(&damaged, 1 << 20).is_err(),
                    "{wrong}"
                );
                assert!(Message::read(Slow(&damaged), 1 << 20).is_err(), "{wrong}");
            }
            assert!(Message::read(Slow(&bytes[..bytes.len() - 1]), 1 << 20).is_err());
            assert!(Message::read(Slow(&[&bytes[..], &[0]].concat()), 1 << 20).is_err());
        }
    }

    #[test]
    fn what_is_too_large_is_refused_and_what_cannot_be_read_is_nobodys_fault() {
        for level in [0, 3] {
            let bytes = message(100_000).encode(level).unwrap();
            assert!(Message::read(&bytes[..], 100_000).is_err());
        }
        let bytes = message(100_000).encode(3).unwrap();
        assert!(matches!(Message::read(&bytes[..], 100_000), Err(WireError::TooLarge { .. })));
        let bytes = message(100_000).encode(0).unwrap();
        for whole in [0, 4, 30, 5000] {
            let broken = Message::read(bytes[..whole].chain(Broken), 1 << 20);
            assert_eq!(broken, Err(WireError::Source("the disk is gone".into())));
        }
    }
}
