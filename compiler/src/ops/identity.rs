//! Identity and Dropout: nothing at run time.

use pponnx_plans::value::ValueId;

use super::Claim;
use super::lowering::Lowering;
use crate::source::Kind;

/// Claims operators that do nothing.
pub fn lower(claim: &Claim<'_>, _: &mut Lowering<'_>) -> Option<Result<ValueId, String>> {
    match claim.kind {
        Kind::Identity => Some(claim.value(0).map(|(x, _)| x)),
        _ => None,
    }
}
