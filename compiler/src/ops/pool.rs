//! Average pooling: a sum over a window, and a factor.

use pponnx_plans::map::MapOp;
use pponnx_plans::value::{Shape, ValueId};

use super::Claim;
use super::lowering::Lowering;
use crate::ir::dense::{Dense, offsets_of_windows};
use crate::source::Kind;

/// Claims average pools.
pub fn lower(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Option<Result<ValueId, String>> {
    match claim.kind {
        Kind::SumPool { .. } => Some(pool(claim, lowering)),
        _ => None,
    }
}

fn pool(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Result<ValueId, String> {
    let Kind::SumPool { window, mean, count_padding } = claim.kind else { return Err("no pool".into()) };
    let (x, shape) = claim.value(0)?;
    let y = lowering.linear(MapOp::SumPool {
        x,
        kernel: window.kernel.clone(),
        strides: window.strides.clone(),
        dilations: window.dilations.clone(),
        pads_before: window.pads_before.clone(),
        pads_after: window.pads_after.clone(),
    })?;
    let out = lowering.shape(y);
    let factor = if !mean {
        return Ok(y);
    } else if *count_padding {
        Dense::uniform(out.rank(), 1.0 / window.kernel.iter().product::<usize>() as f64)
    } else {
        let (from, to) = (shape.0.get(2..).unwrap_or_default(), out.0.get(2..).unwrap_or_default());
        let taps =
            offsets_of_windows(from, to, &window.kernel, &window.strides, &window.dilations, &window.pads_before);
        if taps.iter().any(Vec::is_empty) {
            return Err("a window of it lies in the padding altogether".into());
        }
        let mut positions = Shape(vec![1, 1]);
        positions.0.extend_from_slice(to);
        Dense { shape: positions, data: taps.iter().map(|t| 1.0 / t.len() as f64).collect() }
    };
    Ok(lowering.scale(y, factor))
}
