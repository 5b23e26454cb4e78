//! Functions of each element, alone or with another.

use std::sync::Arc;

use pponnx_kernels::{Binary, Unary};

use super::super::graph::{Kind, Layout, Operand, Post, View, swapped};
use super::super::proto::{Constant, Node};
use super::{Builder, Value};

fn unary(b: &mut Builder, node: &Node, attributes: &[&str], f: Unary) -> Option<()> {
    node.only(attributes)?;
    if node.inputs() != 1 {
        return None;
    }
    map(b, node, f)
}

fn map(b: &mut Builder, node: &Node, f: Unary) -> Option<()> {
    let x = b.view(node, 0)?;
    b.push(node, Kind::Map(Post::Unary(f)), vec![x.buf], x.shape)
}

pub fn relu(b: &mut Builder, node: &Node) -> Option<()> {
    unary(b, node, &[], Unary::Clip { low: 0.0, high: f32::INFINITY })
}

pub fn leaky_relu(b: &mut Builder, node: &Node) -> Option<()> {
    unary(b, node, &["alpha"], Unary::Leaky { slope: node.float("alpha").unwrap_or(0.01) })
}

pub fn hard_sigmoid(b: &mut Builder, node: &Node) -> Option<()> {
    let (slope, offset) = (node.float("alpha").unwrap_or(0.2), node.float("beta").unwrap_or(0.5));
    unary(b, node, &["alpha", "beta"], Unary::HardSigmoid { slope, offset })
}

pub fn hard_swish(b: &mut Builder, node: &Node) -> Option<()> {
    unary(b, node, &[], Unary::HardSwish)
}

pub fn sigmoid(b: &mut Builder, node: &Node) -> Option<()> {
    unary(b, node, &[], Unary::Sigmoid)
}

pub fn exp(b: &mut Builder, node: &Node) -> Option<()> {
    unary(b, node, &[], Unary::Exp)
}

pub fn neg(b: &mut Builder, node: &Node) -> Option<()> {
    unary(b, node, &[], Unary::Neg)
}

pub fn abs(b: &mut Builder, node: &Node) -> Option<()> {
    unary(b, node, &[], Unary::Abs)
}

pub fn clip(b: &mut Builder, node: &Node) -> Option<()> {
    let (low, high) = if node.opset < 11 {
        node.only(&["min", "max"])?;
        (node.float("min"), node.float("max"))
    } else {
        node.only(&[])?;
        (b.number(node, 1)?, b.number(node, 2)?)
    };
    let (low, high) = (low.unwrap_or(f32::NEG_INFINITY), high.unwrap_or(f32::INFINITY));
    if low.is_nan() || high.is_nan() {
        return None;
    }
    map(b, node, Unary::Clip { low, high })
}

pub fn add(b: &mut Builder, node: &Node) -> Option<()> {
    binary(b, node, Binary::Add)
}

pub fn sub(b: &mut Builder, node: &Node) -> Option<()> {
    binary(b, node, Binary::Sub)
}

pub fn mul(b: &mut Builder, node: &Node) -> Option<()> {
    binary(b, node, Binary::Mul)
}

pub fn div(b: &mut Builder, node: &Node) -> Option<()> {
    binary(b, node, Binary::Div)
}

pub fn max(b: &mut Builder, node: &Node) -> Option<()> {
    binary(b, node, Binary::Max)
}

pub fn min(b: &mut Builder, node: &Node) -> Option<()> {
    binary(b, node, Binary::Min)
}

pub fn prelu(b: &mut Builder, node: &Node) -> Option<()> {
    // A slope may be of lower rank than what it scales, never of higher.
    binary(b, node, Binary::Slope)
}

/// A function of two tensors of which one, seen in the shape of the other, repeats regularly.
fn binary(b: &mut Builder, node: &Node, f: Binary) -> Option<()> {
    node.only(&[])?;
    // Older operators broadcast otherwise.
    if node.opset < 7 || node.inputs() != 2 {
        return None;
    }
    match (b.value(node, 0)?.clone(), b.value(node, 1)?.clone()) {
        (Value::View(x), Value::View(y)) => {
            let with = |y: &View| Operand::Buf(y.buf);
            match (layout(&x.shape, &y.shape), swapped(f)) {
                (Some(layout), _) => joined(b, node, x, f, with(&y), layout),
                (None, Some(f)) => {
                    let layout = layout(&y.shape, &x.shape)?;
                    joined(b, node, y, f, with(&x), layout)
                }
                (None, None) => None,
            }
        }
        (Value::View(x), Value::Constant(Constant::Float(shape, data))) => {
            let layout = layout(&x.shape, &shape)?;
            joined(b, node, x, f, fixed(data), layout)
        }
        (Value::Constant(Constant::Float(shape, data)), Value::View(y)) => {
            let layout = layout(&y.shape, &shape)?;
            joined(b, node, y, swapped(f)?, fixed(data), layout)
        }
        (Value::Constant(_), _) | (_, Value::Constant(_)) => None,
    }
}

fn fixed(data: Vec<f32>) -> Operand {
    match data.as_slice() {
        [one] => Operand::One(*one),
        _ => Operand::Fixed(Arc::from(data)),
    }
}

fn joined(b: &mut Builder, node: &Node, x: View, f: Binary, operand: Operand, layout: Layout) -> Option<()> {
    b.push(node, Kind::Map(Post::Binary(f, operand, layout)), vec![x.buf], x.shape)
}

/// How an operand of shape `y` repeats in a result of shape `x`; `None` if irregularly, or if the result would have
/// another shape.
fn layout(x: &[usize], y: &[usize]) -> Option<Layout> {
    // Missing axes stand in front and have one element.
    let extra = x.len().checked_sub(y.len())?;
    let y = std::iter::repeat_n(1, extra).chain(y.iter().copied());
    let (mut inner, mut count, mut outer) = (1, 1, false);
    for (x, y) in x.iter().rev().zip(y.collect::<Vec<usize>>().iter().rev()) {
        match (*x, *y) {
            (1, 1) => {}
            (x, y) if x == y && !outer => count *= y,
            (x, 1) if count == 1 => inner *= x,
            (_, 1) => outer = true,
            _ => return None,
        }
    }
    Some(Layout { inner, count })
}
