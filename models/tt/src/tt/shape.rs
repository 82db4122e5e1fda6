//! Shape of a train: modes, ranks and the cut.

use crate::error::{Error, Result};
use crate::modes::CutModes;

/// Modes k_1 .. k_d, ranks r_0 .. r_d with r_0 = r_d = 1, and the number of modes on the input side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TtShape {
    modes: Vec<usize>,
    ranks: Vec<usize>,
    cut: usize,
}

impl TtShape {
    /// From modes with their cut and the inner ranks r_1 .. r_{d-1}.
    ///
    /// # Errors
    /// A zero; nothing on one side of the cut; another number of ranks than d - 1.
    pub fn new(modes: CutModes, inner_ranks: &[usize]) -> Result<Self> {
        let CutModes { modes, cut } = modes;
        if cut == 0 || cut >= modes.len() || modes.contains(&0) {
            return Err(Error::config("modes", format!("{modes:?} cut at {cut} is not a matrix in x out")));
        }
        if inner_ranks.len() + 1 != modes.len() || inner_ranks.contains(&0) {
            return Err(Error::config(
                "rank",
                format!("{inner_ranks:?} are not the inner ranks of {} cores", modes.len()),
            ));
        }
        let ranks = [&[1], inner_ranks, &[1]].concat();
        Ok(Self { modes, ranks, cut })
    }

    /// k_1 .. k_d.
    pub fn modes(&self) -> &[usize] {
        &self.modes
    }

    /// r_0 .. r_d.
    pub fn ranks(&self) -> &[usize] {
        &self.ranks
    }

    /// Number of cores on the input side.
    pub fn cut(&self) -> usize {
        self.cut
    }

    /// Rank at the cut: columns of L, rows of R.
    pub fn cut_rank(&self) -> usize {
        self.ranks[self.cut]
    }

    /// Rows of the matrix: in.
    pub fn rows(&self) -> usize {
        self.modes[..self.cut].iter().product()
    }

    /// Columns of the matrix: out.
    pub fn columns(&self) -> usize {
        self.modes[self.cut..].iter().product()
    }

    /// (r_{i-1}, k_i, r_i) of core `i`, from 0.
    pub fn core(&self, i: usize) -> (usize, usize, usize) {
        (self.ranks[i], self.modes[i], self.ranks[i + 1])
    }

    /// Shapes of all cores.
    pub fn core_shapes(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        (0..self.modes.len()).map(|i| self.core(i))
    }

    /// Values in all cores, saturating.
    pub fn parameters(&self) -> usize {
        let size = |(a, k, b): (usize, usize, usize)| a.saturating_mul(k).saturating_mul(b);
        self.core_shapes().map(size).fold(0, usize::saturating_add)
    }

    /// The same modes and cut.
    pub(super) fn cut_modes(&self) -> CutModes {
        CutModes { modes: self.modes.clone(), cut: self.cut }
    }
}
