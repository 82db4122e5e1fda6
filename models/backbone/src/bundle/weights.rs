//! `weights.bin`: every large weight once, at an offset a file can be mapped from.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::manifest::{Part, hex};
use crate::export::INLINE_BELOW;
use crate::ir::{Attr, Data, Graph, Weight};

/// Every weight begins at a multiple of this.
const ALIGNMENT: u64 = 64;
/// Weights of at least a page's size begin at a page.
const PAGE: u64 = 4096;
/// Weights from this size on begin at a page; for smaller ones that would waste space.
const PAGED_FROM: u64 = 16 * PAGE;

/// Writes the weights of a graph to a file, one after another.
pub(crate) struct WeightsWriter {
    file: BufWriter<File>,
    written: u64,
    hash: Sha256,
    known: HashMap<[u8; 32], u64>,
    final_path: Arc<PathBuf>,
}

impl WeightsWriter {
    /// Writes to `path`, which will later be found at `final_path`.
    pub(crate) fn create(path: &Path, final_path: PathBuf) -> io::Result<Self> {
        Ok(WeightsWriter {
            file: BufWriter::with_capacity(1 << 20, File::create(path)?),
            written: 0,
            hash: Sha256::new(),
            known: HashMap::new(),
            final_path: Arc::new(final_path),
        })
    }

    /// Writes the large weights of `graph` and its subgraphs and points the graph at them. On failure names the weight.
    pub(crate) fn move_weights(&mut self, graph: &mut Graph) -> Result<(), (String, io::Error)> {
        for (name, weight) in &mut graph.weights {
            let at = |source| (name.clone(), source);
            if weight.byte_len() < INLINE_BELOW {
                weight.data = Data::Bytes(weight.bytes().map_err(at)?);
            } else {
                let offset = self.write(weight).map_err(at)?;
                weight.data = Data::File { path: self.final_path.clone(), offset };
            }
        }
        for attr in graph.nodes.iter_mut().flat_map(|n| n.attrs.values_mut()) {
            if let Attr::Graph(inner) = attr {
                self.move_weights(inner)?;
            }
        }
        Ok(())
    }

    /// Writes one weight, unless the same bytes are there already, and returns its offset.
    fn write(&mut self, weight: &Weight) -> io::Result<u64> {
        let digest = digest(weight)?;
        if let Some(&offset) = self.known.get(&digest) {
            return Ok(offset);
        }
        let alignment = if weight.byte_len() as u64 >= PAGED_FROM { PAGE } else { ALIGNMENT };
        let offset = self.written.next_multiple_of(alignment);
        let padding = vec![0; (offset - self.written) as usize];
        self.append(&padding)?;
        each_chunk(weight, |chunk| self.append(chunk))?;
        self.known.insert(digest, offset);
        Ok(offset)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Flushes everything to disk.
    pub(crate) fn finish(self) -> io::Result<Part> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(Part { bytes: self.written, sha256: hex(&self.hash.finalize()) })
    }
}

fn digest(weight: &Weight) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    each_chunk(weight, |chunk| {
        hash.update(chunk);
        Ok(())
    })?;
    Ok(hash.finalize().into())
}

/// Hands over a weight's bytes piece by piece, so that no large weight is in memory as a whole.
fn each_chunk(weight: &Weight, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    match &weight.data {
        Data::Bytes(bytes) => take(bytes),
        Data::File { path, offset } => {
            let mut file = File::open(path.as_ref())?;
            file.seek(SeekFrom::Start(*offset))?;
            let mut left = weight.byte_len();
            let mut buffer = vec![0; left.min(1 << 20)];
            while left > 0 {
                let chunk = &mut buffer[..left.min(1 << 20)];
                file.read_exact(chunk)?;
                take(chunk)?;
                left -= chunk.len();
            }
            Ok(())
        }
    }
}
