//! Trained values to what is sent, with what encoding loses kept for the next time.

use fedtt_wire::Layout;
use fedtt_wire::plan::Coding;
use fedtt_wire::tensor::EncodedTensor;
use ndarray::{ArrayD, ArrayViewD};

use super::LocalError;

/// What a device sends and what it keeps.
pub(super) struct Encoded {
    /// In the order of the places that trained.
    pub(super) tensors: Vec<EncodedTensor>,
    /// What encoding lost, for every place of the layout; absent without feedback.
    pub(super) residual: Option<Vec<ArrayD<f32>>>,
}

/// Encodes the values of `places`: with `coding.delta` their difference to the global ones, to which with
/// `coding.feedback` the residual of before is added (Seide et al. 2014, "1-bit stochastic gradient descent"; Karimireddy et
/// al. 2019, "Error feedback fixes SignSGD").
pub(super) fn encode(
    layout: &Layout,
    places: &[u32],
    local: &[ArrayViewD<'_, f32>],
    globals: &[ArrayD<f32>],
    residual: Option<&[ArrayD<f32>]>,
    coding: &Coding,
) -> Result<Encoded, LocalError> {
    let feedback = coding.delta && coding.feedback;
    let mut kept = feedback.then(|| residual.map_or_else(|| layout.zeros(), <[ArrayD<f32>]>::to_vec));
    let mut tensors = Vec::with_capacity(places.len());
    for place in places.iter().map(|&place| place as usize) {
        let name = &layout.0[place].name;
        let mut message = local[place].to_owned();
        if coding.delta {
            message -= &globals[place];
        }
        if let Some(kept) = &kept {
            message += &kept[place];
        }
        if !message.iter().all(|x| x.is_finite()) {
            return Err(LocalError::NotFinite(name.clone()));
        }
        let tensor = EncodedTensor::encode(message.view(), coding.encoding, coding.shuffle);
        if let Some(kept) = &mut kept {
            let lossy = |source| LocalError::Values { what: "the update", source };
            kept[place] = message - tensor.decode(name, &layout.0[place].shape).map_err(lossy)?;
        }
        tensors.push(tensor);
    }
    Ok(Encoded { tensors, residual: kept })
}
