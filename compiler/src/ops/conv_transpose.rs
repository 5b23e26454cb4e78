//! Transposed convolution with constant weights.

use std::sync::Arc;

use pponnx_plans::map::MapOp;
use pponnx_plans::value::ValueId;

use super::Claim;
use super::conv::bias;
use super::lowering::{Lowering, weights};
use crate::source::Kind;

/// Claims transposed convolutions.
pub fn lower(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Option<Result<ValueId, String>> {
    match claim.kind {
        Kind::ConvTranspose(..) => Some(conv_transpose(claim, lowering)),
        _ => None,
    }
}

fn conv_transpose(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Result<ValueId, String> {
    let Kind::ConvTranspose(window, groups, output_padding) = claim.kind else {
        return Err("no transposed convolution".into());
    };
    let (x, _) = claim.value(0)?;
    let w = Arc::new(weights(claim.constant(1, "kernel")?)?);
    let bias = bias(claim)?;
    let y = lowering.linear(MapOp::ConvTranspose {
        x,
        w,
        strides: window.strides.clone(),
        dilations: window.dilations.clone(),
        pads_before: window.pads_before.clone(),
        pads_after: window.pads_after.clone(),
        output_padding: output_padding.clone(),
        groups: *groups,
    })?;
    Ok(lowering.shift(y, bias))
}
