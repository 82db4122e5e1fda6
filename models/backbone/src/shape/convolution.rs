//! Convolutions.

use super::context::{Context, one};
use super::{Dim, Fact};

/// `Conv`: `[N, channels, extents..]` to `[N, M, extents..]`, M the first dimension of the weight.
pub(super) fn conv(cx: &Context) -> Option<Vec<Fact>> {
    one(cx.dtype(0).or(cx.dtype(1)), conv_shape(cx))
}

fn conv_shape(cx: &Context) -> Option<Vec<Dim>> {
    let ([batch, _, extents @ ..], [maps, _, kernel @ ..]) = (cx.shape(0)?, cx.shape(1)?) else { return None };
    let axes = extents.len();
    if kernel.len() != axes {
        return None;
    }
    let each = |name: &str, default: i64| match cx.node.ints(name) {
        Some(values) if values.len() == axes => Some(values.to_vec()),
        Some(_) => None,
        None => Some(vec![default; axes]),
    };
    let (strides, dilations) = (each("strides", 1)?, each("dilations", 1)?);
    let same = match cx.node.str("auto_pad").unwrap_or("NOTSET") {
        "NOTSET" | "VALID" => false,
        "SAME_UPPER" | "SAME_LOWER" => true,
        _ => return None,
    };
    let pads = match cx.node.ints("pads") {
        Some(pads) if pads.len() == 2 * axes => pads.to_vec(),
        Some(_) => return None,
        None => vec![0; 2 * axes],
    };
    let extent = |axis: usize| -> Option<Dim> {
        let stride = Some(strides[axis]).filter(|&stride| stride > 0)?;
        if same {
            return Some(extents[axis].ceil_div(&Dim::known(stride)));
        }
        let reach = dilations[axis].checked_mul(kernel[axis].as_known()?.checked_sub(1)?)?;
        let more = pads[axis].checked_add(pads[axis + axes])?.checked_sub(reach)?.checked_sub(1)?;
        let last = &extents[axis] + &Dim::known(more);
        Some(&last.floor_div(&Dim::known(stride)) + &Dim::known(1))
    };
    let extents = (0..axes).map(|axis| extent(axis).unwrap_or_else(|| cx.unknown(0, axis + 2)));
    Some([batch.clone(), maps.clone()].into_iter().chain(extents).collect())
}
