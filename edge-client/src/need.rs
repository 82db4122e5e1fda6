//! Memory that training takes, foreseen from plan and backbone.
//!
//! Weights and values of a step are counted in the training graph ([`Footprint`]). How much more an engine takes than that
//! was measured: resident memory at its highest against what was counted, over batches of 8 to 32 rows of 32 to 128 tokens
//! in parts of at most 512 tokens at once, of the embedded encoder and of MiniLM-L6 with 8-bit and 32-bit weights, on one thread
//! and, of tract, on several, whose memory comes from one arena ([`ARENAS`](crate::daemon::ARENAS)). `tests/memory.rs` repeats it.

use fedtt_backbone::training::Footprint;
use fedtt_runtime::{Engine, Expected, Thrift};
use fedtt_wire::Plan;

use crate::local::{LocalError, adapter_header};
use crate::model::{ModelError, training_graph};
use crate::source::Source;

/// What holds weights and values, each in its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// tract: a plan for each shape, weights as 32-bit floats in the layout of its kernels.
    Tract,
    /// ONNX Runtime: the library itself, weights as they are, values in an arena.
    Ort,
}

impl Holder {
    /// What holds them for `engine`.
    pub fn of(engine: &dyn Engine) -> Self {
        if engine.library().is_some() { Holder::Ort } else { Holder::Tract }
    }

    /// What will hold them for an engine that is not there yet.
    pub fn expected(engine: &Expected) -> Self {
        if engine.built_in { Holder::Tract } else { Holder::Ort }
    }
}

/// Memory that training takes beyond what a process has before, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// While the model is loaded.
    pub loading: u64,
    /// In a step of the largest shape.
    pub training: u64,
    /// What was counted.
    pub counted: Footprint,
}

impl Need {
    /// The most at any time.
    pub fn bytes(&self) -> u64 {
        self.loading.max(self.training)
    }

    /// What `plan` takes in the backbone of `source`, whose steps save memory by `thrift`.
    ///
    /// # Errors
    /// When the plan does not fit the backbone.
    pub fn of_plan(plan: &Plan, source: &Source, holder: Holder, thrift: Thrift) -> Result<Self, LocalError> {
        let header = adapter_header(plan, source)?;
        let objective = header.objective(source)?;
        let set = header.fresh(source, &objective)?;
        let graph = training_graph(&source.backbone, &set, &objective, None, thrift).map_err(ModelError::from)?;
        let length = plan.model.max_length;
        let parts = thrift.parts(plan.local.batch, length);
        Ok(Need::of(graph.footprint(parts.rows, length), parts.abreast, holder))
    }

    /// Of so many steps of `counted` at the same time.
    fn of(counted: Footprint, abreast: usize, holder: Holder) -> Self {
        let weights = counted.weights as f64;
        let floats = counted.floats as f64;
        let bytes = |sum: f64| sum as u64;
        match holder {
            Holder::Tract => {
                let fixed = TRACT + TRACT_NODE * counted.nodes as f64;
                let held = fixed + TRACT_STORED * weights + TRACT_FLOATS * floats;
                let steps = TRACT_STEP * (abreast as u64 * counted.step) as f64;
                Need { loading: bytes(held), training: bytes(held + steps), counted }
            }
            Holder::Ort => Need {
                loading: bytes(ORT + weights),
                training: bytes(ORT + ORT_WEIGHTS * weights + ORT_STEP * counted.branched as f64),
                counted,
            },
        }
    }
}

const MIB: f64 = 1048576.0;

/// tract's plans and the thread that runs them, and for each operator of the graph.
const TRACT: f64 = 4.0 * MIB;
const TRACT_NODE: f64 = 0.021 * MIB;
/// Copies of the weights as stored: as read, and in the graph that plans are made from.
const TRACT_STORED: f64 = 1.2;
/// In plans.
const TRACT_FLOATS: f64 = 1.65;
const TRACT_STEP: f64 = 2.9;

/// ONNX Runtime's library and environment.
const ORT: f64 = 47.0 * MIB;
const ORT_WEIGHTS: f64 = 0.85;
const ORT_STEP: f64 = 1.3;
