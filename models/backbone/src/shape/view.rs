//! Reading the elements of small tensors by position.

use super::{Dim, Fact, MAX_VALUE};

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

/// Keeps a value only where the dimensions allow it.
pub(super) fn drop_impossible_value(fact: &mut Fact) {
    let len = fact.shape.as_deref().and_then(small).map(|sizes| sizes.iter().product::<usize>());
    if fact.value.as_ref().is_some_and(|value| Some(value.len()) != len) || fact.dtype.is_none_or(|d| d.is_float()) {
        fact.value = None;
    }
}
