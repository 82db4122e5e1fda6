//! A run's global adapter, checked before this device uses it.
//!
//! It is written, read back, and run. It does not pass if a value or an output is infinite or not a number; or if, on the
//! examples this device holds out (128 of them at most), its mean loss is clearly above that of the adapter it would replace:
//! above 1.25 times that, and 0.1 more. Without an adapter to compare with, or without examples held out, being finite will do.

use std::io;
use std::path::Path;

use fedtt_wire::Digest;
use fedtt_wire::message::Measurement;

use crate::adapter_file::{AdapterFile, AdapterFileError, RunState};
use crate::adapters::Adapters;
use crate::batch::EncodedSet;
use crate::local::{LocalData, LocalError, PlanModel};
use crate::round::Adoption;

/// Most examples an adapter is tried on.
const TRIED: usize = 128;
/// Of those it has trained on, where none are held out: only to see that outputs are finite.
const RUN: usize = 8;

/// The last adapter that passed, and what it measured.
#[derive(Clone, Debug)]
pub(super) struct Adopted {
    digest: Digest,
    measured: Option<f64>,
}

/// Why an adapter is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdoptError {
    #[error(transparent)]
    Local(#[from] LocalError),
    #[error(transparent)]
    File(#[from] AdapterFileError),
    #[error("{0}")]
    Disk(#[from] io::Error),
    #[error("its mean loss on {examples} examples held out is {new:.3}, where that of the adapter in use is {old:.3}")]
    Worse { examples: u64, new: f64, old: f64 },
}

/// Checks `adoption` with the run's loaded model, and has it replace the current adapter.
pub(super) fn adopt(
    adapters: &Adapters,
    adoption: &Adoption,
    model: &mut PlanModel,
    data: &LocalData,
    last: Option<&Adopted>,
) -> Result<Adopted, AdoptError> {
    let run = &adoption.plan.run;
    let mut header = model.header().clone();
    header.origin = Some(RunState { run: run.clone(), round: adoption.round, digest: adoption.digest.to_string() });
    let set = model.adapters(&adoption.values)?;
    let candidate = adapters.candidate(run)?;
    let file = AdapterFile { header, set };
    file.write(&candidate)?;
    let checked =
        check(&file, &candidate, &adapters.current(run), model, data, last.filter(|_| adapters.current(run).exists()));
    match checked {
        Ok(measured) => {
            adapters.accept(run)?;
            Ok(Adopted { digest: adoption.digest, measured: measured.map(|measured| measured.loss) })
        }
        Err(error) => {
            adapters.refuse(run)?;
            Err(error)
        }
    }
}

impl Adopted {
    pub(super) fn is(&self, digest: Digest) -> bool {
        self.digest == digest
    }
}

fn check(
    file: &AdapterFile,
    candidate: &Path,
    current: &Path,
    model: &mut PlanModel,
    data: &LocalData,
    last: Option<&Adopted>,
) -> Result<Option<Measurement>, AdoptError> {
    // What is on the disk counts, not what was to be there.
    let values = file.reread(candidate)?;
    let Some(held_out) = &data.held_out else {
        model.measure(&values, &first(&data.train, RUN))?;
        return Ok(None);
    };
    let tried = first(held_out, TRIED);
    let new = model.measure(&values, &tried)?;
    let old = match last {
        Some(adopted) => adopted.measured,
        // Of before this process was started; one of another plan, or damaged, is nothing to compare with.
        None => file.reread(current).ok().and_then(|values| model.measure(&values, &tried).ok()).map(|m| m.loss),
    };
    match old.filter(|&old| is_clearly_worse(new.loss, old)) {
        Some(old) => Err(AdoptError::Worse { examples: new.examples, new: new.loss, old }),
        None => Ok(Some(new)),
    }
}

fn is_clearly_worse(new: f64, old: f64) -> bool {
    new > 1.25 * old + 0.1
}

fn first(examples: &EncodedSet, most: usize) -> EncodedSet {
    let rows: Vec<usize> = (0..examples.rows.len().min(most)).collect();
    examples.select(&rows)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_clearly_worse_stands_out_from_what_varies() {
        for (new, old, worse) in
            [(1.0, 1.0, false), (1.3, 1.0, false), (1.4, 1.0, true), (0.12, 0.02, false), (0.2, 0.02, true)]
        {
            assert_eq!(super::is_clearly_worse(new, old), worse, "{new} {old}");
        }
    }
}
