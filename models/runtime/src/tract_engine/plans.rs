//! Plans for the input shapes a session has met.
//!
//! tract runs a graph far better when every shape is a number, so each combination of input shapes and outputs has a
//! plan of its own. Plans hold weights in the layout of the kernels that read them; equal ones are shared.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, Weak};

use tract_linalg::mmm::EagerPackedInput;
use tract_linalg::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::Blob;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::matmul::optimized::{MatMulOperand, OptMatMul, ProtoFusedSpec};
use tract_onnx::tract_core::runtime::{RunOptions, Runnable, State};

/// What a plan is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Inputs by position among the model's, with the shapes they come in.
    pub(super) inputs: Vec<(usize, Vec<usize>)>,
    /// Names of the outputs asked for.
    pub(super) outputs: Vec<String>,
}

/// A prepared graph.
pub(super) struct Plan {
    graph: Arc<TypedRunnableModel>,
    /// What it runs in, of runs that are over.
    idle: Mutex<Vec<Box<dyn State>>>,
    /// Which of the session's inputs go in, in order.
    pub(super) inputs: Vec<usize>,
}

impl Plan {
    pub(super) fn new(graph: TypedModel, inputs: Vec<usize>) -> TractResult<Self> {
        let graph = TypedSimplePlan::new_with_options(graph, &RunOptions::default())?;
        Ok(Plan { graph, idle: Mutex::default(), inputs })
    }

    /// Runs it with `executor`; several may at the same time.
    pub(super) fn run(&self, executor: &Executor, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        let mut state = match idle {
            Some(state) => state,
            None => Runnable::spawn(&self.graph)?,
        };
        let outputs = multithread_tract_scope(executor.clone(), || state.run(inputs))?;
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(state);
        }
        Ok(outputs)
    }
}

/// The plans used last, up to a bound.
pub(super) struct Plans {
    bound: usize,
    /// Most recently used last.
    plans: Vec<(Key, Arc<Plan>)>,
}

impl Plans {
    pub(super) fn new(bound: usize) -> Self {
        Plans { bound, plans: Vec::new() }
    }

    /// The plan for `key`, prepared by `prepare` if it is not among the last ones used.
    pub(super) fn get(&mut self, key: Key, prepare: impl FnOnce() -> TractResult<Plan>) -> TractResult<Arc<Plan>> {
        let entry = match self.plans.iter().position(|(k, _)| *k == key) {
            Some(at) => self.plans.remove(at),
            None => {
                if self.plans.len() >= self.bound {
                    self.plans.remove(0);
                }
                (key, Arc::new(prepare()?))
            }
        };
        let plan = Arc::clone(&entry.1);
        self.plans.push(entry);
        Ok(plan)
    }
}

/// Weights of the plans, so that equal ones are held once: constants as they are and as packed for a kernel.
#[derive(Default)]
pub(super) struct Weights {
    constants: Pool<Tensor>,
    packed: Pool<Blob>,
}

impl Weights {
    /// Replaces the weights of `model` that are held already.
    pub(super) fn share(&mut self, model: &mut TypedModel) {
        self.constants.forget_unused();
        self.packed.forget_unused();
        for node in &mut model.nodes {
            if let Some(product) = node.op_as_mut::<OptMatMul>() {
                for operation in &mut product.micro_ops {
                    if let ProtoFusedSpec::AddMatMul { a, b, .. } = operation {
                        self.share_packed(a);
                        self.share_packed(b);
                    }
                }
            } else if let Some(constant) = node.op_as::<Const>().map(|constant| constant.val().clone()) {
                let held = self.constants.held(&constant);
                let exotic = node.outputs[0].fact.exotic_fact.clone();
                if !Arc::ptr_eq(&held, &constant)
                    && let Ok(shared) = Const::new_with_opt_exotic_fact(held.clone(), exotic)
                {
                    node.op = Box::new(shared);
                    node.outputs[0].fact.konst = Some(held);
                }
            }
        }
    }

    fn share_packed(&mut self, operand: &mut MatMulOperand) {
        if let MatMulOperand::Const(value) = operand
            && let Some(packed) = value.downcast_ref::<EagerPackedInput>()
        {
            let held = self.packed.held(&packed.packed);
            *value = Box::new(EagerPackedInput { packed: held, ..packed.clone() });
        }
    }
}

/// Values in use, by hash.
struct Pool<T>(HashMap<u64, Vec<Weak<T>>>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Pool(HashMap::new())
    }
}

impl<T: Hash + PartialEq> Pool<T> {
    fn forget_unused(&mut self) {
        self.0.retain(|_, values| {
            values.retain(|value| value.strong_count() > 0);
            !values.is_empty()
        });
    }

    /// The value equal to this one that came first.
    fn held(&mut self, value: &Arc<T>) -> Arc<T> {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let values = self.0.entry(hasher.finish()).or_default();
        if let Some(equal) = values.iter().filter_map(Weak::upgrade).find(|other| other == value) {
            return equal;
        }
        values.push(Arc::downgrade(value));
        Arc::clone(value)
    }
}
