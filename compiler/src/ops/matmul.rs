//! Gemm, MatMul and Einsum with one constant operand: `y[.., m, n] = sum_k x[.., m, k] w[.., n, k]` between
//! changes of axes.
//!
//! Every index of the einsum falls in one class, by where it stands with a size above 1: batch (both operands and
//! the result), row (variable and result), column (weights and result), inner (variable, summed), or summed within
//! the weights.

use std::sync::Arc;

use pponnx_plans::map::MapOp;
use pponnx_plans::value::ValueId;

use super::lowering::{Lowering, weights};
use super::{Claim, Operand};
use crate::ir::dense::offsets;
use crate::ir::split::RealTensor;
use crate::source::{EinsumAxis, Kind};

/// Claims sums of products.
pub fn lower(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Option<Result<ValueId, String>> {
    let Kind::Einsum(axes) = claim.kind else { return None };
    Some(einsum(axes, claim, lowering))
}

/// One index.
#[derive(Clone, Copy, Debug)]
struct Index {
    /// Axis of the variable, if it varies there (or stands only there).
    x: Option<usize>,
    /// Step in the weights, zero where they do not vary.
    stride: usize,
    /// Number of values.
    size: usize,
    /// Axis of the result.
    out: Option<usize>,
}

fn einsum(axes: &[EinsumAxis], claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Result<ValueId, String> {
    let variable = match claim.operands.as_slice() {
        [Operand::Value(..), Operand::Constant(_)] => 0,
        [Operand::Constant(_), Operand::Value(..)] => 1,
        _ => return Err("product of two variables".into()),
    };
    let (x, x_shape) = claim.value(variable)?;
    let w = weights(claim.constant(1 - variable, "weight matrix")?)?;
    let w_strides = w.shape.strides();
    let mut classes = Classes::default();
    for axis in axes {
        let at = |list: &[usize]| match list {
            [] => Ok(None),
            [a] => Ok(Some(*a)),
            _ => Err("it reads a diagonal".to_string()),
        };
        let (xa, wa, out) = (at(&axis.inputs[variable])?, at(&axis.inputs[1 - variable])?, at(&axis.output)?);
        let x_size = xa.map_or(1, |a| x_shape.0[a]);
        let w_size = wa.map_or(1, |a| w.shape.0[a]);
        let stride = wa.filter(|_| w_size > 1).map_or(0, |a| w_strides[a]);
        // An axis of size 1 in the variable counts as absent where the weights vary.
        let xa = if x_size == 1 && (w_size > 1 || wa.is_some()) { None } else { xa };
        let index = Index { x: xa, stride, size: x_size.max(w_size), out };
        match (xa, stride > 0, out) {
            (Some(_), true, Some(_)) => classes.batch.push(index),
            (Some(_), false, Some(_)) => classes.rows.push(index),
            (Some(_), _, None) => classes.inner.push(index),
            (None, true, Some(_)) => classes.columns.push(index),
            (None, true, None) => classes.summed.push(index),
            (None, false, _) => {}
        }
    }
    classes.emit(x, w, claim, lowering)
}

#[derive(Debug, Default)]
struct Classes {
    batch: Vec<Index>,
    rows: Vec<Index>,
    columns: Vec<Index>,
    inner: Vec<Index>,
    summed: Vec<Index>,
}

fn sizes(list: &[Index]) -> Vec<usize> {
    list.iter().map(|i| i.size).collect()
}

impl Classes {
    fn emit(
        mut self,
        x: ValueId,
        w: RealTensor,
        claim: &Claim<'_>,
        lowering: &mut Lowering<'_>,
    ) -> Result<ValueId, String> {
        for list in [&mut self.batch, &mut self.rows, &mut self.columns] {
            list.sort_by_key(|i| i.out);
        }
        self.inner.sort_by_key(|i| i.x);
        let (b, m, n, k) = (sizes(&self.batch), sizes(&self.rows), sizes(&self.columns), sizes(&self.inner));
        let inner: usize = k.iter().product();
        let columns: usize = n.iter().product();
        // The variable as [batch.., rows.., inner..], axes of size 1 that play no part dropped.
        let mut kept: Vec<usize> = self.batch.iter().chain(&self.rows).chain(&self.inner).filter_map(|i| i.x).collect();
        let order = kept.clone();
        kept.sort_unstable();
        let from = lowering.shape(x);
        let y = lowering.reshape(x, &kept.iter().map(|a| from.0[*a]).collect::<Vec<_>>())?;
        let perm: Vec<usize> = order.iter().filter_map(|a| kept.iter().position(|k| k == a)).collect();
        let y = lowering.transpose(y, &perm)?;
        let mut shape = b.clone();
        if b.is_empty() && m.is_empty() {
            shape.push(1);
        } else if b.is_empty() {
            shape.extend(&m);
        } else {
            shape.push(m.iter().product());
        }
        shape.push(inner);
        let y = lowering.reshape(y, &shape)?;
        let y = lowering.linear(MapOp::MatMul { x: y, w: Arc::new(self.weights(w, &b, columns, inner)) })?;
        // The result as [batch.., rows.., columns..], then in the order of the einsum's result.
        let parts: Vec<Index> = self.batch.iter().chain(&self.rows).chain(&self.columns).copied().collect();
        let y = lowering.reshape(y, &sizes(&parts))?;
        let mut perm: Vec<usize> = (0..parts.len()).collect();
        perm.sort_by_key(|i| parts[*i].out);
        let y = lowering.transpose(y, &perm)?;
        lowering.reshape(y, &claim.shape.0)
    }

    /// Weights as `[batch.., columns, inner]`.
    fn weights(&self, w: RealTensor, batch: &[usize], columns: usize, inner: usize) -> RealTensor {
        let outer: Vec<Index> = self.batch.iter().chain(&self.columns).copied().collect();
        let places = |list: &[Index]| offsets(&sizes(list), &list.iter().map(|i| i.stride).collect::<Vec<_>>());
        let (rows, row, extra) = (places(&outer), places(&self.inner), places(&self.summed));
        let mut shape = batch.to_vec();
        shape.extend([columns, inner]);
        let in_order = |list: &[usize], step: usize| list.iter().enumerate().all(|(i, o)| *o == i * step);
        let data =
            if extra.len() == 1 && in_order(&row, 1) && in_order(&rows, inner) && w.data.len() == rows.len() * inner {
                w.data
            } else {
                let sum = |o: usize| extra.iter().map(|e| f64::from(w.data[o + e])).sum::<f64>() as f32;
                rows.iter().flat_map(|o| row.iter().map(move |i| o + i)).map(sum).collect()
            };
        RealTensor { shape: shape.into(), data }
    }
}
