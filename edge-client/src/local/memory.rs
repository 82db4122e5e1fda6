//! What a device keeps between its rounds.

use fedtt_tt::OptimiserState;
use fedtt_wire::Layout;
use ndarray::ArrayD;

use super::LocalError;

/// What a device keeps between its rounds of a run. To be adopted only once the update it came with is counted: what was
/// sent in an update that came to nothing is not lost in encoding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalMemory {
    /// What encoding has lost so far, in the order of the layout.
    pub residual: Option<Vec<ArrayD<f32>>>,
    /// The optimiser's moments, where the plan carries them.
    pub moments: Option<OptimiserState>,
}

impl LocalMemory {
    pub(super) fn check(&self, layout: &Layout) -> Result<(), LocalError> {
        let unfit = |source| LocalError::Values { what: "what was kept of the round before", source };
        self.residual.as_deref().map_or(Ok(()), |residual| layout.check(residual)).map_err(unfit)
    }
}
