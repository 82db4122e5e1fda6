//! Running a program on whole tensors, some rows at a time.

use std::sync::{Mutex, PoisonError};

use super::program::{Program, Source, Step};
use super::shape::{Extent, Layout, RowShape};
use super::tile::{self, Operand};

/// Numbers of a value that are computed at once: with a handful of values this stays in the first cache.
const TILE: usize = 1024;

/// Numbers of a value that make a piece of work for one thread.
const PIECE: usize = 32 * 1024;

/// An input's dimensions and data.
pub type Input<'a> = (&'a [usize], &'a [f32]);

/// The extent of each of the program's outputs, for inputs of these shapes that are broadcast to `shape`.
pub(crate) fn output_extents(program: &Program, shape: &RowShape, inputs: &[&[usize]]) -> Vec<Extent> {
    let inputs: Vec<Extent> = inputs.iter().map(|dims| shape.extent(dims)).collect();
    let steps = program.extents(&inputs);
    program.outputs().iter().map(|&step| steps[step]).collect()
}

/// Runs `program` on `inputs`, which are broadcast to `shape`, into `outputs`, each of the size its extent says.
///
/// The rows are dealt out in pieces: `parallel(pieces, work)` has to call `work` once for each number below `pieces`, on as
/// many threads as it likes.
pub fn run(
    program: &Program,
    shape: &RowShape,
    inputs: &[Input<'_>],
    outputs: &mut [&mut [f32]],
    parallel: impl FnOnce(usize, &(dyn Fn(usize) + Sync)),
) {
    let (rows, width) = (shape.rows(), shape.width());
    if rows * width == 0 {
        return outputs.iter_mut().for_each(|output| output.fill(0.0));
    }
    let plan = Plan::new(program, shape, inputs);
    let tile_rows = (TILE / width).clamp(1, rows);
    let piece_rows = (PIECE / width / tile_rows).max(1) * tile_rows;
    let pieces = rows.div_ceil(piece_rows);
    let mut dealt: Vec<Vec<&mut [f32]>> = (0..pieces).map(|_| Vec::with_capacity(outputs.len())).collect();
    for (output, &step) in outputs.iter_mut().zip(program.outputs()) {
        let size = piece_rows * plan.size(step);
        dealt.iter_mut().zip(output.chunks_mut(size)).for_each(|(piece, part)| piece.push(part));
    }
    let dealt: Vec<Mutex<Vec<&mut [f32]>>> = dealt.into_iter().map(Mutex::new).collect();
    let processor = pulp::Arch::new();
    parallel(pieces, &|piece| {
        let mut parts = dealt[piece].lock().unwrap_or_else(PoisonError::into_inner);
        let first = piece * piece_rows;
        plan.run_piece(processor, first, (rows - first).min(piece_rows), tile_rows, &mut parts);
    });
}

/// A program made ready for inputs of certain shapes.
struct Plan<'a> {
    program: &'a Program,
    shape: &'a RowShape,
    inputs: Vec<Fed<'a>>,
    extents: Vec<Extent>,
    /// Where each step's value goes.
    places: Vec<Place>,
    buffers: usize,
}

/// An input and where its rows lie.
struct Fed<'a> {
    data: &'a [f32],
    extent: Extent,
    layout: Layout,
}

impl<'a> Plan<'a> {
    fn new(program: &'a Program, shape: &'a RowShape, inputs: &[Input<'a>]) -> Self {
        let fed = |&(dims, data): &Input<'a>| Fed { data, extent: shape.extent(dims), layout: shape.layout(dims) };
        let inputs: Vec<Fed<'a>> = inputs.iter().map(fed).collect();
        let extents = program.extents(&inputs.iter().map(|input| input.extent).collect::<Vec<_>>());
        let (places, buffers) = places(program);
        Plan { program, shape, inputs, extents, places, buffers }
    }

    /// Numbers of a step's value in a row.
    fn size(&self, step: usize) -> usize {
        self.wide(self.extents[step])
    }

    fn wide(&self, extent: Extent) -> usize {
        match extent {
            Extent::Row => self.shape.width(),
            Extent::One => 1,
        }
    }

    fn run_piece(
        &self,
        processor: pulp::Arch,
        first: usize,
        rows: usize,
        tile_rows: usize,
        outputs: &mut [&mut [f32]],
    ) {
        let most = tile_rows * self.shape.width();
        let mut buffers = vec![vec![0.0; most]; self.buffers];
        let mut gathered: Vec<Vec<f32>> =
            self.inputs.iter().map(|input| self.gathered(input, first, tile_rows)).collect();
        for start in (0..rows).step_by(tile_rows) {
            let count = (rows - start).min(tile_rows);
            for (input, rows) in self.inputs.iter().zip(&mut gathered) {
                if !input.layout.dense && !input.layout.constant {
                    self.gather(input, first + start, count, rows);
                }
            }
            let outputs = &mut *outputs;
            processor.dispatch(Tile {
                plan: self,
                piece: first,
                start,
                count,
                gathered: &gathered,
                buffers: &mut buffers,
                outputs,
            });
        }
    }

    /// Room for the rows of an input that has none of its own for every row; filled if they are all alike.
    fn gathered(&self, input: &Fed<'_>, first: usize, tile_rows: usize) -> Vec<f32> {
        if input.layout.dense {
            return Vec::new();
        }
        let mut rows = vec![0.0; tile_rows * self.wide(input.extent)];
        if input.layout.constant {
            self.gather(input, first, tile_rows, &mut rows);
        }
        rows
    }

    fn gather(&self, input: &Fed<'_>, first: usize, count: usize, rows: &mut [f32]) {
        let size = self.wide(input.extent);
        for (at, row) in rows.chunks_mut(size).take(count).enumerate() {
            let offset = self.shape.offset(&input.layout, first + at);
            row.copy_from_slice(&input.data[offset..offset + size]);
        }
    }
}

/// Some rows to take through all steps.
struct Tile<'a, 'b, 'c> {
    plan: &'b Plan<'a>,
    /// The first row of the piece, and of the tile within it.
    piece: usize,
    start: usize,
    count: usize,
    gathered: &'b [Vec<f32>],
    buffers: &'b mut [Vec<f32>],
    outputs: &'b mut [&'c mut [f32]],
}

impl pulp::WithSimd for Tile<'_, '_, '_> {
    type Output = ();

    /// Everything called from here is inlined, so that it is compiled for the processor at hand.
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Tile { plan, piece, start, count, gathered, buffers, outputs } = self;
        for at in 0..plan.places.len() {
            let size = plan.size(at);
            match plan.places[at] {
                Place::Buffer(buffer) => {
                    let mut made = std::mem::take(&mut buffers[buffer]);
                    plan.step::<S>(at, piece + start, count, gathered, buffers, &mut made[..count * size]);
                    buffers[buffer] = made;
                }
                Place::Output(output) => {
                    let made = &mut outputs[output][start * size..(start + count) * size];
                    plan.step::<S>(at, piece + start, count, gathered, buffers, made);
                }
            }
        }
        for (output, &step) in outputs.iter_mut().zip(plan.program.outputs()) {
            if let Place::Buffer(buffer) = plan.places[step] {
                let size = plan.size(step);
                output[start * size..(start + count) * size].copy_from_slice(&buffers[buffer][..count * size]);
            }
        }
    }
}

impl Plan<'_> {
    /// One step on `count` rows from row `first` on.
    #[inline(always)]
    fn step<S: pulp::Simd>(
        &self,
        at: usize,
        first: usize,
        count: usize,
        gathered: &[Vec<f32>],
        buffers: &[Vec<f32>],
        made: &mut [f32],
    ) {
        let operand = |source: Source| match source {
            Source::Number(number) => Operand::Number(number),
            Source::Step(i) => match self.places[i] {
                Place::Buffer(buffer) => Operand::of(self.extents[i], &buffers[buffer][..count * self.size(i)]),
                Place::Output(_) => Operand::Number(f32::NAN),
            },
            Source::Input(i) => {
                let input = &self.inputs[i];
                let size = self.wide(input.extent);
                let rows = if input.layout.dense { &input.data[first * size..] } else { &gathered[i][..] };
                Operand::of(input.extent, &rows[..count * size])
            }
        };
        // A value of one number a row is computed as if rows had a width of 1.
        let width = self.shape.width();
        let own = if self.extents[at] == Extent::Row { width } else { 1 };
        match self.program.steps()[at] {
            Step::Unary(op, x) if S::IS_SCALAR => tile::unary::<false>(op, operand(x), made),
            Step::Unary(op, x) => tile::unary::<true>(op, operand(x), made),
            Step::Binary(op, a, b) => tile::binary(op, operand(a), operand(b), own, made),
            Step::Ternary(op, sources) => tile::ternary(op, sources.map(operand), own, made),
            Step::Reduce(op, x) => tile::reduce(op, operand(x), width, made),
        }
    }
}

/// Where a step's value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A buffer, used again when the value has been read for the last time.
    Buffer(usize),
    /// Straight to an output; no step reads it.
    Output(usize),
}

/// A place for each step, and how many buffers there are. A step's buffer is none that it reads, and outputs keep theirs.
fn places(program: &Program) -> (Vec<Place>, usize) {
    let steps = program.steps();
    let mut last_read: Vec<usize> = (0..steps.len()).collect();
    for (at, step) in steps.iter().enumerate() {
        for source in step.sources() {
            if let Source::Step(read) = source {
                last_read[read] = at;
            }
        }
    }
    let returned = |step: usize| program.outputs().iter().filter(|&&output| output == step).count();
    let (mut places, mut free, mut count) = (Vec::with_capacity(steps.len()), Vec::new(), 0);
    for at in 0..steps.len() {
        let output = program.outputs().iter().position(|&output| output == at);
        places.push(match output.filter(|_| last_read[at] == at && returned(at) == 1) {
            Some(output) => Place::Output(output),
            None => Place::Buffer(free.pop().unwrap_or_else(|| {
                count += 1;
                count - 1
            })),
        });
        let done = |&step: &usize| last_read[step] == at && returned(step) == 0;
        free.extend((0..=at).filter(done).filter_map(|step| match places[step] {
            Place::Buffer(buffer) => Some(buffer),
            Place::Output(_) => None,
        }));
    }
    (places, count)
}
