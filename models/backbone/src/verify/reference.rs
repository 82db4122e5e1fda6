//! Reference files: inputs, outputs and gradients computed elsewhere, as safetensors.
//!
//! `input_ids`, `attention_mask` and the other inputs `[batch, sequence]`, `R` `[batch, sequence, width]`; for the
//! sets `zero` and `nonzero` the tensors `<set>.last_hidden_state`, `<set>.grad.<site>` and, for the latter,
//! `nonzero.probe.<site>`. Sites are named `<block>.attn` and `<block>.mlp`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayD, Axis, IxDyn};
use safetensors::{Dtype, SafeTensors};

use super::{Batch, Probes, VerifyError, norm};
use crate::backbone::{Backbone, Output, Role};

/// A reference file in memory.
pub struct Reference {
    pub(super) path: PathBuf,
    pub(super) floats: HashMap<String, ArrayD<f32>>,
    pub(super) integers: HashMap<String, ArrayD<i64>>,
}

/// What a reference file calls an input.
pub(super) fn input(role: Role) -> &'static str {
    match role {
        Role::Ids => "input_ids",
        Role::Mask => "attention_mask",
        Role::Types => "token_type_ids",
        Role::Positions => "position_ids",
    }
}

/// Why a reference file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// It cannot be read.
    #[error("cannot read the reference {}: {message}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is the matter.
        message: String,
    },
    /// It lacks a tensor.
    #[error("the reference {} has no tensor `{tensor}`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the backbone's.
    #[error("tensor `{tensor}` of the reference has shape {found:?} where the backbone has {expected:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The backbone's.
        expected: Vec<usize>,
    },
}

impl Reference {
    /// Reads a reference file.
    ///
    /// # Errors
    /// When it is missing, not safetensors, or holds tensors other than f32 and i64.
    pub fn read(path: &Path) -> Result<Self, ReferenceError> {
        let refuse = |message: String| ReferenceError::Read { path: path.to_path_buf(), message };
        let bytes = std::fs::read(path).map_err(|e| refuse(e.to_string()))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| refuse(e.to_string()))?;
        let (mut floats, mut integers) = (HashMap::new(), HashMap::new());
        for (name, view) in tensors.tensors() {
            let shape = IxDyn(view.shape());
            let misshapen = |e: ndarray::ShapeError| refuse(format!("tensor `{name}`: {e}"));
            match view.dtype() {
                Dtype::F32 => {
                    let values = view.data().as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
                    floats.insert(name.clone(), ArrayD::from_shape_vec(shape, values).map_err(misshapen)?);
                }
                Dtype::I64 => {
                    let values = view.data().as_chunks().0.iter().map(|c| i64::from_le_bytes(*c)).collect();
                    integers.insert(name.clone(), ArrayD::from_shape_vec(shape, values).map_err(misshapen)?);
                }
                other => return Err(refuse(format!("tensor `{name}` has type {other:?}; f32 and i64 are read"))),
            }
        }
        Ok(Reference { path: path.to_path_buf(), floats, integers })
    }

    fn float(&self, name: &str) -> Result<&ArrayD<f32>, ReferenceError> {
        self.floats.get(name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, tensor: &str) -> ReferenceError {
        ReferenceError::Missing { path: self.path.clone(), tensor: tensor.to_string() }
    }

    /// The output it is of, by the width of its cotangent: the hidden state, or a language model's logits.
    pub(crate) fn output<'a>(&self, backbone: &'a Backbone) -> Result<Output<'a>, ReferenceError> {
        let r = self.float("R")?;
        let outputs = [backbone.hidden_state(), backbone.last_output()];
        outputs.into_iter().find(|output| r.ndim() == 3 && r.shape()[2] == output.width).ok_or_else(|| {
            let mut expected = r.shape().to_vec();
            expected.resize(3, 1);
            expected[2] = backbone.anatomy.hidden;
            ReferenceError::Shape { tensor: "R".into(), found: r.shape().to_vec(), expected }
        })
    }

    /// The inputs as the backbone takes them.
    pub(crate) fn batch(&self) -> Result<Batch, ReferenceError> {
        let r = self.float("R")?;
        let mut feeds = HashMap::new();
        for role in [Role::Ids, Role::Mask, Role::Types, Role::Positions] {
            let name = input(role);
            match self.integers.get(name) {
                Some(ids) => {
                    let ids: Array2<i64> = ids.clone().into_dimensionality().map_err(|_| ReferenceError::Shape {
                        tensor: name.into(),
                        found: ids.shape().to_vec(),
                        expected: r.shape()[..2].to_vec(),
                    })?;
                    feeds.insert(role, ids);
                }
                None if role == Role::Ids => return Err(self.missing(name)),
                None => {}
            }
        }
        Ok(Batch { feeds, r: r.clone() })
    }

    /// Runs one set (`zero` or `nonzero`) and compares: the largest difference of the output at unmasked
    /// positions, and each site's gradient error relative to the reference's norm.
    pub(crate) fn compare(&self, probes: &mut Probes<'_>, set: &str) -> Result<(f64, Vec<f64>), VerifyError> {
        let batch = self.batch()?;
        let mut values = probes.zeros(&batch);
        let sites: Vec<String> = probes.backbone.anatomy.sites.iter().map(|s| s.id.clone()).collect();
        if set != "zero" {
            for (value, site) in values.iter_mut().zip(&sites) {
                let probe = self.float(&format!("{set}.probe.{site}"))?;
                self.same_shape(&format!("{set}.probe.{site}"), probe, value)?;
                value.assign(probe);
            }
        }
        let outcome = probes.run(&batch, &values)?;
        let expected = self.float(&format!("{set}.last_hidden_state"))?;
        self.same_shape(&format!("{set}.last_hidden_state"), expected, &outcome.output)?;
        let mask = batch.feeds.get(&Role::Mask);
        let mut output = 0f64;
        for (row, (ours, theirs)) in outcome.output.axis_iter(Axis(0)).zip(expected.axis_iter(Axis(0))).enumerate() {
            for (column, (ours, theirs)) in ours.axis_iter(Axis(0)).zip(theirs.axis_iter(Axis(0))).enumerate() {
                if mask.is_none_or(|mask| mask[[row, column]] != 0) {
                    for (a, b) in ours.iter().zip(&theirs) {
                        output = worse(output, f64::from(a - b).abs());
                    }
                }
            }
        }
        let mut errors = Vec::new();
        for (ours, site) in outcome.gradients.iter().zip(&sites) {
            let name = format!("{set}.grad.{site}");
            let theirs = self.float(&name)?;
            self.same_shape(&name, theirs, ours)?;
            errors.push(norm(&(ours - theirs)) / norm(theirs).max(f64::MIN_POSITIVE));
        }
        Ok((output, errors))
    }

    fn same_shape(&self, name: &str, theirs: &ArrayD<f32>, ours: &ArrayD<f32>) -> Result<(), ReferenceError> {
        if theirs.shape() == ours.shape() {
            return Ok(());
        }
        let (found, expected) = (theirs.shape().to_vec(), ours.shape().to_vec());
        Err(ReferenceError::Shape { tensor: name.into(), found, expected })
    }
}

/// The larger of two errors, where NaN is the largest.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
