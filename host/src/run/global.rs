//! The global state of a run: the values all devices hold, and what only the host knows.

use fedtt_tt::Parameter;
use fedtt_wire::message::Tensors;
use fedtt_wire::plan::Encoding;
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::{Digest, Layout, RunId, WireError};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use crate::aggregate::{DriftHistory, ServerState};
use crate::store::{Changes, Part, StoreError, Tensors as Stored};

/// The global state.
#[derive(Clone, Debug)]
pub(crate) struct Global {
    /// What devices hold, to the bit.
    pub(crate) values: Vec<ArrayD<f32>>,
    /// Of the values; many messages name it.
    digest: Digest,
    /// What encoding the changes lost so far; part of the next change. None where nothing was lost.
    carry: Vec<Option<ArrayD<f32>>>,
    pub(crate) server: ServerState,
    pub(crate) drift: DriftHistory,
}

/// What is stored beside tensors.
#[derive(Serialize, Deserialize)]
struct Server {
    server: ServerState,
    drift: DriftHistory,
}

impl Global {
    pub(crate) fn new(values: Vec<ArrayD<f32>>) -> Self {
        let digest = Digest::of_values(&values);
        let carry = vec![None; values.len()];
        Global { values, digest, carry, server: ServerState::default(), drift: DriftHistory::default() }
    }

    /// That of a run that is over: what it was is in the store alone.
    pub(crate) fn released() -> Self {
        Global::new(Vec::new())
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Stores what changed with the values at `places`.
    pub(crate) fn store(&self, run: &RunId, places: &[u32], store: &Changes) -> Result<(), StoreError> {
        for &place in places {
            let (value, carry) = (&self.values[place as usize], &self.carry[place as usize]);
            store.put_tensor(run, Stored::Global, place, Some(value))?;
            store.put_tensor(run, Stored::Carry, place, carry.as_ref())?;
        }
        store.put(Part::Server, run, &Server { server: self.server.clone(), drift: self.drift.clone() })
    }

    pub(crate) fn restored(run: &RunId, layout: &Layout, store: &Changes) -> Result<Option<Self>, StoreError> {
        let Some(Server { server, drift }) = store.get(Part::Server, run)? else { return Ok(None) };
        let Some(values) = store.tensors(run, Stored::Global, layout)? else { return Ok(None) };
        let entries = (0u32..).zip(&layout.0);
        let carry = entries.map(|(place, entry)| store.tensor(run, Stored::Carry, place, entry));
        let carry = carry.collect::<Result<_, _>>()?;
        Ok(Some(Global { digest: Digest::of_values(&values), values, carry, server, drift }))
    }

    /// The values of some parameters.
    pub(crate) fn of(&self, places: &[u32]) -> Vec<&ArrayD<f32>> {
        places.iter().map(|&place| &self.values[place as usize]).collect()
    }

    /// Moves the values at `places` by `change`, as exactly as `encoding` can say it, and returns what devices are told.
    /// What it cannot say is carried over to the next change of the same values.
    pub(crate) fn advance(
        &mut self,
        run: &RunId,
        places: &[u32],
        change: Vec<ArrayD<f32>>,
        encoding: Encoding,
    ) -> Result<Tensors, WireError> {
        let mut tensors = Vec::with_capacity(places.len());
        for (&place, change) in places.iter().zip(change) {
            let (values, carry) = (&mut self.values[place as usize], &mut self.carry[place as usize]);
            let mut wanted = change;
            match carry.take() {
                Some(carry) => wanted += &carry,
                // Not without effect: of a negative zero it makes the other one.
                None => wanted += 0.0,
            }
            let encoded = EncodedTensor::encode(wanted.view(), encoding, None);
            let said = encoded.decode("", values.shape())?;
            *values += &said;
            wanted -= &said;
            // Looked at to the end, which takes less time than to stop at the first.
            *carry = wanted.iter().fold(false, |any, x| any | (*x != 0.0)).then_some(wanted);
            tensors.push(encoded);
        }
        self.digest = Digest::of_values(&self.values);
        Ok(Tensors { run: run.clone(), state: self.digest(), places: places.to_vec(), tensors })
    }

    /// The whole state, bit for bit.
    pub(crate) fn whole(&self, run: &RunId) -> Tensors {
        Tensors {
            run: run.clone(),
            state: self.digest(),
            places: (0..self.values.len() as u32).collect(),
            tensors: self.values.iter().map(|v| EncodedTensor::lossless(v.view())).collect(),
        }
    }
}

/// What decides a run's parameters beside its plan: enough to rebuild them without a backbone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blueprint {
    /// The backbone's adapter sites.
    pub sites: Vec<fedtt_tt::Site>,
    /// The head, if the task has one.
    pub head: Option<fedtt_tt::HeadSize>,
    /// Gains of norms that train, with their values in the backbone.
    pub norms: Vec<(String, Vec<f32>)>,
}

impl Blueprint {
    /// The parameters of a plan's adapters, and the values they start with.
    ///
    /// # Errors
    /// When the plan's adapter settings do not fit the backbone.
    pub fn adapters(&self, plan: &fedtt_wire::Plan) -> Result<fedtt_tt::AdapterSet, fedtt_tt::Error> {
        let mut set = fedtt_tt::AdapterSet::new(&plan.adapter, &self.sites, self.head, plan.seed)?;
        for (name, values) in &self.norms {
            set.add_extra(name.clone(), ndarray::Array1::from(values.clone()).into_dyn());
        }
        Ok(set)
    }
}

/// The parameters at `places`.
pub(crate) fn at(parameters: &[Parameter], places: &[u32]) -> Vec<Parameter> {
    places.iter().map(|&place| parameters[place as usize].clone()).collect()
}
