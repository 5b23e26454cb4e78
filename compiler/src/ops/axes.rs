//! Reshape, Flatten, Squeeze, Unsqueeze, Transpose, DepthToSpace: other shapes, other orders.

use pponnx_plans::value::ValueId;

use super::Claim;
use super::lowering::Lowering;
use crate::source::Kind;

/// Claims changes of axes.
pub fn lower(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Option<Result<ValueId, String>> {
    match claim.kind {
        Kind::Reshape => Some(claim.value(0).and_then(|(x, _)| lowering.reshape(x, &claim.shape.0))),
        Kind::Transpose(perm) => Some(claim.value(0).and_then(|(x, _)| lowering.transpose(x, perm))),
        _ => None,
    }
}
