//! Native operators on flat buffers: what is left of a sub-model once shapes and names are resolved.

use std::sync::Arc;

use pponnx_kernels::{Binary, LrnSpec, PoolSpec, Unary};

/// The number of a buffer. Buffers are written once; operators that only rename or reshape share one.
pub type Buf = usize;

/// A buffer seen in a shape.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The buffer.
    pub buf: Buf,
    /// The shape.
    pub shape: Vec<usize>,
}

/// Straight-line code. The first buffers are the inputs, in their order.
#[derive(Debug, Default)]
pub struct Graph {
    /// Shapes of the inputs.
    pub inputs: Vec<Vec<usize>>,
    /// Elements of each buffer.
    pub lens: Vec<usize>,
    /// Operators, in an order in which each buffer is made before it is read.
    pub ops: Vec<Op>,
    /// What to hand out.
    pub outputs: Vec<View>,
}

/// An operator: reads `from`, writes `to`.
#[derive(Debug)]
pub struct Op {
    /// What it does.
    pub kind: Kind,
    /// The buffers it reads; a binary function may have another in its operand.
    pub from: Vec<Buf>,
    /// The buffer it writes.
    pub to: Buf,
}

/// What an operator does.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A function of each element.
    Map(Post),
    /// An operator of all elements that needs no second buffer.
    Rewrite(Rewrite),
    /// An operator with a buffer of its own.
    Make(Make),
    /// Joins blocks: one of each buffer in turn, of so many elements.
    Concat(Vec<usize>),
}

/// A function of each element.
#[derive(Clone, Debug)]
pub enum Post {
    /// Of the element alone.
    Unary(Unary),
    /// Of the element and one of an operand.
    Binary(Binary, Operand, Layout),
}

/// The second operand.
#[derive(Clone, Debug)]
pub enum Operand {
    /// A number.
    One(f32),
    /// Constants.
    Fixed(Arc<[f32]>),
    /// A buffer.
    Buf(Buf),
}

/// Which element of an operand of `count` elements meets element i: `i / inner % count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Elements that meet the same one.
    pub inner: usize,
    /// Elements of the operand.
    pub count: usize,
}

/// An operator in place.
#[derive(Clone, Debug)]
pub enum Rewrite {
    /// Local response normalisation.
    Lrn(LrnSpec),
    /// Softmax of rows of so many elements.
    Softmax(usize),
}

/// An operator from one buffer to another.
#[derive(Clone, Debug)]
pub enum Make {
    /// The largest of each window.
    MaxPool(PoolSpec),
    /// The mean of each window; with padding, the extents up to which it counts.
    AveragePool(PoolSpec, Option<[usize; 2]>),
    /// The mean of each row of so many elements.
    Means(usize),
    /// Picks along an axis.
    Pick(Pick),
    /// Another order of axes.
    Permute(Permute),
}

/// Picks blocks of `inner` elements by their number among `len`.
#[derive(Clone, Debug)]
pub struct Pick {
    /// Blocks in the input from one choice to the next.
    pub len: usize,
    /// Elements of a block.
    pub inner: usize,
    /// The blocks picked, in order.
    pub indices: Vec<usize>,
}

/// Another order of axes: sizes in the order of the output, and the step of each in the input.
#[derive(Clone, Debug)]
pub struct Permute {
    /// Sizes of the output.
    pub sizes: Vec<usize>,
    /// Steps in the input.
    pub strides: Vec<usize>,
}

impl Post {
    /// The buffer read beside the element.
    pub fn operand(&self) -> Option<Buf> {
        match self {
            Post::Binary(_, Operand::Buf(buf), _) => Some(*buf),
            Post::Binary(_, Operand::One(_) | Operand::Fixed(_), _) | Post::Unary(_) => None,
        }
    }

    /// Whether it never decreases, rounding included, and does the same everywhere: then the largest result is that
    /// of the largest element.
    pub fn is_monotone(&self) -> bool {
        match self {
            Post::Unary(Unary::Clip { .. }) => true,
            Post::Unary(Unary::Leaky { slope } | Unary::HardSigmoid { slope, .. }) => *slope >= 0.0,
            Post::Unary(Unary::Exp | Unary::Sigmoid | Unary::HardSwish | Unary::Sqrt | Unary::Neg | Unary::Abs) => {
                false
            }
            Post::Binary(Binary::Add | Binary::Sub | Binary::Max | Binary::Min, Operand::One(_), _) => true,
            Post::Binary(..) => false,
        }
    }
}

/// The same function with its operands exchanged.
pub fn swapped(f: Binary) -> Option<Binary> {
    Some(match f {
        Binary::Add | Binary::Mul | Binary::Max | Binary::Min => f,
        Binary::Sub => Binary::SubFrom,
        Binary::SubFrom => Binary::Sub,
        Binary::Div => Binary::DivInto,
        Binary::DivInto => Binary::Div,
        Binary::Slope => return None,
    })
}
