//! SHA-256 of states and payloads.

use std::fmt;
use std::io::{self, Read};

use ndarray::ArrayD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::tensor;

/// SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "serde_bytes::ByteArray<32>", into = "serde_bytes::ByteArray<32>")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    /// Of a global state: all values of all tensors in the order of the layout, each in row-major order as a
    /// little-endian binary32.
    pub fn of_values(values: &[ArrayD<f32>]) -> Self {
        let mut hash = Sha256::new();
        for tensor in values {
            hash.update(tensor::binary32(tensor.view()));
        }
        Digest(hash.finalize().into())
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Digest(bytes)
    }
}

/// Passes bytes on as they are read, and knows the digest of what has passed.
pub struct Hashing<R> {
    source: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    /// Of what comes from `source`.
    pub fn new(source: R) -> Self {
        Hashing { source, hash: Sha256::new() }
    }

    /// Of everything, once what has not been read yet is read as well.
    ///
    /// # Errors
    /// As the source has them.
    pub fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Digest(self.hash.finalize().into()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }
}

impl From<serde_bytes::ByteArray<32>> for Digest {
    fn from(bytes: serde_bytes::ByteArray<32>) -> Self {
        Digest(bytes.into_array())
    }
}

impl From<Digest> for serde_bytes::ByteArray<32> {
    fn from(digest: Digest) -> Self {
        serde_bytes::ByteArray::new(digest.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
