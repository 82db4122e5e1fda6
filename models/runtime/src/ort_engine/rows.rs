//! Row programs as an operator of ONNX Runtime.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::value::{TensorElementType, ValueRefMut};

use crate::rows::{self, Program, RowShape};

/// The operator set that models with row programs name.
pub(super) fn domain() -> ort::Result<OperatorDomain> {
    OperatorDomain::new(rows::DOMAIN)?.add(Rows)
}

/// Whether this process's ONNX Runtime knows [`domain`].
pub(super) static INTRODUCTION: Introduction = Introduction::new();

/// Sees to it that the first session that brings a domain along is loaded alone. ONNX Runtime looks a domain up in a table of the
/// whole process and adds one it lacks, without a lock over both; a session that finds it added in between is refused.
pub(super) struct Introduction {
    known: AtomicBool,
    first: Mutex<()>,
}

impl Introduction {
    const fn new() -> Self {
        Introduction { known: AtomicBool::new(false), first: Mutex::new(()) }
    }

    /// Loads a session: alone until one could be.
    pub(super) fn load<T, E>(&self, load: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if self.known.load(Ordering::Acquire) {
            return load();
        }
        let alone = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if self.known.load(Ordering::Acquire) {
            drop(alone);
            return load();
        }
        let loaded = load();
        self.known.store(loaded.is_ok(), Ordering::Release);
        loaded
    }
}

struct Rows;

impl Operator for Rows {
    type Kernel<'attr> = RowsKernel;

    fn name(&self) -> &str {
        rows::OPERATOR
    }

    fn versions(&self) -> RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::variadic(1).homogenous(TensorElementType::Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::variadic(1).homogenous(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<RowsKernel> {
        let text: String = context.get(rows::PROGRAM).ok_or_else(|| ort::Error::new("it has no program"))?;
        Ok(RowsKernel { program: text.parse().map_err(|e: rows::ProgramError| ort::Error::new(e.to_string()))? })
    }
}

struct RowsKernel {
    program: Program,
}

impl Kernel for RowsKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let missing = || ort::Error::new("an input or output of the row program is missing");
        let inputs = (0..self.program.inputs())
            .map(|at| context.input(at)?.ok_or_else(missing))
            .collect::<ort::Result<Vec<_>>>()?;
        let inputs = inputs.iter().map(|input| input.try_extract_tensor::<f32>()).collect::<ort::Result<Vec<_>>>()?;
        let dims: Vec<Vec<usize>> = inputs
            .iter()
            .map(|(dims, _)| dims.iter().map(|&dim| usize::try_from(dim).unwrap_or_default()).collect())
            .collect();
        let borrowed: Vec<&[usize]> = dims.iter().map(Vec::as_slice).collect();
        let shape = RowShape::common(&borrowed)
            .ok_or_else(|| ort::Error::new(format!("shapes {dims:?} do not go together")))?;
        let extents = rows::output_extents(&self.program, &shape, &borrowed);
        let mut outputs = extents
            .iter()
            .enumerate()
            .map(|(at, &extent)| {
                let dims: Vec<i64> = shape.dims(extent).iter().map(|&dim| dim as i64).collect();
                context.output(at, dims)?.ok_or_else(missing)
            })
            .collect::<ort::Result<Vec<ValueRefMut<'_>>>>()?;
        let mut slices = outputs
            .iter_mut()
            .map(|output| Ok(output.try_extract_tensor_mut::<f32>()?.1))
            .collect::<ort::Result<Vec<_>>>()?;
        let inputs: Vec<rows::Input<'_>> =
            borrowed.iter().zip(&inputs).map(|(&dims, (_, data))| (dims, *data)).collect();
        let mut dealt = Ok(());
        rows::run(&self.program, &shape, &inputs, &mut slices, |pieces, work| dealt = context.par_for(pieces, 0, work));
        dealt
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    #[test]
    fn sessions_are_loaded_one_at_a_time_until_one_is() {
        let introduction = Introduction::new();
        let (loading, failures) = (AtomicUsize::new(0), AtomicUsize::new(3));
        let load = || {
            let others = loading.fetch_add(1, Ordering::SeqCst);
            assert!(others == 0 || introduction.known.load(Ordering::SeqCst), "{others} others at the same time");
            std::thread::sleep(Duration::from_millis(2));
            loading.fetch_sub(1, Ordering::SeqCst);
            let fails = failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if fails.is_ok() { Err(()) } else { Ok(()) }
        };
        std::thread::scope(|threads| {
            (0..16).for_each(|_| drop(threads.spawn(|| introduction.load(load))));
        });
        // Each waits for the other, within.
        let together = Barrier::new(2);
        std::thread::scope(|threads| {
            let meet = || introduction.load(|| Ok::<_, ()>(together.wait())).is_ok();
            let threads: Vec<_> = (0..2).map(|_| threads.spawn(meet)).collect();
            assert!(threads.into_iter().all(|thread| thread.join().is_ok_and(|met| met)));
        });
    }
}
