//! Gather with constant indices.

use pponnx_plans::map::MapOp;
use pponnx_plans::value::ValueId;

use super::Claim;
use super::lowering::Lowering;
use crate::source::Kind;

/// Claims gathers.
pub fn lower(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Option<Result<ValueId, String>> {
    let Kind::Gather(axis) = claim.kind else { return None };
    Some(gather(*axis, claim, lowering))
}

fn gather(axis: usize, claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Result<ValueId, String> {
    let (x, shape) = claim.value(0)?;
    let indices = claim.constant(1, "index")?.integers().ok_or("its index is no integer tensor")?;
    let d = *shape.0.get(axis).ok_or("its axis lies outside the tensor")?;
    let wrap = |i: i64| usize::try_from(if i < 0 { i + d as i64 } else { i }).ok().filter(|i| *i < d);
    let indices = indices.into_iter().map(wrap).collect::<Option<_>>().ok_or("its index lies outside the axis")?;
    let y = lowering.linear(MapOp::Gather { x, axis, indices })?;
    lowering.reshape(y, &claim.shape.0)
}
