//! Operators that join elements: pooling, means, normalisation, softmax.

use pponnx_kernels::{LrnSpec, PoolSpec};

use super::super::graph::{Kind, Make, Rewrite, View};
use super::super::proto::Node;
use super::{Builder, axis};

/// Geometry of a pooling node over `[N, C, H, W]`, its result, and where padding ends.
struct Window {
    x: View,
    spec: PoolSpec,
    padded: [usize; 2],
    shape: Vec<usize>,
}

/// A list of two numbers, or `default` twice.
fn pair(node: &Node, name: &str, default: usize) -> Option<[usize; 2]> {
    match node.ints(name) {
        None => Some([default; 2]),
        Some(list) => {
            let list = list.iter().map(|v| usize::try_from(*v).ok()).collect::<Option<Vec<usize>>>()?;
            list.try_into().ok()
        }
    }
}

fn window(b: &Builder, node: &Node) -> Option<Window> {
    let x = b.view(node, 0)?;
    let [n, c, height, width]: [usize; 4] = x.shape.as_slice().try_into().ok()?;
    let input = [height, width];
    let kernel = pair(node, "kernel_shape", 0)?;
    let strides = pair(node, "strides", 1)?;
    if pair(node, "dilations", 1)? != [1, 1] || kernel.contains(&0) || strides.contains(&0) {
        return None;
    }
    let pads = match node.ints("pads") {
        None => [0; 4],
        Some(pads) => {
            let pads = pads.iter().map(|v| usize::try_from(*v).ok()).collect::<Option<Vec<usize>>>()?;
            pads.try_into().ok()?
        }
    };
    let ceil = node.int("ceil_mode").unwrap_or(0) != 0;
    let (mut begin, mut padded, mut output) = ([0; 2], [0; 2], [0; 2]);
    for i in 0..2 {
        match node.text("auto_pad").unwrap_or(b"NOTSET") {
            b"NOTSET" => {
                begin[i] = pads[i];
                padded[i] = input[i].checked_add(pads[i])?.checked_add(pads[i + 2])?;
                let steps = padded[i].checked_sub(kernel[i])?;
                let steps = if ceil { steps.div_ceil(strides[i]) } else { steps / strides[i] };
                output[i] = steps.checked_add(1)?;
                // A window that would begin behind the input and the padding before it is left out.
                if ceil && steps.checked_mul(strides[i])? >= input[i].checked_add(begin[i])? {
                    output[i] -= 1;
                }
            }
            same @ (b"SAME_UPPER" | b"SAME_LOWER") if !ceil => {
                output[i] = input[i].div_ceil(strides[i]);
                let covered = (output[i] - 1).checked_mul(strides[i])?.checked_add(kernel[i])?;
                let pad = covered.saturating_sub(input[i]);
                begin[i] = if same == b"SAME_UPPER" { pad / 2 } else { pad.div_ceil(2) };
                padded[i] = input[i].checked_add(pad)?;
            }
            _ => return None,
        }
    }
    let spec = PoolSpec { input, output, kernel, strides, begin };
    spec.validate().ok()?;
    Some(Window { x, spec, padded, shape: vec![n, c, output[0], output[1]] })
}

pub fn max_pool(b: &mut Builder, node: &Node) -> Option<()> {
    node.only(&["kernel_shape", "strides", "pads", "dilations", "ceil_mode", "auto_pad", "storage_order"])?;
    let w = window(b, node)?;
    b.push(node, Kind::Make(Make::MaxPool(w.spec)), vec![w.x.buf], w.shape)
}

pub fn average_pool(b: &mut Builder, node: &Node) -> Option<()> {
    node.only(&["kernel_shape", "strides", "pads", "dilations", "ceil_mode", "auto_pad", "count_include_pad"])?;
    let w = window(b, node)?;
    let counts = node.int("count_include_pad").unwrap_or(0) != 0;
    // What counts in windows that stick out is not agreed on.
    if counts && node.int("ceil_mode").unwrap_or(0) != 0 {
        return None;
    }
    b.push(node, Kind::Make(Make::AveragePool(w.spec, counts.then_some(w.padded))), vec![w.x.buf], w.shape)
}

/// The mean over the last axes, from `first` on.
fn means(b: &mut Builder, node: &Node, x: View, first: usize, keep: bool) -> Option<()> {
    let (outer, inner) = x.shape.split_at_checked(first)?;
    let mut shape = outer.to_vec();
    shape.extend(inner.iter().filter(|_| keep).map(|_| 1));
    let row = inner.iter().product();
    b.push(node, Kind::Make(Make::Means(row)), vec![x.buf], shape)
}

pub fn global_average_pool(b: &mut Builder, node: &Node) -> Option<()> {
    node.only(&[])?;
    let x = b.view(node, 0)?;
    means(b, node, x, 2, true)
}

pub fn reduce_mean(b: &mut Builder, node: &Node) -> Option<()> {
    let x = b.view(node, 0)?;
    let axes = if node.opset >= 18 {
        node.only(&["keepdims"])?;
        b.ints(node, 1)?
    } else {
        node.only(&["axes", "keepdims"])?;
        node.ints("axes").map(<[i64]>::to_vec)
    };
    let axes = axes?.into_iter().map(|a| axis(a, x.shape.len())).collect::<Option<Vec<usize>>>()?;
    let first = x.shape.len().checked_sub(axes.len())?;
    if !(first..x.shape.len()).all(|i| axes.contains(&i)) {
        return None;
    }
    means(b, node, x, first, node.int("keepdims").unwrap_or(1) != 0)
}

pub fn lrn(b: &mut Builder, node: &Node) -> Option<()> {
    node.only(&["alpha", "beta", "bias", "size"])?;
    let x = b.view(node, 0)?;
    let (_, spatial) = x.shape.split_at_checked(2)?;
    let spec = LrnSpec {
        channels: *x.shape.get(1)?,
        pixels: spatial.iter().product(),
        size: usize::try_from(node.int("size")?).ok()?,
        alpha: node.float("alpha").unwrap_or(0.0001),
        beta: node.float("beta").unwrap_or(0.75),
        bias: node.float("bias").unwrap_or(1.0),
    };
    spec.validate().ok()?;
    b.push(node, Kind::Rewrite(Rewrite::Lrn(spec)), vec![x.buf], x.shape)
}

pub fn softmax(b: &mut Builder, node: &Node) -> Option<()> {
    node.only(&["axis"])?;
    let x = b.view(node, 0)?;
    let rank = x.shape.len();
    let at = axis(node.int("axis").unwrap_or(if node.opset < 13 { 1 } else { -1 }), rank)?;
    let (_, inner) = x.shape.split_at_checked(at)?;
    let (first, rest) = inner.split_first()?;
    // Before opset 13 all axes from this one on are one row; since then it is this axis alone.
    let row = if node.opset < 13 { inner.iter().product() } else { *first };
    if node.opset >= 13 && rest.iter().any(|d| *d != 1) {
        return None;
    }
    b.push(node, Kind::Rewrite(Rewrite::Softmax(row)), vec![x.buf], x.shape)
}
