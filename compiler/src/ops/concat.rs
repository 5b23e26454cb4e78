//! Concat of variables.

use pponnx_plans::map::MapOp;
use pponnx_plans::value::ValueId;

use super::Claim;
use super::lowering::Lowering;
use crate::source::Kind;

/// Claims concatenations.
pub fn lower(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Option<Result<ValueId, String>> {
    let Kind::Concat(axis) = claim.kind else { return None };
    let xs: Result<Vec<ValueId>, String> = (0..claim.operands.len()).map(|i| Ok(claim.value(i)?.0)).collect();
    Some(xs.and_then(|xs| lowering.linear(MapOp::Concat { xs, axis: *axis })))
}
