//! The operators that have a linear form. Each file claims typed nodes and writes them as steps; whatever nobody
//! claims runs on the device.

pub mod arithmetic;
pub mod axes;
pub mod concat;
pub mod conv;
pub mod conv_transpose;
pub mod gather;
pub mod identity;
pub mod lowering;
pub mod matmul;
pub mod pad;
pub mod pool;
pub mod reduce;
pub mod repeat;
pub mod slice;

use pponnx_plans::value::{Shape, ValueId};

use crate::source::{Constant, Kind};
use lowering::Lowering;

/// An operand of a typed node.
#[derive(Clone, Debug)]
pub enum Operand<'a> {
    /// A tensor that depends on the input, with its shape.
    Value(ValueId, Shape),
    /// A constant.
    Constant(&'a Constant),
}

/// A typed node as the operators see it: all variable operands are `f32` of known shape.
#[derive(Debug)]
pub struct Claim<'a> {
    /// What it does.
    pub kind: &'a Kind,
    /// Operands.
    pub operands: Vec<Operand<'a>>,
    /// Shape of the result.
    pub shape: &'a Shape,
}

impl Claim<'_> {
    /// The variable operand at this position.
    ///
    /// # Errors
    /// If it is a constant or missing.
    pub fn value(&self, i: usize) -> Result<(ValueId, &Shape), String> {
        match self.operands.get(i) {
            Some(Operand::Value(v, shape)) => Ok((*v, shape)),
            Some(Operand::Constant(_)) => Err(format!("operand {i} is a constant")),
            None => Err(format!("operand {i} is missing")),
        }
    }

    /// The constant operand at this position.
    ///
    /// # Errors
    /// If it is computed at run time, or missing.
    pub fn constant(&self, i: usize, what: &str) -> Result<&Constant, String> {
        match self.operands.get(i) {
            Some(Operand::Constant(c)) => Ok(c),
            Some(Operand::Value(..)) => Err(format!("the {what} is computed at run time")),
            None => Err(format!("the {what} is missing")),
        }
    }
}

/// Writes a typed node as steps and tells which value is its result; an error says why it stays local.
pub type Lower = fn(&Claim<'_>, &mut Lowering<'_>) -> Option<Result<ValueId, String>>;

/// All operators, asked in this order.
pub const ALL: &[(&str, Lower)] = &[
    ("arithmetic", arithmetic::lower),
    ("axes", axes::lower),
    ("concat", concat::lower),
    ("conv", conv::lower),
    ("conv-transpose", conv_transpose::lower),
    ("gather", gather::lower),
    ("identity", identity::lower),
    ("matmul", matmul::lower),
    ("pad", pad::lower),
    ("pool", pool::lower),
    ("reduce", reduce::lower),
    ("repeat", repeat::lower),
    ("slice", slice::lower),
];

/// The steps of a typed node, or why it stays local.
///
/// # Errors
/// The reason, to follow the words "local:".
pub fn lower(claim: &Claim<'_>, lowering: &mut Lowering<'_>) -> Result<ValueId, String> {
    let mut answers = ALL.iter().filter_map(|(_, lower)| lower(claim, lowering));
    let result = answers.next().unwrap_or_else(|| match claim.kind {
        Kind::Other(name) => Err(format!("{name} is not linear")),
        Kind::Source | Kind::Constant => Err("not computed".into()),
        other => Err(format!("no linear form for {other:?}")),
    })?;
    let got = lowering.shape(result);
    if got == *claim.shape { Ok(result) } else { Err(format!("its linear form has shape {got}, not {}", claim.shape)) }
}
