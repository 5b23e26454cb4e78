//! Slice and Split: parts of axes, forwards with a step or backwards.

use pponnx_plans::map::MapOp;
use pponnx_plans::value::ValueId;

use super::Claim;
use super::lowering::Lowering;
use crate::source::Kind;

/// Claims slices.
pub fn lower(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Option<Result<ValueId, String>> {
    match claim.kind {
        Kind::Slice(axis, start, end) => Some(slice(*axis, *start, end.saturating_sub(*start), 1, claim, lowering)),
        Kind::Strided(cuts) => Some(strided(cuts, claim, lowering)),
        Kind::Downsample(axis, stride, modulo) => Some(downsample(*axis, *stride, *modulo, claim, lowering)),
        _ => None,
    }
}

fn slice(
    axis: usize,
    start: usize,
    len: usize,
    step: usize,
    claim: &Claim<'_>,
    lowering: &mut Lowering<'_>,
) -> Result<ValueId, String> {
    let (x, shape) = claim.value(0)?;
    let (mut starts, mut steps, mut lens) = (vec![0; shape.rank()], vec![1; shape.rank()], shape.0.clone());
    if axis >= lens.len() {
        return Err("its axis lies outside the tensor".into());
    }
    (starts[axis], steps[axis], lens[axis]) = (start, step, len);
    lowering.linear(MapOp::Slice { x, starts, steps, lens })
}

/// Forward steps in one operation, then each backward axis by its indices.
fn strided(cuts: &[(usize, usize, isize)], claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Result<ValueId, String> {
    let (mut x, shape) = claim.value(0)?;
    let (mut starts, mut steps, mut lens) = (vec![0; shape.rank()], vec![1; shape.rank()], shape.0.clone());
    let length = |axis: usize| claim.shape.0.get(axis).copied().ok_or("its axis lies outside the result");
    for (axis, start, step) in cuts.iter().filter(|c| c.2 > 0) {
        let len = length(*axis)?;
        let outside = "its axis lies outside the tensor";
        *starts.get_mut(*axis).ok_or(outside)? = *start;
        *steps.get_mut(*axis).ok_or(outside)? = step.unsigned_abs();
        *lens.get_mut(*axis).ok_or(outside)? = len;
    }
    x = lowering.linear(MapOp::Slice { x, starts, steps, lens })?;
    for (axis, start, step) in cuts.iter().filter(|c| c.2 < 0) {
        let back = |i: usize| start.checked_sub(i.checked_mul(step.unsigned_abs())?);
        let indices = (0..length(*axis)?).map(back).collect::<Option<_>>().ok_or("it leaves the axis")?;
        x = lowering.linear(MapOp::Gather { x, axis: *axis, indices })?;
    }
    Ok(x)
}

fn downsample(
    axis: usize,
    stride: isize,
    modulo: usize,
    claim: &Claim<'_>,
    lowering: &mut Lowering<'_>,
) -> Result<ValueId, String> {
    let (x, shape) = claim.value(0)?;
    let d = *shape.0.get(axis).ok_or("its axis lies outside the tensor")?;
    let len = *claim.shape.0.get(axis).ok_or("its axis lies outside the result")?;
    let step = stride.unsigned_abs();
    if stride > 0 {
        return slice(axis, modulo, len, step, claim, lowering);
    }
    let last = d.checked_sub(1).ok_or("it is empty")?;
    let indices = (0..len).map(|i| last.checked_sub(i * step)).collect::<Option<_>>().ok_or("it leaves the axis")?;
    lowering.linear(MapOp::Gather { x, axis, indices })
}
