//! Reads ONNX: the only place here that says `tract`.
//!
//! [`read()`] turns a file into a [`Network`], plain data: the ONNX nodes in execution order, and the typed nodes
//! into which tract translates them. Everything behind works on that.

mod cells;
mod check;
mod guard;
mod probe;
mod read;
mod refuse;
mod shapes;
mod stream;
mod typed;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use pponnx_plans::value::{DType, Shape};
pub use prost::Message;
use tract_onnx::prelude::{DatumType, Tensor};

pub use guard::guarded;
pub use probe::{Sample, load_and_type, probe};
pub use read::read;
pub use tract_onnx::pb;

/// Where a model comes from.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// A file; external data is looked for beside it.
    Path(PathBuf),
    /// The contents of a file.
    Bytes {
        /// A name for messages.
        name: String,
        /// The file's contents.
        bytes: Vec<u8>,
        /// Where external data is, if there is any.
        dir: Option<PathBuf>,
    },
}

/// Wishes about reading.
#[derive(Clone, Debug, Default)]
pub struct FrontOptions {
    /// Shapes of inputs, by ONNX name. An axis that is `None` keeps the size that the model gives it.
    pub shapes: BTreeMap<String, Vec<Option<usize>>>,
}

/// A constant tensor.
#[derive(Clone, Debug)]
pub struct Constant(Arc<Tensor>);

/// What is known about a value before a request.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Element type; `None` for one that cannot leave a local segment.
    pub dtype: Option<DType>,
    /// Shape; `None` if it depends on the input's values.
    pub shape: Option<Shape>,
    /// The value, if it does not depend on the input.
    pub constant: Option<Constant>,
}

/// A tensor of the typed network, by position in [`Network::facts`].
pub type Outlet = usize;

/// Where an index of an einsum stands.
#[derive(Clone, Debug)]
pub struct EinsumAxis {
    /// Axes of the two operands; several for a diagonal.
    pub inputs: [Vec<usize>; 2],
    /// Axes of the result.
    pub output: Vec<usize>,
}

/// A window that slides over the axes from 2 on.
#[derive(Clone, Debug)]
pub struct Window {
    /// Size per axis.
    pub kernel: Vec<usize>,
    /// Step per axis.
    pub strides: Vec<usize>,
    /// Spacing of taps per axis.
    pub dilations: Vec<usize>,
    /// Padding in front per axis.
    pub pads_before: Vec<usize>,
    /// Padding behind per axis.
    pub pads_after: Vec<usize>,
}

/// Arithmetic on two tensors that broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
}

/// How padding is filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// With a value.
    Value(f32),
    /// With the mirror image, the border not repeated.
    Reflect,
    /// With the nearest element.
    Edge,
}

/// What a typed node does, as far as the operators here care.
#[derive(Clone, Debug)]
pub enum Kind {
    /// An input of the network.
    Source,
    /// A constant.
    Constant,
    /// Convolution; operands are input, kernel `[O, I/groups, k..]`, bias `[O]` or one scalar.
    Conv(Window, usize),
    /// Transposed convolution with the same operands, and the number of groups and the output padding.
    ConvTranspose(Window, usize, Vec<usize>),
    /// Sum of products over named indices.
    Einsum(Vec<EinsumAxis>),
    /// Arithmetic.
    Arithmetic(Arithmetic),
    /// Change of sign.
    Negate,
    /// Sum over a window, or its mean.
    SumPool {
        /// The window.
        window: Window,
        /// Mean instead of sum.
        mean: bool,
        /// Whether padding counts in the mean.
        count_padding: bool,
    },
    /// Sum over whole axes, which keep size 1.
    ReduceSum(Vec<usize>),
    /// The same elements in another shape.
    Reshape,
    /// Axis `i` of the result is axis `perm[i]` of the operand.
    Transpose(Vec<usize>),
    /// Tensors side by side.
    Concat(usize),
    /// Elements `start..end` of an axis.
    Slice(usize, usize, usize),
    /// Part of several axes: axis, first element, step (backwards if negative). Lengths are those of the result.
    Strided(Vec<(usize, usize, isize)>),
    /// Every so many elements of an axis, from an offset on; backwards from the end with a negative step.
    Downsample(usize, isize, usize),
    /// Padding, in front and behind per axis.
    Pad(Vec<(usize, usize)>, Fill),
    /// Elements of the first operand's axis picked by the second operand.
    Gather(usize),
    /// Repetition per axis.
    Tile(Vec<usize>),
    /// Axes of size 1 repeated.
    Broadcast,
    /// Nothing.
    Identity,
    /// Anything else, by name.
    Other(String),
}

/// A node of the typed network.
#[derive(Clone, Debug)]
pub struct TypedNode {
    /// What it does.
    pub kind: Kind,
    /// Operands.
    pub inputs: Vec<Outlet>,
    /// Results.
    pub outputs: Vec<Outlet>,
    /// The ONNX node it stems from, by position in [`Network::nodes`].
    pub origin: Option<usize>,
}

/// An ONNX node.
#[derive(Clone, Debug)]
pub struct OnnxNode {
    /// Its name, or `#index` for a nameless one.
    pub name: String,
    /// Position in the file.
    pub index: usize,
    /// The node as read.
    pub proto: pb::NodeProto,
    /// Tensor names it reads: inputs, then what its subgraphs capture. No empty names, no repeats.
    pub reads: Vec<String>,
}

/// A model, read.
#[derive(Clone, Debug)]
pub struct Network {
    /// Name of the model.
    pub name: String,
    /// BLAKE3 digest of the file and its external data.
    pub digest: [u8; 32],
    /// IR version of the file.
    pub ir_version: i64,
    /// Operator sets of the file.
    pub opsets: Vec<pb::OperatorSetIdProto>,
    /// ONNX nodes in execution order.
    pub nodes: Vec<OnnxNode>,
    /// Typed nodes in execution order.
    pub typed: Vec<TypedNode>,
    /// What is known about each typed value.
    pub facts: Vec<Fact>,
    /// The typed value behind each ONNX tensor that is still computed.
    pub outlets: BTreeMap<String, Outlet>,
    /// ONNX tensors that do not depend on the input.
    pub known: BTreeMap<String, Constant>,
    /// Inputs of the network that are no initialisers.
    pub inputs: Vec<String>,
    /// Outputs of the network.
    pub outputs: Vec<String>,
    /// Remarks for the user.
    pub notes: Vec<String>,
}

/// Our name for an element type.
fn dtype_of(dt: DatumType) -> Option<DType> {
    Some(match dt {
        DatumType::Bool => DType::Bool,
        DatumType::U8 => DType::U8,
        DatumType::I8 => DType::I8,
        DatumType::U16 => DType::U16,
        DatumType::I16 => DType::I16,
        DatumType::U32 => DType::U32,
        DatumType::I32 => DType::I32,
        DatumType::U64 => DType::U64,
        DatumType::I64 | DatumType::TDim => DType::I64,
        DatumType::F16 => DType::F16,
        DatumType::F32 => DType::F32,
        DatumType::F64 => DType::F64,
        _ => return None,
    })
}

/// The ONNX number of an element type.
pub fn onnx_type(dtype: DType) -> i32 {
    use pb::tensor_proto::DataType as T;
    let t = match dtype {
        DType::Bool => T::Bool,
        DType::U8 => T::Uint8,
        DType::I8 => T::Int8,
        DType::U16 => T::Uint16,
        DType::I16 => T::Int16,
        DType::U32 => T::Uint32,
        DType::I32 => T::Int32,
        DType::U64 => T::Uint64,
        DType::I64 => T::Int64,
        DType::F16 => T::Float16,
        DType::F32 => T::Float,
        DType::F64 => T::Double,
    };
    t as i32
}
