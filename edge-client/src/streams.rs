//! What enters the adapted blocks, kept on disk.
//!
//! With adapters in the top blocks alone, the blocks below compute the same in every epoch. They run once over all
//! rows; afterwards training starts from their stored output.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fedtt_backbone::backbone::{Backbone, Role};
use fedtt_backbone::training::{STREAM, lower_blocks};
use fedtt_runtime::{Engine, SessionOptions, Tensor};
use ndarray::{ArrayD, Axis, IxDyn};
use sha2::{Digest, Sha256};

use crate::batch::{Batch, BatchShape, EncodedSet, evaluation_order};
use crate::model::ModelError;

/// The residual stream that enters a block, for every row of some data sets.
#[derive(Debug)]
pub struct StreamCache {
    path: PathBuf,
    file: File,
    hidden: usize,
    places: HashMap<Key, u64>,
}

/// A row's ids and types, hashed.
type Key = [u8; 32];

impl StreamCache {
    /// Runs the blocks below `block` over every row of `sets` and stores the results, as float32, in a file without a
    /// name in `folder`; it goes when the cache does.
    ///
    /// # Errors
    /// When no single stream enters the block, the engine fails, or the disk is full.
    pub fn fill(
        backbone: &Backbone,
        block: usize,
        sets: &[&EncodedSet],
        shape: BatchShape,
        engine: &dyn Engine,
        options: &SessionOptions,
        folder: &Path,
    ) -> Result<Self, ModelError> {
        let failed = |source| ModelError::Cache { path: folder.to_path_buf(), source };
        let mut session = engine.load(&lower_blocks(backbone, block)?, options)?;
        let file = tempfile::tempfile_in(folder).map_err(failed)?;
        let hidden = backbone.stream_width(block);
        let mut out = BufWriter::new(&file);
        let mut places = HashMap::new();
        let mut end = 0u64;
        let batches = sets.iter().flat_map(|set| {
            let order = evaluation_order(&set.lengths(), shape.rows).into_iter();
            order.map(|examples| set.batch(&examples, shape, 0.0))
        });
        for turn in batches.flat_map(|batch| batch.split(engine.thrift()).collect::<Vec<_>>()) {
            let inputs: Vec<_> = turn.iter().map(|part| feeds(backbone, part, &backbone.feeds)).collect();
            let parts: Vec<_> = inputs.iter().map(|inputs| named(inputs)).collect();
            for (part, streams) in turn.iter().zip(session.run_parts(&[], &parts, &[STREAM])?) {
                let streams = streams.first().and_then(Tensor::as_f32);
                let streams = streams.ok_or_else(|| ModelError::Output(STREAM.to_string()))?;
                for (row, stream) in streams.axis_iter(Axis(0)).enumerate().take(part.examples.len()) {
                    let (key, length) = row_key(part, row);
                    if let Entry::Vacant(place) = places.entry(key) {
                        let values = stream.iter().take(length * hidden);
                        let bytes: Vec<u8> = values.flat_map(|v| v.to_le_bytes()).collect();
                        out.write_all(&bytes).map_err(failed)?;
                        place.insert(end);
                        end += bytes.len() as u64;
                    }
                }
            }
        }
        out.flush().map_err(failed)?;
        drop(out);
        Ok(StreamCache { path: folder.to_path_buf(), file, hidden, places })
    }

    /// The streams of a batch, `[B, S, hidden]`, zero where there is no token.
    pub(crate) fn of(&mut self, batch: &Batch) -> Result<ArrayD<f32>, ModelError> {
        let (rows, length) = (batch.ids.shape()[0], batch.ids.shape()[1]);
        let mut values = vec![0f32; rows * length * self.hidden];
        for (row, slot) in values.chunks_exact_mut(length * self.hidden).take(batch.examples.len()).enumerate() {
            let (key, tokens) = row_key(batch, row);
            let read = match self.places.get(&key) {
                Some(&place) => self.read(place, &mut slot[..tokens * self.hidden]),
                None => Err(io::Error::other("the row was not there when the cache was filled")),
            };
            read.map_err(|source| ModelError::Cache { path: self.path.clone(), source })?;
        }
        let shape = IxDyn(&[rows, length, self.hidden]);
        Ok(ArrayD::from_shape_vec(shape, values).expect("as many values as the shape has"))
    }

    fn read(&mut self, place: u64, into: &mut [f32]) -> io::Result<()> {
        let mut bytes = vec![0u8; into.len() * 4];
        self.file.seek(SeekFrom::Start(place))?;
        self.file.read_exact(&mut bytes)?;
        for (value, b) in into.iter_mut().zip(bytes.chunks_exact(4)) {
            *value = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
        Ok(())
    }
}

/// Inputs as engines take them.
pub(crate) fn named(inputs: &[(String, Tensor)]) -> Vec<(&str, &Tensor)> {
    inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
}

/// The backbone's inputs for a batch.
pub(crate) fn feeds(backbone: &Backbone, batch: &Batch, wanted: &[(Role, String)]) -> Vec<(String, Tensor)> {
    let feed = |(role, name): &(Role, String)| {
        let values = match role {
            Role::Ids => &batch.ids,
            Role::Mask => &batch.mask,
            Role::Types => &batch.types,
            Role::Positions => &batch.positions,
        };
        (name.clone(), backbone.feed(name, values.clone()))
    };
    wanted.iter().map(feed).collect()
}

fn row_key(batch: &Batch, row: usize) -> (Key, usize) {
    let length = batch.mask.index_axis(Axis(0), row).iter().filter(|&&m| m == 1).count();
    let mut hash = Sha256::new();
    for values in [&batch.ids, &batch.types] {
        values.index_axis(Axis(0), row).iter().take(length).for_each(|v| hash.update(v.to_le_bytes()));
    }
    (hash.finalize().into(), length)
}
