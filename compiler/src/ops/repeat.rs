//! Tile and Expand: elements repeated.

use pponnx_plans::map::MapOp;
use pponnx_plans::value::{Shape, ValueId};

use super::Claim;
use super::lowering::Lowering;
use crate::source::Kind;

/// Claims repetitions.
pub fn lower(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Option<Result<ValueId, String>> {
    match claim.kind {
        Kind::Broadcast => Some(broadcast(claim, lowering)),
        Kind::Tile(multipliers) => Some(tile(multipliers, claim, lowering)),
        _ => None,
    }
}

fn broadcast(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Result<ValueId, String> {
    let (x, shape) = claim.value(0)?;
    let missing = claim.shape.rank().checked_sub(shape.rank()).ok_or("it drops axes")?;
    let mut aligned = vec![1; missing];
    aligned.extend_from_slice(&shape.0);
    let y = lowering.reshape(x, &aligned)?;
    lowering.expand(y, claim.shape)
}

fn tile(multipliers: &[usize], claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Result<ValueId, String> {
    let (x, shape) = claim.value(0)?;
    let mut y = x;
    for (axis, m) in multipliers.iter().enumerate().filter(|(_, m)| **m != 1) {
        let d = *shape.0.get(axis).ok_or("more multipliers than axes")?;
        y = if d == 1 {
            let mut to = lowering.shape(y);
            to.0[axis] = *m;
            lowering.expand(y, &Shape(to.0))?
        } else {
            let indices = (0..*m).flat_map(|_| 0..d).collect();
            lowering.linear(MapOp::Gather { x: y, axis, indices })?
        };
    }
    Ok(y)
}
