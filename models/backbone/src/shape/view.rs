//! Reading the elements of small tensors by position.

use super::{Dim, Fact, MAX_VALUE};
use crate::ir::DType;

/// A tensor whose dimensions and elements are known.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) shape: &'a [usize],
    pub(super) elements: &'a [Dim],
}

impl View<'_> {
    /// The element at `index`, aligned to the right and repeated along dimensions of 1, as broadcasting reads it.
    pub(super) fn at_broadcast(&self, index: &[usize]) -> Option<&Dim> {
        let skipped = index.len().checked_sub(self.shape.len())?;
        let own = index[skipped..].iter().zip(self.shape).map(|(&i, &size)| if size == 1 { 0 } else { i });
        self.at(&own.collect::<Vec<_>>())
    }

    /// The element at `index`.
    pub(super) fn at(&self, index: &[usize]) -> Option<&Dim> {
        let mut flat = 0;
        for (&i, &size) in index.iter().zip(self.shape) {
            if i >= size {
                return None;
            }
            flat = flat * size + i;
        }
        self.elements.get(flat)
    }
}

/// Dimensions that are all known and small enough for a tensor to have a value.
pub(super) fn small(shape: &[Dim]) -> Option<Vec<usize>> {
    let sizes: Vec<usize> =
        shape.iter().map(|dim| dim.as_known().and_then(|d| usize::try_from(d).ok())).collect::<Option<_>>()?;
    let len = sizes.iter().try_fold(1usize, |len, &size| len.checked_mul(size))?;
    // Each dimension too, so that an empty tensor's other dimensions cannot be made a loop bound.
    (len <= MAX_VALUE && sizes.iter().all(|&size| size <= MAX_VALUE)).then_some(sizes)
}

/// The value of a tensor of these dimensions with `element` at every index, if it is small.
pub(super) fn fill(shape: &[Dim], mut element: impl FnMut(&[usize]) -> Option<Dim>) -> Option<Vec<Dim>> {
    let sizes = small(shape)?;
    let len = sizes.iter().product();
    let mut index = vec![0; sizes.len()];
    let mut value = Vec::with_capacity(len);
    for _ in 0..len {
        value.push(element(&index)?);
        for axis in (0..sizes.len()).rev() {
            index[axis] += 1;
            if index[axis] < sizes[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Some(value)
}

/// Whole numbers beyond this are not all 32-bit floats.
const MAX_WHOLE: i64 = 1 << 24;

/// The floats as integers, if all are whole and exact.
pub(super) fn whole(floats: &[f32]) -> Option<Vec<i64>> {
    let exact = |x: f32| (x.fract() == 0.0 && x.abs() <= MAX_WHOLE as f32).then_some(x as i64);
    floats.iter().map(|&x| exact(x)).collect()
}

/// Whether values of this type are followed: integers, booleans, and floats in which sizes are exact.
fn is_followed(dtype: DType, value: &[Dim]) -> bool {
    match dtype {
        DType::F32 | DType::F64 => {
            value.iter().all(|x| x.as_known().is_none_or(|x| (-MAX_WHOLE..=MAX_WHOLE).contains(&x)))
        }
        _ => !dtype.is_float(),
    }
}

/// No engine has tensors of more dimensions.
const MAX_RANK: usize = 64;

/// Keeps dimensions only of a rank that exists, and a value only where the dimensions and the type allow it.
pub(super) fn drop_impossible(fact: &mut Fact) {
    fact.shape = fact.shape.take().filter(|shape| shape.len() <= MAX_RANK);
    let len = fact.shape.as_deref().and_then(small).map(|sizes| sizes.iter().product::<usize>());
    let dtype = fact.dtype;
    let fits = |value: &Vec<Dim>| Some(value.len()) == len && dtype.is_some_and(|dtype| is_followed(dtype, value));
    fact.value = fact.value.take().filter(fits);
}
