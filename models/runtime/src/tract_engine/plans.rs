//! Plans for the input shapes a session has met.
//!
//! tract runs a graph far better when every shape is a number, so each combination of input shapes and outputs has a
//! plan of its own. Plans hold weights in the layout of the kernels that read them; equal ones are shared.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::runtime::State;

/// What a plan is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Inputs by position among the model's, with the shapes they come in.
    pub(super) inputs: Vec<(usize, Vec<usize>)>,
    /// Names of the outputs asked for.
    pub(super) outputs: Vec<String>,
}

/// A prepared graph and the buffers it runs in.
pub(super) struct Plan {
    pub(super) state: Box<dyn State>,
    /// Which of the session's inputs go in, in order.
    pub(super) inputs: Vec<usize>,
}

/// The plans used last, up to a bound.
pub(super) struct Plans {
    bound: usize,
    /// Most recently used last.
    plans: Vec<(Key, Plan)>,
}

impl Plans {
    pub(super) fn new(bound: usize) -> Self {
        Plans { bound, plans: Vec::new() }
    }

    /// The plan for `key`, prepared by `prepare` if it is not among the last ones used.
    pub(super) fn get(&mut self, key: Key, prepare: impl FnOnce() -> TractResult<Plan>) -> TractResult<&mut Plan> {
        let entry = match self.plans.iter().position(|(k, _)| *k == key) {
            Some(at) => self.plans.remove(at),
            None => {
                if self.plans.len() >= self.bound {
                    self.plans.remove(0);
                }
                (key, prepare()?)
            }
        };
        self.plans.push(entry);
        let last = self.plans.len() - 1;
        Ok(&mut self.plans[last].1)
    }
}

/// Constants of the plans, so that equal ones are held once.
#[derive(Default)]
pub(super) struct Constants(HashMap<u64, Vec<Weak<Tensor>>>);

impl Constants {
    /// Replaces the constants of `model` that are held already.
    pub(super) fn share(&mut self, model: &mut TypedModel) {
        self.0.retain(|_, held| {
            held.retain(|tensor| tensor.strong_count() > 0);
            !held.is_empty()
        });
        for node in &mut model.nodes {
            let Some(constant) = node.op_as::<Const>() else { continue };
            let held = self.held(constant.val());
            if Arc::ptr_eq(&held, constant.val()) {
                continue;
            }
            let fact = node.outputs[0].fact.exotic_fact.clone();
            let shared = match fact {
                Some(fact) => Const::new_with_exotic_fact(held.clone(), fact),
                None => Const::new(held.clone()),
            };
            if let Ok(shared) = shared {
                node.op = Box::new(shared);
                node.outputs[0].fact.konst = Some(held);
            }
        }
    }

    fn held(&mut self, tensor: &Arc<Tensor>) -> Arc<Tensor> {
        let mut hasher = DefaultHasher::new();
        tensor.hash(&mut hasher);
        let held = self.0.entry(hasher.finish()).or_default();
        if let Some(equal) = held.iter().filter_map(Weak::upgrade).find(|other| other == tensor) {
            return equal;
        }
        held.push(Arc::downgrade(tensor));
        Arc::clone(tensor)
    }
}
