//! Operators that move elements: joining, splitting, picking, another order of axes.

use super::super::graph::{Kind, Make, Permute, Pick, View};
use super::super::proto::{Constant, Node};
use super::{Builder, Value, axis};

pub fn concat(b: &mut Builder, node: &Node) -> Option<()> {
    node.only(&["axis"])?;
    let views = (0..node.inputs()).map(|i| b.view(node, i)).collect::<Option<Vec<View>>>()?;
    let mut shape = views.first()?.shape.clone();
    let at = axis(node.int("axis")?, shape.len())?;
    let mut total = 0usize;
    for view in &views {
        total = total.checked_add(*view.shape.get(at)?)?;
        let alike = |(i, (a, b)): (usize, (&usize, &usize))| i == at || a == b;
        if view.shape.len() != shape.len() || !view.shape.iter().zip(&shape).enumerate().all(alike) {
            return None;
        }
    }
    *shape.get_mut(at)? = total;
    let blocks = views.iter().map(|v| v.shape.iter().skip(at).product()).collect();
    b.push(node, Kind::Concat(blocks), views.into_iter().map(|v| v.buf).collect(), shape)
}

/// Picks along an axis; `shape` is that of the result.
fn pick(b: &mut Builder, name: &str, x: &View, at: usize, indices: Vec<usize>, shape: Vec<usize>) -> Option<()> {
    let len = *x.shape.get(at)?;
    if indices.iter().any(|i| *i >= len) {
        return None;
    }
    let inner = x.shape.iter().skip(at + 1).product();
    b.push_as(name, Kind::Make(Make::Pick(Pick { len, inner, indices })), vec![x.buf], shape)
}

pub fn gather(b: &mut Builder, node: &Node) -> Option<()> {
    node.only(&["axis"])?;
    let x = b.view(node, 0)?;
    let at = axis(node.int("axis").unwrap_or(0), x.shape.len())?;
    let Value::Constant(Constant::Int(chosen, indices)) = b.value(node, 1)? else { return None };
    let len = *x.shape.get(at)?;
    let indices = indices.iter().map(|i| axis(*i, len)).collect::<Option<Vec<usize>>>()?;
    let mut shape = x.shape.clone();
    shape.splice(at..=at, chosen.iter().copied());
    let name = super::only_output(node)?;
    pick(b, name, &x, at, indices, shape)
}

pub fn slice(b: &mut Builder, node: &Node) -> Option<()> {
    let x = b.view(node, 0)?;
    let (starts, ends, axes, steps) = if node.opset < 10 {
        node.only(&["starts", "ends", "axes"])?;
        let list = |name| node.ints(name).map(<[i64]>::to_vec);
        (list("starts")?, list("ends")?, list("axes"), None)
    } else {
        node.only(&[])?;
        (b.ints(node, 1)??, b.ints(node, 2)??, b.ints(node, 3)?, b.ints(node, 4)?)
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    // One axis: more would need names for what lies between.
    let ([start], [end], [at], [step]) = (starts.as_slice(), ends.as_slice(), axes.as_slice(), steps.as_slice()) else {
        return None;
    };
    let at = axis(*at, x.shape.len())?;
    let len = i64::try_from(*x.shape.get(at)?).ok()?;
    let place = |i: i64| (if i < 0 { i.saturating_add(len) } else { i }).clamp(0, len) as usize;
    let step = usize::try_from(*step).ok().filter(|s| *s > 0)?;
    let indices: Vec<usize> = (place(*start)..place(*end)).step_by(step).collect();
    let mut shape = x.shape.clone();
    *shape.get_mut(at)? = indices.len();
    let name = super::only_output(node)?;
    pick(b, name, &x, at, indices, shape)
}

pub fn split(b: &mut Builder, node: &Node) -> Option<()> {
    let x = b.view(node, 0)?;
    let sizes = if node.opset >= 13 {
        node.only(&["axis"])?;
        b.ints(node, 1)?
    } else {
        node.only(&["axis", "split"])?;
        node.ints("split").map(<[i64]>::to_vec)
    };
    let at = axis(node.int("axis").unwrap_or(0), x.shape.len())?;
    let len = *x.shape.get(at)?;
    let parts = node.outputs().len();
    if parts == 0 {
        return None;
    }
    let sizes = match sizes {
        Some(sizes) => sizes.into_iter().map(|s| usize::try_from(s).ok()).collect::<Option<Vec<usize>>>()?,
        None if len % parts == 0 => vec![len / parts; parts],
        None => return None,
    };
    if sizes.len() != parts || sizes.iter().try_fold(0usize, |sum, s| sum.checked_add(*s))? != len {
        return None;
    }
    let mut first = 0;
    for (name, size) in node.outputs().iter().zip(sizes) {
        let mut shape = x.shape.clone();
        *shape.get_mut(at)? = size;
        if !name.is_empty() {
            pick(b, name, &x, at, (first..first + size).collect(), shape)?;
        }
        first += size;
    }
    Some(())
}

pub fn transpose(b: &mut Builder, node: &Node) -> Option<()> {
    node.only(&["perm"])?;
    let x = b.view(node, 0)?;
    let rank = x.shape.len();
    let perm = match node.ints("perm") {
        Some(perm) => perm.iter().map(|p| usize::try_from(*p).ok()).collect::<Option<Vec<usize>>>()?,
        None => (0..rank).rev().collect(),
    };
    if perm.len() != rank || !(0..rank).all(|i| perm.contains(&i)) {
        return None;
    }
    let step = |i: usize| x.shape.iter().skip(i + 1).product::<usize>();
    let sizes: Vec<usize> = perm.iter().filter_map(|p| x.shape.get(*p).copied()).collect();
    // Axes of one element move nothing, and axes that stay together are one.
    let (mut merged, mut strides): (Vec<usize>, Vec<usize>) = (vec![], vec![]);
    for (size, stride) in sizes.iter().zip(perm.iter().map(|p| step(*p))).filter(|(size, _)| **size != 1) {
        match (merged.last_mut(), strides.last_mut()) {
            (Some(last), Some(before)) if *before == stride * size => {
                *last *= size;
                *before = stride;
            }
            _ => {
                merged.push(*size);
                strides.push(stride);
            }
        }
    }
    if strides.iter().all(|s| *s == 1) {
        return b.same(node, x.buf, sizes);
    }
    b.push(node, Kind::Make(Make::Permute(Permute { sizes: merged, strides })), vec![x.buf], sizes)
}
