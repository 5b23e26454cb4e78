//! Shape rules of map operations.

use crate::map::MapOp;
use crate::value::Shape;

/// Size of one axis of a convolution or pooling result.
fn window(d: usize, k: usize, stride: usize, dilation: usize, before: usize, after: usize) -> Result<usize, String> {
    if k == 0 || stride == 0 || dilation == 0 {
        return Err("kernel, stride and dilation must be at least 1".into());
    }
    let span = (k - 1).checked_mul(dilation).and_then(|s| s.checked_add(1)).ok_or("window too large")?;
    let padded = d.checked_add(before).and_then(|d| d.checked_add(after)).ok_or("padding too large")?;
    if span > padded {
        return Err(format!("a window of {span} does not fit an axis of {padded}"));
    }
    Ok((padded - span) / stride + 1)
}

fn same_rank(n: usize, lists: &[&[usize]]) -> Result<(), String> {
    match lists.iter().find(|l| l.len() != n) {
        Some(l) => Err(format!("{} entries where {n} axes need one each", l.len())),
        None => Ok(()),
    }
}

fn operand<'a>(xs: &[&'a Shape], i: usize) -> Result<&'a Shape, String> {
    xs.get(i).copied().ok_or_else(|| format!("operand {i} is missing"))
}

/// Infers the shape of an operation's result; see [`MapOp::shape`].
pub(crate) fn infer<C>(op: &MapOp<C>, xs: &[&Shape], w: Option<&Shape>) -> Result<Shape, String> {
    let w = || w.ok_or_else(|| "the weights are missing".to_string());
    let out = match op {
        MapOp::Conv { strides, dilations, pads_before, pads_after, groups, .. } => {
            let (x, w) = (operand(xs, 0)?, w()?);
            let n = spatial(x, w, *groups)?;
            same_rank(n, &[strides, dilations, pads_before, pads_after])?;
            let mut out = vec![x.0[0], w.0[0]];
            for a in 0..n {
                out.push(window(x.0[a + 2], w.0[a + 2], strides[a], dilations[a], pads_before[a], pads_after[a])?);
            }
            out
        }
        MapOp::ConvTranspose { strides, dilations, pads_before, pads_after, output_padding, groups, .. } => {
            let (x, w) = (operand(xs, 0)?, w()?);
            let n = spatial(x, w, *groups)?;
            same_rank(n, &[strides, dilations, pads_before, pads_after, output_padding])?;
            let mut out = vec![x.0[0], w.0[0]];
            for a in 0..n {
                let (d, k) = (x.0[a + 2], w.0[a + 2]);
                if d == 0 || k == 0 || strides[a] == 0 || dilations[a] == 0 {
                    return Err("axes, kernel, stride and dilation must be at least 1".into());
                }
                let full = (d - 1)
                    .checked_mul(strides[a])
                    .zip((k - 1).checked_mul(dilations[a]))
                    .and_then(|(s, r)| s.checked_add(r)?.checked_add(1)?.checked_add(output_padding[a]))
                    .ok_or("result too large")?;
                let cut = pads_before[a].checked_add(pads_after[a]).ok_or("padding too large")?;
                out.push(full.checked_sub(cut).ok_or("padding crops more than there is")?);
            }
            out
        }
        MapOp::MatMul { .. } => {
            let (x, w) = (operand(xs, 0)?, w()?);
            if x.rank() < 1 || w.rank() < 2 {
                return Err(format!("matmul of {x} with weights {w}"));
            }
            let (n, k) = (w.0[w.rank() - 2], w.0[w.rank() - 1]);
            if x.0[x.rank() - 1] != k {
                return Err(format!("matmul of {x} with weights {w}: inner sizes differ"));
            }
            let batch = &w.0[..w.rank() - 2];
            let fits =
                batch.is_empty() || (x.rank() == w.rank() && batch.iter().zip(&x.0).all(|(b, d)| *b == *d || *b == 1));
            if !fits {
                return Err(format!("matmul of {x} with weights {w}: leading axes differ"));
            }
            let mut out = x.0.clone();
            out[x.rank() - 1] = n;
            out
        }
        MapOp::SumPool { kernel, strides, dilations, pads_before, pads_after, .. } => {
            let x = operand(xs, 0)?;
            let n = x.rank().checked_sub(2).ok_or("pooling needs a batch and a channel axis")?;
            same_rank(n, &[kernel, strides, dilations, pads_before, pads_after])?;
            let mut out = x.0[..2].to_vec();
            for a in 0..n {
                out.push(window(x.0[a + 2], kernel[a], strides[a], dilations[a], pads_before[a], pads_after[a])?);
            }
            out
        }
        MapOp::Add { .. } | MapOp::Sub { .. } => {
            let (a, b) = (operand(xs, 0)?, operand(xs, 1)?);
            if a != b {
                return Err(format!("operands {a} and {b} differ"));
            }
            a.0.clone()
        }
        MapOp::Concat { axis, .. } => {
            let mut out = operand(xs, 0)?.0.clone();
            if *axis >= out.len() {
                return Err(format!("axis {axis} of a tensor of rank {}", out.len()));
            }
            for x in &xs[1..] {
                let alike = x.rank() == out.len() && (0..out.len()).all(|a| a == *axis || x.0[a] == out[a]);
                if !alike {
                    return Err(format!("{x} does not fit beside {}", Shape(out)));
                }
                out[*axis] = out[*axis].checked_add(x.0[*axis]).ok_or("result too large")?;
            }
            out
        }
        MapOp::Reshape { shape, .. } => {
            let x = operand(xs, 0)?;
            let out = Shape(shape.clone());
            if x.checked_len().is_none() || x.checked_len() != out.checked_len() {
                return Err(format!("{x} and {out} differ in size"));
            }
            out.0
        }
        MapOp::Transpose { perm, .. } => {
            let x = operand(xs, 0)?;
            let mut seen = perm.clone();
            seen.sort_unstable();
            if !seen.iter().copied().eq(0..x.rank()) {
                return Err(format!("{perm:?} is no permutation of {} axes", x.rank()));
            }
            perm.iter().map(|a| x.0[*a]).collect()
        }
        MapOp::PadZero { before, after, .. } => {
            let x = operand(xs, 0)?;
            same_rank(x.rank(), &[before, after])?;
            let pad = |a: usize| x.0[a].checked_add(before[a])?.checked_add(after[a]);
            (0..x.rank()).map(pad).collect::<Option<Vec<_>>>().ok_or("padding too large")?
        }
        MapOp::Slice { starts, steps, lens, .. } => {
            let x = operand(xs, 0)?;
            same_rank(x.rank(), &[starts, steps, lens])?;
            for a in 0..x.rank() {
                let last = lens[a].saturating_sub(1).checked_mul(steps[a]).and_then(|s| s.checked_add(starts[a]));
                let inside = lens[a] == 0 || last.is_some_and(|l| l < x.0[a]);
                if steps[a] == 0 || !inside {
                    return Err(format!("slice of axis {a} leaves {x}"));
                }
            }
            lens.clone()
        }
        MapOp::Gather { axis, indices, .. } => {
            let mut out = operand(xs, 0)?.0.clone();
            let d = *out.get(*axis).ok_or("gather axis out of range")?;
            if indices.iter().any(|i| *i >= d) {
                return Err(format!("gather index beyond {d}"));
            }
            out[*axis] = indices.len();
            out
        }
        MapOp::Expand { shape, .. } => {
            let x = operand(xs, 0)?;
            let fits = x.rank() == shape.len() && x.0.iter().zip(shape).all(|(d, s)| d == s || *d == 1);
            if !fits {
                return Err(format!("{x} does not expand to {}", Shape(shape.clone())));
            }
            shape.clone()
        }
    };
    let out = Shape(out);
    out.checked_len().filter(|n| *n > 0).ok_or_else(|| format!("result of shape {out}"))?;
    Ok(out)
}

/// Number of spatial axes of a convolution, after checking ranks, channels and groups.
fn spatial(x: &Shape, w: &Shape, groups: usize) -> Result<usize, String> {
    if x.rank() < 3 || w.rank() != x.rank() {
        return Err(format!("convolution of {x} with weights {w}"));
    }
    let channels = w.0[1].checked_mul(groups);
    if groups == 0 || channels != Some(x.0[1]) || !w.0[0].is_multiple_of(groups) {
        return Err(format!("convolution of {x} with weights {w} in {groups} groups"));
    }
    Ok(x.rank() - 2)
}
