//! Operators that compute nothing: other names and other shapes of a buffer.

use super::super::proto::{Constant, Node};
use super::{Builder, Value, axis, elements, only_output};

pub fn constant(b: &mut Builder, node: &Node) -> Option<()> {
    node.only(&["value", "value_float", "value_floats", "value_int", "value_ints"])?;
    let constant = match (node.float("value_float"), node.int("value_int"), node.ints("value_ints")) {
        (Some(v), None, None) => Constant::Float(vec![], vec![v]),
        (None, Some(v), None) => Constant::Int(vec![], vec![v]),
        (None, None, Some(v)) => Constant::Int(vec![v.len()], v.to_vec()),
        (None, None, None) => node.tensor("value")?,
        _ => return None,
    };
    b.bind(only_output(node)?, Value::Constant(constant))
}

pub fn identity(b: &mut Builder, node: &Node) -> Option<()> {
    node.only(&[])?;
    let value = b.value(node, 0)?.clone();
    b.bind(only_output(node)?, value)
}

/// Nothing, outside of training.
pub fn dropout(b: &mut Builder, node: &Node) -> Option<()> {
    node.only(&["ratio", "seed"])?;
    if node.opset < 7 || node.inputs() > 2 {
        return None;
    }
    let x = b.view(node, 0)?;
    b.same(node, x.buf, x.shape)
}

pub fn flatten(b: &mut Builder, node: &Node) -> Option<()> {
    node.only(&["axis"])?;
    let x = b.view(node, 0)?;
    let at = node.int("axis").unwrap_or(1);
    let at = if at == x.shape.len() as i64 { x.shape.len() } else { axis(at, x.shape.len())? };
    let (outer, inner) = x.shape.split_at(at);
    b.same(node, x.buf, vec![outer.iter().product(), inner.iter().product()])
}

pub fn reshape(b: &mut Builder, node: &Node) -> Option<()> {
    node.only(&["allowzero"])?;
    if node.opset < 5 || node.int("allowzero").unwrap_or(0) != 0 {
        return None;
    }
    let x = b.view(node, 0)?;
    let wanted = b.ints(node, 1)??;
    let mut shape = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (i, d) in wanted.iter().enumerate() {
        shape.push(match d {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 => *x.shape.get(i)?,
            d => usize::try_from(*d).ok()?,
        });
    }
    if let Some(open) = open {
        let (all, rest) = (elements(&x.shape)?, elements(&shape)?);
        if all % rest != 0 {
            return None;
        }
        *shape.get_mut(open)? = all / rest;
    }
    b.same(node, x.buf, shape)
}

/// Axes as an attribute, or from opset 13 on as an input.
fn axes(b: &Builder, node: &Node) -> Option<Option<Vec<i64>>> {
    if node.opset >= 13 {
        node.only(&[])?;
        b.ints(node, 1)
    } else {
        node.only(&["axes"])?;
        Some(node.ints("axes").map(<[i64]>::to_vec))
    }
}

pub fn squeeze(b: &mut Builder, node: &Node) -> Option<()> {
    let x = b.view(node, 0)?;
    let drop = match axes(b, node)? {
        Some(axes) => axes.into_iter().map(|a| axis(a, x.shape.len())).collect::<Option<Vec<usize>>>()?,
        None => (0..x.shape.len()).filter(|i| x.shape.get(*i) == Some(&1)).collect(),
    };
    if drop.iter().any(|i| x.shape.get(*i) != Some(&1)) {
        return None;
    }
    let kept = x.shape.iter().enumerate().filter(|(i, _)| !drop.contains(i));
    let shape = kept.map(|(_, d)| *d).collect();
    b.same(node, x.buf, shape)
}

pub fn unsqueeze(b: &mut Builder, node: &Node) -> Option<()> {
    let axes = axes(b, node)??;
    let x = b.view(node, 0)?;
    let rank = x.shape.len() + axes.len();
    let new = axes.into_iter().map(|a| axis(a, rank)).collect::<Option<Vec<usize>>>()?;
    let mut old = x.shape.iter();
    let shape = (0..rank).map(|i| if new.contains(&i) { Some(1) } else { old.next().copied() });
    let shape = shape.collect::<Option<Vec<usize>>>()?;
    b.same(node, x.buf, shape)
}
