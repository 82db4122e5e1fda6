//! The shape a program's inputs have in common, and where each input's rows lie.

/// Whether a value has a number for each place of a row, or one for the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// As many as the width.
    Row,
    /// One.
    One,
}

/// Rows of one width, in axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowShape {
    /// Every axis but the last.
    lead: Vec<usize>,
    /// The last axis.
    width: usize,
}

impl RowShape {
    /// What `shapes` are broadcast to; a shape of no axes counts as one number. None if they cannot be.
    pub fn common(shapes: &[&[usize]]) -> Option<Self> {
        let rank = shapes.iter().map(|shape| shape.len()).max()?.max(1);
        let mut common = vec![1; rank];
        for shape in shapes {
            for (have, &dim) in common[rank - shape.len()..].iter_mut().zip(*shape) {
                match (*have, dim) {
                    (have, dim) if have == dim || dim == 1 => {}
                    (1, dim) => *have = dim,
                    _ => return None,
                }
            }
        }
        let width = common.pop()?;
        Some(RowShape { lead: common, width })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.lead.iter().product()
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The dimensions of a value.
    pub fn dims(&self, extent: Extent) -> Vec<usize> {
        let last = match extent {
            Extent::Row => self.width,
            Extent::One => 1,
        };
        self.lead.iter().copied().chain([last]).collect()
    }

    /// The extent of an input of the shape `dims`.
    pub(super) fn extent(&self, dims: &[usize]) -> Extent {
        if dims.last().copied().unwrap_or(1) == self.width { Extent::Row } else { Extent::One }
    }

    /// Where an input of the shape `dims`, which is broadcast to this one, has its rows.
    pub(super) fn layout(&self, dims: &[usize]) -> Layout {
        let own = dims.last().copied().unwrap_or(1);
        let lead = &dims[..dims.len().saturating_sub(1)];
        let mut strides = vec![0; self.lead.len()];
        let mut stride = own;
        for (axis, &dim) in (0..self.lead.len()).rev().zip(lead.iter().rev()) {
            if dim > 1 {
                strides[axis] = stride;
            }
            stride *= dim;
        }
        let dense = lead.iter().product::<usize>() == self.rows();
        Layout { strides, dense, constant: lead.iter().all(|&dim| dim == 1) }
    }

    /// The place of row `row` in an input's data.
    pub(super) fn offset(&self, layout: &Layout, row: usize) -> usize {
        let (mut rest, mut offset) = (row, 0);
        for (&dim, &stride) in self.lead.iter().zip(&layout.strides).rev() {
            offset += rest % dim * stride;
            rest /= dim;
        }
        offset
    }
}

/// Where an input's rows lie in its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// For each leading axis, how far one step along it is.
    strides: Vec<usize>,
    /// Whether it has a row of its own for every row.
    pub(super) dense: bool,
    /// Whether it has one row for all.
    pub(super) constant: bool,
}
