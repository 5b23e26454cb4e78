//! Linear maps over any scalar: evaluation, adjoint, cost.

use super::EvalError;
use super::moves::{Walk, broadcast};
use super::scalar::{One, Scalar, Weighted};
use super::tensor::Tensor;
use super::windows::{Axis, Windows};
use crate::map::{LinearMap, MapOp};
use crate::value::{Shape, ValueId};

/// Applies a linear map. `weights` finds the tensor of a constant.
///
/// # Errors
/// [`EvalError`] if inputs, weights or operations do not fit each other.
pub fn apply<'m, C, S, W>(
    map: &'m LinearMap<C>,
    inputs: &[Tensor<S>],
    weights: impl Fn(&'m C) -> Option<&'m Tensor<W>>,
) -> Result<Tensor<S>, EvalError>
where
    S: Weighted<W>,
    W: Copy + 'm,
{
    if !map.inputs.iter().eq(inputs.iter().map(|x| &x.shape)) {
        return Err(inputs_error(map, "the inputs do not have the shapes it declares"));
    }
    let mut results: Vec<Tensor<S>> = Vec::with_capacity(map.ops.len());
    for op in &map.ops {
        let xs = op.operands().into_iter().map(|v| value(map, inputs, &results, v)).collect::<Result<Vec<_>, _>>()?;
        results.push(step(op, &xs, op.constant().and_then(&weights))?);
    }
    match map.output.index().checked_sub(inputs.len()) {
        Some(i) if i + 1 == results.len() => results.pop().ok_or_else(|| undefined(map, map.output)),
        _ => value(map, inputs, &results, map.output).cloned(),
    }
}

/// Applies the adjoint of a linear map to `v`, a tensor of the shape of its result: one tensor for each input, with
/// `<v, L(x)> = sum_i <adjoint_i, x_i>`.
///
/// # Errors
/// [`EvalError`] if `v`, weights or operations do not fit each other.
pub fn adjoint<'m, C, S, W>(
    map: &'m LinearMap<C>,
    v: &Tensor<S>,
    weights: impl Fn(&'m C) -> Option<&'m Tensor<W>>,
) -> Result<Vec<Tensor<S>>, EvalError>
where
    S: Weighted<W>,
    W: Copy + 'm,
{
    let shapes = shapes(map, |c| weights(c).map(|w| &w.shape))?;
    if shapes.get(map.output.index()) != Some(&v.shape) {
        return Err(inputs_error(map, "the tensor does not have the shape of its result"));
    }
    let mut sums: Vec<Option<Tensor<S>>> = shapes.iter().map(|_| None).collect();
    sums[map.output.index()] = Some(v.clone());
    for (i, op) in map.ops.iter().enumerate().rev() {
        let Some(v) = sums[map.inputs.len() + i].take() else { continue };
        let operands = op.operands();
        let xs: Vec<&Shape> = operands.iter().map(|x| &shapes[x.index()]).collect();
        let parts = step_adjoint(op, &v, &xs, op.constant().and_then(&weights))?;
        for (x, part) in operands.iter().zip(parts) {
            match &mut sums[x.index()] {
                Some(sum) => sum.data.iter_mut().zip(&part.data).for_each(|(s, p)| *s = s.add(*p)),
                none => *none = Some(part),
            }
        }
    }
    sums.truncate(map.inputs.len());
    Ok(sums.into_iter().zip(&shapes).map(|(sum, shape)| sum.unwrap_or_else(|| zeros(shape))).collect())
}

/// Shapes of all values of a map: its inputs, then one an operation.
///
/// # Errors
/// [`EvalError`] if an operation reads a value before it is defined or does not accept its operands.
pub fn shapes<'m, C>(
    map: &'m LinearMap<C>,
    shape_of: impl Fn(&'m C) -> Option<&'m Shape>,
) -> Result<Vec<Shape>, EvalError> {
    let mut shapes = map.inputs.clone();
    for op in &map.ops {
        let xs = op
            .operands()
            .into_iter()
            .map(|v| shapes.get(v.index()).ok_or_else(|| undefined(map, v)))
            .collect::<Result<Vec<_>, _>>()?;
        let shape = infer(op, &xs, op.constant().and_then(&shape_of))?;
        shapes.push(shape);
    }
    match shapes.get(map.output.index()) {
        Some(_) => Ok(shapes),
        None => Err(undefined(map, map.output)),
    }
}

/// Multiply-adds of a map: products with weights, padding included; saturates. Sums over windows count none.
///
/// # Errors
/// As [`shapes`].
pub fn mult_adds<'m, C>(
    map: &'m LinearMap<C>,
    shape_of: impl Fn(&'m C) -> Option<&'m Shape>,
) -> Result<u64, EvalError> {
    let shapes = shapes(map, &shape_of)?;
    let mut total = 0u64;
    for (i, op) in map.ops.iter().enumerate() {
        let out = &shapes[map.inputs.len() + i];
        let Some(w) = op.constant().and_then(&shape_of) else { continue };
        let (elements, each) = match op {
            MapOp::Conv { .. } => (out.len(), w.0.iter().skip(1).fold(1usize, |n, d| n.saturating_mul(*d))),
            // Each input element meets the weights of its group once.
            MapOp::ConvTranspose { x, groups, .. } => {
                let taps = w.0.iter().skip(2).fold(1usize, |n, d| n.saturating_mul(*d));
                let outputs = w.0.first().copied().unwrap_or(0) / (*groups).max(1);
                (shapes[x.index()].len(), taps.saturating_mul(outputs))
            }
            MapOp::MatMul { .. } => (out.len(), w.0.last().copied().unwrap_or(0)),
            MapOp::SumPool { .. }
            | MapOp::Add { .. }
            | MapOp::Sub { .. }
            | MapOp::Concat { .. }
            | MapOp::Reshape { .. }
            | MapOp::Transpose { .. }
            | MapOp::PadZero { .. }
            | MapOp::Slice { .. }
            | MapOp::Gather { .. }
            | MapOp::Expand { .. } => (0, 0),
        };
        total = total.saturating_add((elements as u64).saturating_mul(each as u64));
    }
    Ok(total)
}

/// One operation of a map on its operands, in the order of [`MapOp::operands`].
///
/// Operations without weights (`sum-pool`, `add`, and those that only move data) take any `W`, for instance
/// `step::<_, u32, i32>(op, xs, None)`.
///
/// # Errors
/// [`EvalError`] if operands and weights do not fit.
pub fn step<C, S, W>(op: &MapOp<C>, xs: &[&Tensor<S>], w: Option<&Tensor<W>>) -> Result<Tensor<S>, EvalError>
where
    S: Weighted<W>,
    W: Copy,
{
    xs.iter().try_for_each(|x| x.checked())?;
    w.map_or(Ok(()), Tensor::checked)?;
    let shapes: Vec<&Shape> = xs.iter().map(|x| &x.shape).collect();
    let shape = infer(op, &shapes, w.map(|w| &w.shape))?;
    let mut y = zeros::<S>(&shape);
    match (op, xs, w) {
        (MapOp::Conv { groups, .. }, [x], Some(w)) => {
            let windows = windows(op, &x.shape, &shape, &w.shape);
            channel_pairs(&x.shape, &shape, *groups, |xc, yc, wc| {
                windows.gather(
                    part(&x.data, xc, windows.input),
                    part(&w.data, wc, windows.kernel),
                    part_mut(&mut y.data, yc, windows.output),
                );
            });
        }
        (MapOp::ConvTranspose { groups, .. }, [x], Some(w)) => {
            let windows = windows(op, &x.shape, &shape, &w.shape);
            channel_pairs(&x.shape, &shape, *groups, |xc, yc, wc| {
                windows.scatter(
                    part(&x.data, xc, windows.output),
                    part(&w.data, wc, windows.kernel),
                    part_mut(&mut y.data, yc, windows.input),
                );
            });
        }
        (MapOp::MatMul { .. }, [x], Some(w)) => {
            products(&x.shape, &w.shape, |xr, yr, wr, k| {
                let sum = dot(part(&x.data, xr, k), part(&w.data, wr, k));
                y.data[yr] = y.data[yr].add(sum);
            });
        }
        (MapOp::SumPool { kernel, .. }, [x], _) => {
            let windows = windows(op, &x.shape, &shape, &Shape(kernel.clone()));
            pool(&windows, &x.data, &mut y.data);
        }
        (MapOp::Add { .. }, [a, b], _) => zip(&mut y, a, b, S::add),
        (MapOp::Sub { .. }, [a, b], _) => zip(&mut y, a, b, S::sub),
        (MapOp::Reshape { .. }, [x], _) => y.data.copy_from_slice(&x.data),
        (MapOp::Concat { axis, .. }, xs, _) => {
            let mut start = 0;
            for x in xs {
                region(&x.shape, &shape, *axis, start).scatter_add(&x.data, &mut y.data);
                start += x.shape.0.get(*axis).copied().unwrap_or(0);
            }
        }
        (MapOp::PadZero { before, .. }, [x], _) => {
            inside(&x.shape, &shape, before).scatter_add(&x.data, &mut y.data);
        }
        (MapOp::Gather { axis, indices, .. }, [x], _) => {
            blocks(&x.shape, *axis, indices, |from, to, len| {
                y.data[to..to + len].copy_from_slice(&x.data[from..from + len]);
            });
        }
        (MapOp::Transpose { .. } | MapOp::Slice { .. } | MapOp::Expand { .. }, [x], _) => {
            if let Some(walk) = view(op, &x.shape, &shape) {
                walk.gather(&x.data, &mut y.data);
            }
        }
        (op, _, _) => return Err(EvalError::Weights { op: op.name() }),
    }
    Ok(y)
}

/// The adjoint of one operation: `v` has the shape of its result, `xs` are the shapes of its operands; one tensor an
/// operand.
///
/// # Errors
/// [`EvalError`] if `v`, operands and weights do not fit.
pub fn step_adjoint<C, S, W>(
    op: &MapOp<C>,
    v: &Tensor<S>,
    xs: &[&Shape],
    w: Option<&Tensor<W>>,
) -> Result<Vec<Tensor<S>>, EvalError>
where
    S: Weighted<W>,
    W: Copy,
{
    v.checked()?;
    w.map_or(Ok(()), Tensor::checked)?;
    let shape = infer(op, xs, w.map(|w| &w.shape))?;
    if shape != v.shape {
        let reason = format!("{} where its result has shape {shape}", v.shape);
        return Err(EvalError::Shape { op: op.name(), reason });
    }
    let mut us: Vec<Tensor<S>> = xs.iter().map(|x| zeros(x)).collect();
    match (op, us.as_mut_slice(), w) {
        (MapOp::Conv { groups, .. }, [u], Some(w)) => {
            let windows = windows(op, &u.shape, &shape, &w.shape);
            channel_pairs(&u.shape, &shape, *groups, |uc, vc, wc| {
                windows.scatter(
                    part(&v.data, vc, windows.output),
                    part(&w.data, wc, windows.kernel),
                    part_mut(&mut u.data, uc, windows.input),
                );
            });
        }
        (MapOp::ConvTranspose { groups, .. }, [u], Some(w)) => {
            let windows = windows(op, &u.shape, &shape, &w.shape);
            channel_pairs(&u.shape, &shape, *groups, |uc, vc, wc| {
                windows.gather(
                    part(&v.data, vc, windows.input),
                    part(&w.data, wc, windows.kernel),
                    part_mut(&mut u.data, uc, windows.output),
                );
            });
        }
        (MapOp::MatMul { .. }, [u], Some(w)) => {
            products(&u.shape, &w.shape, |ur, vr, wr, k| {
                let s = v.data[vr];
                part_mut(&mut u.data, ur, k)
                    .iter_mut()
                    .zip(part(&w.data, wr, k))
                    .for_each(|(u, w)| *u = u.mul_add(s, *w));
            });
        }
        (MapOp::SumPool { kernel, .. }, [u], _) => {
            let windows = windows(op, &u.shape, &shape, &Shape(kernel.clone()));
            unpool(&windows, &v.data, &mut u.data);
        }
        (MapOp::Add { .. }, [a, b], _) => {
            a.data.copy_from_slice(&v.data);
            b.data.copy_from_slice(&v.data);
        }
        (MapOp::Sub { .. }, [a, b], _) => {
            a.data.copy_from_slice(&v.data);
            b.data.iter_mut().zip(&v.data).for_each(|(b, v)| *b = S::ZERO.sub(*v));
        }
        (MapOp::Reshape { .. }, [u], _) => u.data.copy_from_slice(&v.data),
        (MapOp::Concat { axis, .. }, us, _) => {
            let mut start = 0;
            for u in us {
                region(&u.shape, &shape, *axis, start).gather(&v.data, &mut u.data);
                start += u.shape.0.get(*axis).copied().unwrap_or(0);
            }
        }
        (MapOp::PadZero { before, .. }, [u], _) => inside(&u.shape, &shape, before).gather(&v.data, &mut u.data),
        (MapOp::Gather { axis, indices, .. }, [u], _) => {
            blocks(&u.shape, *axis, indices, |from, to, len| {
                u.data[from..from + len].iter_mut().zip(&v.data[to..to + len]).for_each(|(u, v)| *u = u.add(*v));
            });
        }
        (MapOp::Transpose { .. } | MapOp::Slice { .. } | MapOp::Expand { .. }, [u], _) => {
            if let Some(walk) = view(op, &u.shape, &shape) {
                walk.scatter_add(&v.data, &mut u.data);
            }
        }
        (op, _, _) => return Err(EvalError::Weights { op: op.name() }),
    }
    Ok(us)
}

fn infer<C>(op: &MapOp<C>, xs: &[&Shape], w: Option<&Shape>) -> Result<Shape, EvalError> {
    op.shape(xs, w).map_err(|reason| EvalError::Shape { op: op.name(), reason })
}

fn undefined<C>(map: &LinearMap<C>, value: ValueId) -> EvalError {
    EvalError::Undefined { map: map.name.clone(), value }
}

fn inputs_error<C>(map: &LinearMap<C>, reason: &str) -> EvalError {
    EvalError::Inputs { map: map.name.clone(), reason: reason.into() }
}

fn value<'a, C, S>(
    map: &LinearMap<C>,
    inputs: &'a [Tensor<S>],
    results: &'a [Tensor<S>],
    v: ValueId,
) -> Result<&'a Tensor<S>, EvalError> {
    inputs.iter().chain(results).nth(v.index()).ok_or_else(|| undefined(map, v))
}

fn zeros<S: Scalar>(shape: &Shape) -> Tensor<S> {
    Tensor { shape: shape.clone(), data: vec![S::ZERO; shape.len()] }
}

fn part<T>(data: &[T], i: usize, len: usize) -> &[T] {
    &data[i * len..(i + 1) * len]
}

fn part_mut<T>(data: &mut [T], i: usize, len: usize) -> &mut [T] {
    &mut data[i * len..(i + 1) * len]
}

/// Sums over windows, channel by channel.
fn pool<S: Scalar>(windows: &Windows, x: &[S], y: &mut [S]) {
    let ones = vec![One; windows.kernel];
    let channels = x.chunks(windows.input.max(1)).zip(y.chunks_mut(windows.output.max(1)));
    channels.for_each(|(x, y)| windows.gather(x, &ones, y));
}

/// The adjoint of [`pool`].
fn unpool<S: Scalar>(windows: &Windows, v: &[S], u: &mut [S]) {
    let ones = vec![One; windows.kernel];
    let channels = u.chunks_mut(windows.input.max(1)).zip(v.chunks(windows.output.max(1)));
    channels.for_each(|(u, v)| windows.scatter(v, &ones, u));
}

fn zip<S: Scalar>(y: &mut Tensor<S>, a: &Tensor<S>, b: &Tensor<S>, f: impl Fn(S, S) -> S) {
    y.data.iter_mut().zip(a.data.iter().zip(&b.data)).for_each(|(y, (a, b))| *y = f(*a, *b));
}

/// Eight partial sums, so that the products do not wait for each other.
fn dot<S: Weighted<W>, W: Copy>(x: &[S], w: &[W]) -> S {
    let (xs, x_rest) = x.as_chunks::<8>();
    let (ws, w_rest) = w.as_chunks::<8>();
    let mut sums = [S::ZERO; 8];
    for (x, w) in xs.iter().zip(ws) {
        for (s, (x, w)) in sums.iter_mut().zip(x.iter().zip(w)) {
            *s = s.mul_add(*x, *w);
        }
    }
    let whole = sums.into_iter().fold(S::ZERO, S::add);
    x_rest.iter().zip(w_rest).fold(whole, |s, (x, w)| s.mul_add(*x, *w))
}

/// The windows of a convolution, its transpose (with input and output exchanged) or a pooling.
pub(super) fn windows<C>(op: &MapOp<C>, x: &Shape, y: &Shape, kernel: &Shape) -> Windows {
    let (strides, dilations, before, input, output) = match op {
        MapOp::Conv { strides, dilations, pads_before, .. }
        | MapOp::SumPool { strides, dilations, pads_before, .. } => (strides, dilations, pads_before, x, y),
        MapOp::ConvTranspose { strides, dilations, pads_before, .. } => (strides, dilations, pads_before, y, x),
        _ => return Windows::new(&[]),
    };
    // The last axes of the kernel are the spatial ones, whether it has channels in front or not.
    let lead = kernel.rank().saturating_sub(strides.len());
    let axes: Vec<Axis> = (0..strides.len())
        .map(|a| Axis {
            input: input.0[a + 2],
            output: output.0[a + 2],
            kernel: kernel.0[a + lead],
            stride: strides[a],
            dilation: dilations[a],
            before: before[a],
        })
        .collect();
    Windows::new(&axes)
}

/// Calls `f(input channel, output channel, weight channel)` for all pairs that meet, batch included in the first two.
fn channel_pairs(x: &Shape, y: &Shape, groups: usize, mut f: impl FnMut(usize, usize, usize)) {
    let (batch, inputs, outputs) = (y.0[0], x.0[1], y.0[1]);
    let (inputs_each, outputs_each) = (inputs / groups, outputs / groups);
    for n in 0..batch {
        for o in 0..outputs {
            for c in 0..inputs_each {
                f(n * inputs + o / outputs_each * inputs_each + c, n * outputs + o, o * inputs_each + c);
            }
        }
    }
}

/// Calls `f(row of x, element of y, row of w, k)` for every output element of a matrix product, weights outermost.
fn products(x: &Shape, w: &Shape, mut f: impl FnMut(usize, usize, usize, usize)) {
    let (n, k) = (w.0[w.rank() - 2], w.0[w.rank() - 1]);
    let lead = &w.0[..w.rank() - 2];
    // Rows that share weights: all of them without batch axes, else the axis before the last.
    let (blocks, rows) = match lead {
        [] => (vec![0], x.0[..x.rank() - 1].iter().product()),
        _ => {
            let strides = broadcast(lead, &x.0[..lead.len()]).unwrap_or_default();
            let count = x.0[..lead.len()].iter().product();
            let numbers: Vec<usize> = (0..lead.iter().product()).collect();
            let mut blocks = vec![0; count];
            Walk::new(&x.0[..lead.len()], &strides, 0).gather(&numbers, &mut blocks);
            (blocks, x.0[lead.len()])
        }
    };
    for (b, block) in blocks.into_iter().enumerate() {
        for j in 0..n {
            for m in b * rows..(b + 1) * rows {
                f(m, m * n + j, block * n + j, k);
            }
        }
    }
}

/// Where a part of a concatenation lies in the whole.
fn region(part: &Shape, whole: &Shape, axis: usize, start: usize) -> Walk {
    let strides = whole.strides();
    Walk::new(&part.0, &strides, start * strides.get(axis).copied().unwrap_or(0))
}

/// Where a tensor lies in its padded form.
fn inside(x: &Shape, padded: &Shape, before: &[usize]) -> Walk {
    let strides = padded.strides();
    Walk::new(&x.0, &strides, strides.iter().zip(before).map(|(s, b)| s * b).sum())
}

/// How the result of a transpose, slice or expand reads its operand; `None` for other operations.
fn view<C>(op: &MapOp<C>, x: &Shape, y: &Shape) -> Option<Walk> {
    let strides = x.strides();
    match op {
        MapOp::Transpose { perm, .. } => {
            let strides: Vec<usize> = perm.iter().map(|a| strides[*a]).collect();
            Some(Walk::new(&y.0, &strides, 0))
        }
        MapOp::Slice { starts, steps, .. } => {
            let base = strides.iter().zip(starts).map(|(s, b)| s * b).sum();
            let strides: Vec<usize> = strides.iter().zip(steps).map(|(s, t)| s.saturating_mul(*t)).collect();
            Some(Walk::new(&y.0, &strides, base))
        }
        MapOp::Expand { .. } => Some(Walk::new(&y.0, &broadcast(&x.0, &y.0)?, 0)),
        _ => None,
    }
}

/// Calls `f(offset in x, offset in the result, length)` for each block a gather copies.
fn blocks(x: &Shape, axis: usize, indices: &[usize], mut f: impl FnMut(usize, usize, usize)) {
    let outer: usize = x.0[..axis].iter().product();
    let inner: usize = x.0[axis + 1..].iter().product();
    let mut to = 0;
    for o in 0..outer {
        for i in indices {
            f((o * x.0[axis] + i) * inner, to, inner);
            to += inner;
        }
    }
}
