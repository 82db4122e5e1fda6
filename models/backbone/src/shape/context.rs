//! A node with the facts of what it reads.

use super::view::{View, small};
use super::{Dim, Fact, Facts};
use crate::ir::{DType, Node};

/// What a rule sees. A rule returns the facts of the outputs in order, or `None` where it can tell nothing.
pub(super) struct Context<'a> {
    pub(super) facts: &'a Facts,
    pub(super) node: &'a Node,
}

pub(super) type Rule = fn(&Context) -> Option<Vec<Fact>>;

impl<'a> Context<'a> {
    pub(super) fn has(&self, i: usize) -> bool {
        self.node.input(i).is_some()
    }

    pub(super) fn fact(&self, i: usize) -> Option<&'a Fact> {
        self.facts.get(self.node.input(i)?)
    }

    pub(super) fn dtype(&self, i: usize) -> Option<DType> {
        self.fact(i)?.dtype
    }

    pub(super) fn shape(&self, i: usize) -> Option<&'a [Dim]> {
        self.fact(i)?.shape.as_deref()
    }

    pub(super) fn value(&self, i: usize) -> Option<&'a [Dim]> {
        self.fact(i)?.value.as_deref()
    }

    pub(super) fn ints(&self, i: usize) -> Option<Vec<i64>> {
        self.value(i)?.iter().map(Dim::as_known).collect()
    }

    /// Dimensions of input `i` where they are few and known, as reading its elements needs them.
    pub(super) fn sizes(&self, i: usize) -> Option<Vec<usize>> {
        self.value(i)?;
        small(self.shape(i)?)
    }

    pub(super) fn view<'b>(&self, i: usize, sizes: &'b [usize]) -> Option<View<'b>>
    where
        'a: 'b,
    {
        Some(View { shape: sizes, elements: self.value(i)? })
    }

    /// Number of elements of a one-dimensional input: of shapes, pads, axes.
    pub(super) fn length(&self, i: usize) -> Option<usize> {
        match self.shape(i)? {
            [len] => usize::try_from(len.as_known()?).ok().filter(|&len| len <= super::MAX_VALUE),
            _ => None,
        }
    }

    /// A dimension of which nothing is known, named after the output it belongs to.
    pub(super) fn unknown(&self, output: usize, axis: usize) -> Dim {
        let name = self.node.output(output).unwrap_or("?");
        Dim::unknown(&format!("{name}.{axis}"))
    }

    /// A shape of known rank and unknown sizes.
    pub(super) fn unknown_shape(&self, output: usize, rank: usize) -> Vec<Dim> {
        (0..rank).map(|axis| self.unknown(output, axis)).collect()
    }

    /// An axis attribute, counted from the front.
    pub(super) fn axis(&self, default: i64, rank: usize) -> Option<usize> {
        resolve_axis(self.node.int("axis").unwrap_or(default), rank)
    }
}

/// An axis counted from the front, of one that may count from the back.
pub(super) fn resolve_axis(axis: i64, rank: usize) -> Option<usize> {
    let signed = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(signed)? } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// The shape two shapes broadcast to.
pub(super) fn broadcast(a: &[Dim], b: &[Dim]) -> Vec<Dim> {
    let rank = a.len().max(b.len());
    let one = Dim::known(1);
    let at = |shape: &[Dim], axis: usize| {
        (axis + shape.len()).checked_sub(rank).and_then(|i| shape.get(i)).unwrap_or(&one).clone()
    };
    (0..rank).map(|axis| at(a, axis).broadcast(&at(b, axis))).collect()
}

/// One output of this type and shape.
pub(super) fn one(dtype: Option<DType>, shape: Option<Vec<Dim>>) -> Option<Vec<Fact>> {
    Some(vec![Fact::new(dtype, shape)])
}
