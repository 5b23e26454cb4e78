//! Addition, subtraction, multiplication, division, change of sign: affine while one operand is constant, or where two
//! variables are added.

use pponnx_plans::map::MapOp;
use pponnx_plans::value::{Shape, ValueId};

use super::lowering::{Lowering, dense};
use super::{Claim, Operand};
use crate::ir::dense::Dense;
use crate::source::{Arithmetic, Kind};

/// Claims arithmetic nodes.
pub fn lower(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Option<Result<ValueId, String>> {
    match claim.kind {
        Kind::Arithmetic(op) => Some(arithmetic(*op, claim, lowering)),
        Kind::Negate => Some(claim.value(0).map(|(x, s)| lowering.scale(x, Dense::uniform(s.rank(), -1.0)))),
        _ => None,
    }
}

fn arithmetic(op: Arithmetic, claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Result<ValueId, String> {
    match claim.operands.as_slice() {
        [Operand::Value(a, _), Operand::Value(b, _)] => {
            let (a, b) = (*a, *b);
            match op {
                Arithmetic::Add | Arithmetic::Sub => {
                    let (a, b) = (lowering.expand(a, claim.shape)?, lowering.expand(b, claim.shape)?);
                    lowering.linear(if op == Arithmetic::Add { MapOp::Add { a, b } } else { MapOp::Sub { a, b } })
                }
                Arithmetic::Mul => Err("product of two variables".into()),
                Arithmetic::Div => Err("quotient of two variables".into()),
            }
        }
        [Operand::Value(x, _), Operand::Constant(c)] => {
            let (x, c) = (lowering.expand(*x, claim.shape)?, fit(dense(c)?, claim.shape)?);
            Ok(match op {
                Arithmetic::Add => lowering.shift(x, c),
                Arithmetic::Sub => lowering.shift(x, c.map(|v| -v)),
                Arithmetic::Mul => lowering.scale(x, c),
                Arithmetic::Div => {
                    if c.data.contains(&0.0) {
                        return Err("division by a constant that holds zeros".into());
                    }
                    lowering.scale(x, c.map(|v| 1.0 / v))
                }
            })
        }
        [Operand::Constant(c), Operand::Value(x, _)] => {
            let (x, c) = (lowering.expand(*x, claim.shape)?, fit(dense(c)?, claim.shape)?);
            Ok(match op {
                Arithmetic::Add => lowering.shift(x, c),
                Arithmetic::Sub => {
                    let minus = lowering.scale(x, Dense::uniform(claim.shape.rank(), -1.0));
                    lowering.shift(minus, c)
                }
                Arithmetic::Mul => lowering.scale(x, c),
                Arithmetic::Div => return Err("division by a variable".into()),
            })
        }
        _ => Err("arithmetic of other than two operands".into()),
    }
}

/// A constant operand with leading axes added up to the result's rank.
fn fit(mut c: Dense, shape: &Shape) -> Result<Dense, String> {
    while c.shape.rank() < shape.rank() {
        c.shape.0.insert(0, 1);
    }
    if c.fits(shape) { Ok(c) } else { Err(format!("its constant {} does not broadcast to {shape}", c.shape)) }
}
