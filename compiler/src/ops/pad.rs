//! Padding: with a constant, or by repeating elements.

use pponnx_plans::map::MapOp;
use pponnx_plans::value::ValueId;

use super::Claim;
use super::lowering::Lowering;
use crate::ir::dense::{Dense, apply};
use crate::source::{Fill, Kind};

/// Claims paddings.
pub fn lower(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Option<Result<ValueId, String>> {
    let Kind::Pad(pads, fill) = claim.kind else { return None };
    Some(pad(pads, *fill, claim, lowering))
}

fn pad(pads: &[(usize, usize)], fill: Fill, claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Result<ValueId, String> {
    let (x, shape) = claim.value(0)?;
    match fill {
        Fill::Value(value) => {
            if !value.is_finite() {
                return Err("its padding is not finite".into());
            }
            let (before, after) = pads.iter().copied().unzip();
            let op = MapOp::PadZero { x, before, after };
            let border = if value == 0.0 {
                None
            } else {
                let inside = Dense::uniform(shape.rank(), 0.0).full(shape)?;
                Some(apply(&op, &[&inside], f64::from(value))?)
            };
            let y = lowering.linear(op)?;
            Ok(match border {
                Some(border) => lowering.shift(y, border),
                None => y,
            })
        }
        Fill::Reflect | Fill::Edge => {
            let mut y = x;
            for (axis, (before, after)) in pads.iter().enumerate() {
                let d = shape.0[axis];
                if fill == Fill::Reflect && (*before >= d || *after >= d) {
                    return Err("it reflects more than there is".into());
                }
                let pick = |i: usize| match (i.checked_sub(*before), fill) {
                    (None, Fill::Reflect) => before - i,
                    (None, _) => 0,
                    (Some(j), Fill::Reflect) if j >= d => 2 * (d - 1) - j,
                    (Some(j), _) => j.min(d - 1),
                };
                let indices = (0..d + before + after).map(pick).collect();
                y = lowering.linear(MapOp::Gather { x: y, axis, indices })?;
            }
            Ok(y)
        }
    }
}
