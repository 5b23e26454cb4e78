//! Linear maps: what edges apply to ring elements and what the integrity check takes the adjoint of.
//!
//! A map is a small straight-line program without constant term. Operations are generic in the constant
//! they read: [`ConstId`] in a bundle, real-valued weights inside the compiler.

use crate::field::{Attr, Field};
use crate::value::{ConstId, Shape, ValueId};

macro_rules! table {
    ($($(#[$doc:meta])* $code:literal $name:literal $variant:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty),* $(,)? })*) => {
        /// One operation of a linear map. Values `%0..` are the map's inputs, then one result each.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum MapOp<C = ConstId> {
            $($(#[$doc])* $variant { $($(#[$fdoc])* $field: $type),* },)*
        }

        impl<C> MapOp<C> {
            /// Names and codes of all operations.
            pub const TABLE: &'static [(u32, &'static str)] = &[$(($code, $name)),*];

            /// The code of the binary form.
            pub fn code(&self) -> u32 {
                match self { $(MapOp::$variant { .. } => $code),* }
            }

            /// The name in text forms and messages.
            pub fn name(&self) -> &'static str {
                match self { $(MapOp::$variant { .. } => $name),* }
            }
        }

        impl<C: Field> MapOp<C> {
            /// The fields in order, each with its name.
            pub fn fields(&self) -> Vec<(&'static str, Attr)> {
                match self { $(MapOp::$variant { $($field),* } => vec![$((stringify!($field), $field.attr())),*]),* }
            }

            /// Name and sample attribute of each field of the operation with this code.
            pub fn signature(code: u32) -> Option<Vec<(&'static str, Attr)>> {
                match code { $($code => Some(vec![$((stringify!($field), <$type>::sample())),*]),)* _ => None }
            }

            /// The operation with this code and these fields; `None` if code, number or kinds do not fit.
            pub fn from_fields(code: u32, fields: Vec<Attr>) -> Option<Self> {
                let mut fields = fields.into_iter();
                let op = match code {
                    $($code => MapOp::$variant { $($field: <$type>::from_attr(fields.next()?)?),* },)*
                    _ => return None,
                };
                fields.next().is_none().then_some(op)
            }
        }
    };
}

table! {
    /// Convolution of `[N, C, d1, ..]` with weights `[O, C/groups, k1, ..]`; zero padding.
    1 "conv" Conv { x: ValueId, w: C, strides: Vec<usize>, dilations: Vec<usize>,
        pads_before: Vec<usize>, pads_after: Vec<usize>, groups: usize }
    /// Transposed convolution of `[N, C, d1, ..]` with weights `[O, C/groups, k1, ..]`. `pads_*` crop the result;
    /// its size is `stride * (d - 1) + dilation * (k - 1) + 1 + output_padding - pads`.
    2 "conv-transpose" ConvTranspose { x: ValueId, w: C, strides: Vec<usize>, dilations: Vec<usize>,
        pads_before: Vec<usize>, pads_after: Vec<usize>, output_padding: Vec<usize>, groups: usize }
    /// `y[.., m, n] = sum_k x[.., m, k] * w[.., n, k]`: weights hold one output row contiguously.
    /// `w` is `[n, k]`, or `[b.., n, k]` with as many leading axes as `x`, each equal to that of `x` or 1.
    3 "matmul" MatMul { x: ValueId, w: C }
    /// Sums over windows of the axes from 2 on; padding counts as zero.
    4 "sum-pool" SumPool { x: ValueId, kernel: Vec<usize>, strides: Vec<usize>, dilations: Vec<usize>,
        pads_before: Vec<usize>, pads_after: Vec<usize> }
    /// Sum of two tensors of one shape.
    5 "add" Add { a: ValueId, b: ValueId }
    /// Difference of two tensors of one shape.
    6 "sub" Sub { a: ValueId, b: ValueId }
    /// Tensors side by side along an axis.
    7 "concat" Concat { xs: Vec<ValueId>, axis: usize }
    /// The same elements in another shape.
    8 "reshape" Reshape { x: ValueId, shape: Vec<usize> }
    /// Axis `i` of the result is axis `perm[i]` of the operand.
    9 "transpose" Transpose { x: ValueId, perm: Vec<usize> }
    /// Zeros around; one entry an axis.
    10 "pad-zero" PadZero { x: ValueId, before: Vec<usize>, after: Vec<usize> }
    /// Along each axis, `lens` elements from `starts` on, `steps` apart (at least 1).
    11 "slice" Slice { x: ValueId, starts: Vec<usize>, steps: Vec<usize>, lens: Vec<usize> }
    /// Elements of an axis picked by constant indices, repeats allowed.
    12 "gather" Gather { x: ValueId, axis: usize, indices: Vec<usize> }
    /// Axes of size 1 repeated up to `shape` (same rank).
    13 "expand" Expand { x: ValueId, shape: Vec<usize> }
}

impl<C> MapOp<C> {
    /// The values this operation reads.
    pub fn operands(&self) -> Vec<ValueId> {
        match self {
            MapOp::Conv { x, .. }
            | MapOp::ConvTranspose { x, .. }
            | MapOp::MatMul { x, .. }
            | MapOp::SumPool { x, .. }
            | MapOp::Reshape { x, .. }
            | MapOp::Transpose { x, .. }
            | MapOp::PadZero { x, .. }
            | MapOp::Slice { x, .. }
            | MapOp::Gather { x, .. }
            | MapOp::Expand { x, .. } => vec![*x],
            MapOp::Add { a, b } | MapOp::Sub { a, b } => vec![*a, *b],
            MapOp::Concat { xs, .. } => xs.clone(),
        }
    }

    /// The constant this operation reads.
    pub fn constant(&self) -> Option<&C> {
        match self {
            MapOp::Conv { w, .. } | MapOp::ConvTranspose { w, .. } | MapOp::MatMul { w, .. } => Some(w),
            _ => None,
        }
    }

    /// The same operation with its constant replaced.
    pub fn with_constant<D>(self, mut f: impl FnMut(C) -> D) -> MapOp<D> {
        match self {
            MapOp::Conv { x, w, strides, dilations, pads_before, pads_after, groups } => {
                MapOp::Conv { x, w: f(w), strides, dilations, pads_before, pads_after, groups }
            }
            MapOp::ConvTranspose { x, w, strides, dilations, pads_before, pads_after, output_padding, groups } => {
                MapOp::ConvTranspose { x, w: f(w), strides, dilations, pads_before, pads_after, output_padding, groups }
            }
            MapOp::MatMul { x, w } => MapOp::MatMul { x, w: f(w) },
            MapOp::SumPool { x, kernel, strides, dilations, pads_before, pads_after } => {
                MapOp::SumPool { x, kernel, strides, dilations, pads_before, pads_after }
            }
            MapOp::Add { a, b } => MapOp::Add { a, b },
            MapOp::Sub { a, b } => MapOp::Sub { a, b },
            MapOp::Concat { xs, axis } => MapOp::Concat { xs, axis },
            MapOp::Reshape { x, shape } => MapOp::Reshape { x, shape },
            MapOp::Transpose { x, perm } => MapOp::Transpose { x, perm },
            MapOp::PadZero { x, before, after } => MapOp::PadZero { x, before, after },
            MapOp::Slice { x, starts, steps, lens } => MapOp::Slice { x, starts, steps, lens },
            MapOp::Gather { x, axis, indices } => MapOp::Gather { x, axis, indices },
            MapOp::Expand { x, shape } => MapOp::Expand { x, shape },
        }
    }

    /// The shape of the result, given the shapes of the operands (in the order of [`MapOp::operands`]) and of the
    /// constant.
    ///
    /// # Errors
    /// A sentence that says which rule the shapes break.
    pub fn shape(&self, xs: &[&Shape], w: Option<&Shape>) -> Result<Shape, String> {
        crate::map_shape::infer(self, xs, w)
    }
}

/// A linear map: inputs, operations, one result.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearMap<C = ConstId> {
    /// The name of the segment it evaluates, for messages: usually that of the ONNX node that dominates it.
    pub name: String,
    /// Shapes of the inputs, values `%0..`.
    pub inputs: Vec<Shape>,
    /// Operations in order; operation `i` defines value `inputs.len() + i`.
    pub ops: Vec<MapOp<C>>,
    /// The value that is the map's result.
    pub output: ValueId,
}

/// How the integrity check of a map is stored (`docs/formats.md`, check data).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckForm {
    /// One element of F_p per input element.
    Full,
    /// For a map that is one convolution: `G[ci, k..] = sum_co a_co W[co, ci', k..]`, expanded at load.
    ConvRankOne,
    /// For a map that is one matrix product with weights without batch axes: `G[k] = sum_n a_n W[n, k]`.
    MatMulRankOne,
}

impl<C> LinearMap<C> {
    /// The form of check data that this map gets: compact where the map is a single convolution or a single matrix
    /// product with weights `[n, k]`, else full. `shape_of` tells a constant's shape.
    pub fn check_form<'a>(&'a self, shape_of: impl Fn(&'a C) -> Option<&'a Shape>) -> CheckForm {
        match self.ops.as_slice() {
            [MapOp::Conv { .. }] => CheckForm::ConvRankOne,
            [MapOp::MatMul { w, .. }] if shape_of(w).is_some_and(|s| s.rank() == 2) => CheckForm::MatMulRankOne,
            _ => CheckForm::Full,
        }
    }
}
