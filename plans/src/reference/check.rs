//! The integrity check over F_p, p = `2^61 - 1` (protocol section 4).
//!
//! For a secret `v` of the shape of a map's result and `c = L^T v`, every right result satisfies
//! `<v, z> = <c, x> mod p` on signed integers. `v = a (x) beta`: `a` over one axis of the result, `beta` over the
//! other axes, row-major. A wrong `z` passes with probability at most 2/p.

use super::EvalError;
use super::linear::{self, windows};
use super::scalar::{Fp, Scalar, Weighted};
use super::tensor::Tensor;
use crate::map::{CheckForm, LinearMap, MapOp};
use crate::value::Shape;

/// The axis of the result that `a` belongs to: the channels of a convolution, the columns of a matrix product; in
/// full form axis 1 from three axes on, else the last. `None` for a scalar.
pub fn channel_axis(form: CheckForm, rank: usize) -> Option<usize> {
    match form {
        CheckForm::ConvRankOne => (rank > 1).then_some(1),
        CheckForm::MatMulRankOne => rank.checked_sub(1),
        CheckForm::Full if rank >= 3 => Some(1),
        CheckForm::Full => rank.checked_sub(1),
    }
}

/// Numbers of elements of `a` and of `beta` for a result of this shape.
pub fn lengths(form: CheckForm, shape: &Shape) -> (usize, usize) {
    match channel_axis(form, shape.rank()) {
        Some(axis) => {
            let others = shape.0.iter().enumerate().filter(|(i, _)| *i != axis);
            (shape.0[axis], others.fold(1, |n, (_, d)| n.saturating_mul(*d)))
        }
        None => (1, 1),
    }
}

/// `v = a (x) beta` over a result of this shape.
///
/// # Errors
/// [`EvalError::Length`] if `a` or `beta` do not have the [`lengths`] the shape asks for.
pub fn outer(form: CheckForm, shape: &Shape, a: &[Fp], beta: &[Fp]) -> Result<Tensor<Fp>, EvalError> {
    if lengths(form, shape) != (a.len(), beta.len()) || shape.checked_len().is_none() {
        return Err(EvalError::Length { shape: shape.clone(), len: a.len().saturating_mul(beta.len()) });
    }
    let inner = match channel_axis(form, shape.rank()) {
        Some(axis) => shape.0[axis + 1..].iter().product(),
        None => 1,
    };
    let mut data = Vec::with_capacity(shape.len());
    for beta in beta.chunks(inner.max(1)) {
        for a in a {
            data.extend(beta.iter().map(|b| a.times(*b)));
        }
    }
    Tensor::new(shape.clone(), data)
}

/// The full check vectors of a map, one tensor an input: `L^T v`.
///
/// # Errors
/// [`EvalError`] if `v` or the weights do not fit the map.
pub fn full<'m, C, W>(
    map: &'m LinearMap<C>,
    v: &Tensor<Fp>,
    weights: impl Fn(&'m C) -> Option<&'m Tensor<W>>,
) -> Result<Vec<Tensor<Fp>>, EvalError>
where
    Fp: Weighted<W>,
    W: Copy + 'm,
{
    linear::adjoint(map, v, weights)
}

/// The compact check vector G of a map of a rank-one form: `G[ci, k..] = sum_{co in group(ci)} a_co W[co, ci', k..]`
/// for a convolution (`ci'` counts inside the group), `G[k] = sum_n a_n W[n, k]` for a matrix product.
///
/// # Errors
/// [`EvalError`] if the map has no such form or `a` does not have one element an output channel.
pub fn rank_one<C, W>(map: &LinearMap<C>, a: &[Fp], w: &Tensor<W>) -> Result<Tensor<Fp>, EvalError>
where
    Fp: Weighted<W>,
    W: Copy,
{
    w.checked()?;
    let unfit = || EvalError::Inputs { map: map.name.clone(), reason: "its check data is not of rank one".into() };
    let ([op], [_]) = (map.ops.as_slice(), map.inputs.as_slice()) else { return Err(unfit()) };
    let dims = w.shape.0.as_slice();
    let (groups, shape) = match (op, dims) {
        (MapOp::Conv { groups, .. }, [_, c, kernel @ ..]) => {
            let mut shape = vec![c.saturating_mul(*groups)];
            shape.extend(kernel);
            (*groups, shape)
        }
        (MapOp::MatMul { .. }, [_, k]) => (1, vec![*k]),
        _ => return Err(unfit()),
    };
    let outputs = dims[0];
    if a.len() != outputs || groups == 0 || !outputs.is_multiple_of(groups) || w.data.is_empty() {
        return Err(EvalError::Length { shape: w.shape.clone(), len: a.len() });
    }
    let (row, each) = (w.data.len() / outputs, outputs / groups);
    let mut g = vec![Fp::ZERO; row * groups];
    for (co, (a, weights)) in a.iter().zip(w.data.chunks(row)).enumerate() {
        let to = &mut g[co / each * row..][..row];
        to.iter_mut().zip(weights).for_each(|(g, w)| *g = g.mul_add(*a, *w));
    }
    Tensor::new(shape, g)
}

/// Expands G to the check vector of the map's input: `c = L^T (a (x) beta)`. `weights` is the shape of the map's
/// weights, which the device does not hold.
///
/// # Errors
/// [`EvalError`] if the map has no rank-one form or G, `beta` and shapes do not fit it.
pub fn expand<C>(map: &LinearMap<C>, weights: &Shape, g: &Tensor<Fp>, beta: &[Fp]) -> Result<Tensor<Fp>, EvalError> {
    g.checked()?;
    let unfit = |reason: &str| EvalError::Inputs { map: map.name.clone(), reason: reason.into() };
    let ([op], [x]) = (map.ops.as_slice(), map.inputs.as_slice()) else {
        return Err(unfit("its check data is not of rank one"));
    };
    let y = op.shape(&[x], Some(weights)).map_err(|reason| EvalError::Shape { op: op.name(), reason })?;
    let mut c = vec![Fp::ZERO; x.len()];
    match op {
        MapOp::Conv { groups, .. } => {
            let form = CheckForm::ConvRankOne;
            let windows = windows(op, x, &y, weights);
            let channels = x.0[1];
            let fits = lengths(form, &y).1 == beta.len() && g.data.len() == channels * windows.kernel;
            if !fits || *groups == 0 {
                return Err(unfit("G or beta does not fit it"));
            }
            // beta runs over batch entries and output pixels; G holds the whole sum over a channel's group.
            for (n, beta) in beta.chunks(windows.output).enumerate() {
                for ci in 0..channels {
                    let to = &mut c[(n * channels + ci) * windows.input..][..windows.input];
                    windows.scatter(beta, &g.data[ci * windows.kernel..][..windows.kernel], to);
                }
            }
        }
        MapOp::MatMul { .. } if weights.rank() == 2 => {
            let k = g.data.len();
            if lengths(CheckForm::MatMulRankOne, &y).1 != beta.len() || weights.0[1] != k {
                return Err(unfit("G or beta does not fit it"));
            }
            for (row, b) in c.chunks_mut(k).zip(beta) {
                row.iter_mut().zip(&g.data).for_each(|(c, g)| *c = g.times(*b));
            }
        }
        _ => return Err(unfit("its check data is not of rank one")),
    }
    Tensor::new(x.clone(), c)
}

/// `<c, x> mod p` on signed integers; the shorter length counts.
pub fn dot<I: Copy + Into<i64>>(c: &[Fp], x: &[I]) -> Fp {
    c.iter().zip(x).fold(Fp::ZERO, |sum, (c, x)| sum.add(c.mul_int((*x).into())))
}

/// Whether `<v, z> = sum_i <c_i, x_i> mod p`, with all lengths as they must be.
pub fn holds(v: &[Fp], z: &[i64], inputs: &[(&[Fp], &[i32])]) -> bool {
    let right = inputs.iter().fold(Fp::ZERO, |sum, (c, x)| sum.add(dot(c, x)));
    v.len() == z.len() && inputs.iter().all(|(c, x)| c.len() == x.len()) && dot(v, z) == right
}
