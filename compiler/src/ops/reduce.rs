//! ReduceSum, ReduceMean, GlobalAveragePool: sums over whole axes.

use pponnx_plans::map::MapOp;
use pponnx_plans::value::ValueId;

use super::Claim;
use super::lowering::Lowering;
use crate::source::Kind;

/// Claims sums over axes.
pub fn lower(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Option<Result<ValueId, String>> {
    let Kind::ReduceSum(axes) = claim.kind else { return None };
    Some(reduce(axes, claim, lowering))
}

fn reduce(axes: &[usize], claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Result<ValueId, String> {
    let (x, shape) = claim.value(0)?;
    let sum = |lowering: &mut Lowering<'_>, x: ValueId, kernel: Vec<usize>| {
        let n = kernel.len();
        lowering.linear(MapOp::SumPool {
            x,
            kernel,
            strides: vec![1; n],
            dilations: vec![1; n],
            pads_before: vec![0; n],
            pads_after: vec![0; n],
        })
    };
    if shape.rank() >= 3 && axes.iter().all(|a| *a >= 2) {
        let kernel = (2..shape.rank()).map(|a| if axes.contains(&a) { shape.0[a] } else { 1 }).collect();
        return sum(lowering, x, kernel);
    }
    // Summed axes last, then as one axis behind two others.
    let kept: Vec<usize> = (0..shape.rank()).filter(|a| !axes.contains(a)).collect();
    let perm: Vec<usize> = kept.iter().chain(axes).copied().collect();
    let rows: usize = kept.iter().map(|a| shape.0[*a]).product();
    let columns: usize = axes.iter().map(|a| shape.0.get(*a).copied().unwrap_or(0)).product();
    let y = lowering.transpose(x, &perm)?;
    let y = lowering.reshape(y, &[1, rows, columns])?;
    let y = sum(lowering, y, vec![columns])?;
    lowering.reshape(y, &claim.shape.0)
}
