//! Convolution with constant weights, in one to three dimensions, grouped or not.

use std::sync::Arc;

use pponnx_plans::map::MapOp;
use pponnx_plans::value::{Shape, ValueId};

use super::Claim;
use super::lowering::{Lowering, dense, weights};
use crate::ir::dense::Dense;
use crate::source::Kind;

/// Claims convolutions.
pub fn lower(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Option<Result<ValueId, String>> {
    match claim.kind {
        Kind::Conv(..) => Some(conv(claim, lowering)),
        _ => None,
    }
}

fn conv(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Result<ValueId, String> {
    let Kind::Conv(window, groups) = claim.kind else { return Err("no convolution".into()) };
    let (x, _) = claim.value(0)?;
    let w = Arc::new(weights(claim.constant(1, "kernel")?)?);
    let bias = bias(claim)?;
    let y = lowering.linear(MapOp::Conv {
        x,
        w,
        strides: window.strides.clone(),
        dilations: window.dilations.clone(),
        pads_before: window.pads_before.clone(),
        pads_after: window.pads_after.clone(),
        groups: *groups,
    })?;
    Ok(lowering.shift(y, bias))
}

/// The third operand, one number an output channel or one for all, on the channel axis.
///
/// # Errors
/// If it is not constant, or of another form.
pub fn bias(claim: &Claim<'_>) -> Result<Dense, String> {
    let rank = claim.shape.rank();
    let b = dense(claim.constant(2, "bias")?)?;
    if let Some(v) = b.as_uniform() {
        return Ok(Dense::uniform(rank, v));
    }
    let mut shape = Shape(vec![1; rank]);
    match (shape.0.get_mut(1), claim.shape.0.get(1)) {
        (Some(axis), Some(channels)) if b.data.len() == *channels => *axis = *channels,
        _ => return Err(format!("a bias of shape {}", b.shape)),
    }
    Ok(Dense { shape, data: b.data })
}
