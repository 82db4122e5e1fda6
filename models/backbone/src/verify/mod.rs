//! Checking a backbone's derived gradients: against finite differences, and against a reference file.

mod finite;
mod record;
mod reference;
mod text;

use std::collections::HashMap;

use fedtt_runtime::{Engine, EngineError, Session, SessionOptions, Tensor};
use ndarray::{Array2, ArrayD, IxDyn};
use serde::Serialize;

use crate::backbone::{Backbone, Output, Role};
use crate::ir::DType;
use crate::training::{PROBED, TrainingError, TrainingGraph, computes_in, gradient_of};

pub use reference::{Reference, ReferenceError};

/// How far a check may be off.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tolerance {
    /// Largest absolute difference of the output at unmasked positions.
    pub output: f64,
    /// Largest distance of a gradient from its reference, relative to the reference's norm.
    pub gradient: f64,
    /// Largest error of a directional derivative by finite differences: [`SiteCheck::finite_difference`].
    pub finite_difference: f64,
}

impl Tolerance {
    /// The tolerance for weights of full or quantised precision, for float16, or for bfloat16, whose numbers have 3 bits fewer.
    /// Finite differences also see whether the engine's products are exact.
    pub fn of(backbone: &Backbone, engine: &dyn Engine) -> Self {
        if !backbone.computes_in_half() {
            let finite_difference = if engine.exact_products() { 2e-2 } else { 0.1 };
            Tolerance { output: 1e-4, gradient: 1e-3, finite_difference }
        } else if computes_in(backbone, DType::F16) {
            Tolerance { output: 3e-2, gradient: 5e-2, finite_difference: 0.1 }
        } else {
            Tolerance { output: 0.2, gradient: 0.2, finite_difference: 0.3 }
        }
    }
}

/// How one site fared.
#[derive(Clone, Debug, Serialize)]
pub struct SiteCheck {
    /// The site.
    pub site: String,
    /// The value it is grafted onto.
    pub tensor: String,
    /// `|g.u - fd| / |g|`, the largest of three directions `u`: along the gradient, of length 1, and two random ones of +-1, whose
    /// slope `g.u` is about `|g|`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finite_difference: Option<f64>,
    /// `|g - reference| / |reference|` with probes at zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_zero: Option<f64>,
    /// The same with the reference's non-zero probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_nonzero: Option<f64>,
}

impl SiteCheck {
    /// The largest error of all that was measured, as a share of what is tolerated.
    pub fn worst(&self, tolerance: &Tolerance) -> f64 {
        let by = |error: Option<f64>, tolerated: f64| {
            error.map_or(0.0, |e| if e.is_nan() { f64::INFINITY } else { e / tolerated })
        };
        by(self.finite_difference, tolerance.finite_difference)
            .max(by(self.gradient_zero, tolerance.gradient))
            .max(by(self.gradient_nonzero, tolerance.gradient))
    }
}

/// The outcome of [`verify`].
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The engine that ran.
    pub engine: String,
    /// Whether everything is within tolerance.
    pub passed: bool,
    /// What is tolerated.
    pub tolerance: Tolerance,
    /// Largest difference of the output from the reference at unmasked positions, probes at zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_zero: Option<f64>,
    /// The same with non-zero probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_nonzero: Option<f64>,
    /// Each site.
    pub sites: Vec<SiteCheck>,
}

/// Why nothing could be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No training graph could be made.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The reference file does not fit.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// There is no gradient to check.
    #[error(
        "the backbone has no sites, so there is nothing to check: prepare it again, or name its sites with --sites FILE"
    )]
    NoSites,
    /// The engine returned something unexpected.
    #[error("the engine returned {0}")]
    Unexpected(String),
}

/// What gradients are checked against.
#[derive(Clone, Copy)]
pub enum Against<'a> {
    /// Finite differences.
    Differences,
    /// Finite differences, and outputs and gradients computed elsewhere.
    Both(&'a Reference),
    /// Outputs and gradients computed elsewhere: four runs of the graph in place of hundreds.
    Reference(&'a Reference),
}

/// Checks every site's gradient by finite differences, and outputs and gradients against a reference, as asked.
///
/// # Errors
/// When the backbone has no sites, no training graph can be made, the engine fails, or the reference does not fit the backbone.
pub fn verify(
    backbone: &Backbone,
    engine: &dyn Engine,
    options: &SessionOptions,
    against: Against<'_>,
) -> Result<Report, VerifyError> {
    if backbone.anatomy.sites.is_empty() {
        return Err(VerifyError::NoSites);
    }
    let output = match against {
        Against::Both(reference) | Against::Reference(reference) => reference.output(backbone)?,
        Against::Differences => backbone.last_output(),
    };
    let mut probes = Probes::load(backbone, output, engine, options)?;
    let tolerance = Tolerance::of(backbone, engine);
    let sites = &backbone.anatomy.sites;
    let mut checks: Vec<SiteCheck> = sites
        .iter()
        .map(|site| SiteCheck {
            site: site.id.clone(),
            tensor: site.tensor.clone(),
            finite_difference: None,
            gradient_zero: None,
            gradient_nonzero: None,
        })
        .collect();
    let (mut output_zero, mut output_nonzero) = (None, None);
    let batch = match against {
        Against::Both(reference) | Against::Reference(reference) => {
            let (output, gradients) = reference.compare(&mut probes, "zero")?;
            output_zero = Some(output);
            checks.iter_mut().zip(gradients).for_each(|(check, error)| check.gradient_zero = Some(error));
            let (output, gradients) = reference.compare(&mut probes, "nonzero")?;
            output_nonzero = Some(output);
            checks.iter_mut().zip(gradients).for_each(|(check, error)| check.gradient_nonzero = Some(error));
            reference.batch()?
        }
        Against::Differences => finite::random_batch(backbone, output.width),
    };
    if !matches!(against, Against::Reference(_)) {
        let exact = engine.exact_products() && !backbone.computes_in_half();
        let errors = finite::errors(&mut probes, &batch, exact, &tolerance)?;
        checks.iter_mut().zip(errors).for_each(|(check, error)| check.finite_difference = Some(error));
    }
    let outputs_pass = [output_zero, output_nonzero].into_iter().flatten().all(|e| e <= tolerance.output);
    let passed = outputs_pass && checks.iter().all(|check| check.worst(&tolerance) <= 1.0);
    Ok(Report { engine: engine.name(), passed, tolerance, output_zero, output_nonzero, sites: checks })
}

/// What is fed besides the probes.
pub(crate) struct Batch {
    pub(crate) feeds: HashMap<Role, Array2<i64>>,
    /// Cotangent of the output, `[batch, sequence, width]`.
    pub(crate) r: ArrayD<f32>,
}

impl Batch {
    /// Batch size and sequence length.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.r.shape()[0], self.r.shape()[1])
    }
}

/// A session of the probe graph.
pub(crate) struct Probes<'a> {
    session: Box<dyn Session>,
    pub(crate) backbone: &'a Backbone,
    graph: TrainingGraph,
}

/// What one run of the probe graph returns.
pub(crate) struct Outcome {
    pub(crate) output: ArrayD<f32>,
    /// One per site.
    pub(crate) gradients: Vec<ArrayD<f32>>,
}

impl<'a> Probes<'a> {
    /// Loads the graph whose loss is of `output`.
    pub(crate) fn load(
        backbone: &'a Backbone,
        output: Output<'_>,
        engine: &dyn Engine,
        options: &SessionOptions,
    ) -> Result<Self, VerifyError> {
        let graph = TrainingGraph::probes(backbone, output)?.with(engine.thrift());
        let session = engine.load(&graph.step(backbone)?, options)?;
        Ok(Probes { session, backbone, graph })
    }

    /// One run, with a probe per site.
    pub(crate) fn run(&mut self, batch: &Batch, probes: &[ArrayD<f32>]) -> Result<Outcome, VerifyError> {
        let gradients: Vec<String> = self.graph.factors.iter().map(|name| gradient_of(name)).collect();
        let mut wanted = vec![PROBED];
        wanted.extend(gradients.iter().map(String::as_str));
        let mut returned = self.returned(batch, probes, &wanted)?.into_iter();
        Ok(Outcome { output: returned.next().unwrap_or_default(), gradients: returned.collect() })
    }

    /// The loss alone: its sum of the output's many terms is made here, since its changes are small next to how single
    /// precision rounds it.
    fn loss(&mut self, batch: &Batch, probes: &[ArrayD<f32>]) -> Result<f64, VerifyError> {
        let output = self.returned(batch, probes, &[PROBED])?.into_iter().next().unwrap_or_default();
        if output.shape() != batch.r.shape() {
            return Err(VerifyError::Unexpected(format!("`{PROBED}` of shape {:?}", output.shape())));
        }
        let takes_mask = self.graph.feeds.iter().any(|(role, _)| *role == Role::Mask);
        let mask = batch.feeds.get(&Role::Mask).filter(|_| takes_mask);
        let terms = output.indexed_iter().zip(&batch.r).map(|((at, y), r)| {
            let weight = mask.map_or(1.0, |mask| mask[[at[0], at[1]]] as f64);
            f64::from(*y) * f64::from(*r) * weight
        });
        Ok(terms.sum())
    }

    /// The outputs `wanted` of one run, in this order.
    fn returned(
        &mut self,
        batch: &Batch,
        probes: &[ArrayD<f32>],
        wanted: &[&str],
    ) -> Result<Vec<ArrayD<f32>>, VerifyError> {
        let (rows, length) = batch.size();
        let mut inputs: Vec<(&str, Tensor)> = Vec::new();
        for (role, name) in &self.graph.feeds {
            let ids = batch.feeds.get(role).cloned().unwrap_or_else(|| match role {
                Role::Mask => Array2::ones((rows, length)),
                Role::Positions => Array2::from_shape_fn((rows, length), |(_, column)| column as i64),
                Role::Ids | Role::Types => Array2::zeros((rows, length)),
            });
            inputs.push((name, self.backbone.feed(name, ids.into_dyn())));
        }
        inputs.push(("R", Tensor::F32(batch.r.clone())));
        for (name, probe) in self.graph.factors.iter().zip(probes) {
            inputs.push((name, Tensor::F32(probe.clone())));
        }
        let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let returned = self.session.run(&inputs, wanted)?;
        let floats = returned.into_iter().zip(wanted).map(|(tensor, name)| match tensor {
            Tensor::F32(array) => Ok(array),
            _ => Err(VerifyError::Unexpected(format!("`{name}` with a type other than f32"))),
        });
        floats.collect()
    }

    /// A probe of zeros per site.
    pub(crate) fn zeros(&self, batch: &Batch) -> Vec<ArrayD<f32>> {
        let (rows, length) = batch.size();
        let sites = &self.backbone.anatomy.sites;
        sites.iter().map(|site| ArrayD::zeros(IxDyn(&[rows, length, site.width_out]))).collect()
    }
}

/// Euclidean norm.
pub(crate) fn norm(a: &ArrayD<f32>) -> f64 {
    a.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}
