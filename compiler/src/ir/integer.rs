//! The network after quantisation: maps over integers, with what the device needs to go in and out of them.

use std::sync::Arc;

use pponnx_plans::map::LinearMap;
use pponnx_plans::plan::Bound;
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::value::{DType, Shape};

use crate::ir::split::{LocalSegment, RealTensor, TensorId};

/// Integer weights as they stand in a plan file.
#[derive(Clone, Debug, PartialEq)]
pub struct IntWeights {
    /// `i16` or `i32`.
    pub dtype: DType,
    /// Shape.
    pub shape: Shape,
    /// Little-endian elements.
    pub bytes: Vec<u8>,
}

/// One quantised map: `y = L(x) * scale * 2^-a + bias`.
#[derive(Clone, Debug)]
pub struct IntMap {
    /// L over the integers; one input.
    pub map: LinearMap<Arc<IntWeights>>,
    /// The tensor that is uploaded.
    pub input: TensorId,
    /// The tensor that it produces.
    pub output: TensorId,
    /// Real value of one step of the result, before the exponent; broadcast to the output's shape.
    pub scale: Tensor<f64>,
    /// Constant term, broadcast to the output's shape.
    pub bias: RealTensor,
    /// Exponent group of each result, broadcast to the output's shape; `None` if there is one group.
    pub group: Option<Tensor<u32>>,
    /// The bound its results put on the input's exponents.
    pub bound: Bound,
    /// ONNX nodes it evaluates.
    pub nodes: Vec<usize>,
}

/// A tensor that a stage uploads once.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Which tensor.
    pub tensor: TensorId,
    /// Number of exponent groups along axis 1.
    pub groups: usize,
}

/// One round.
#[derive(Clone, Debug)]
pub struct IntStage {
    /// Distinct tensors that go up.
    pub uploads: Vec<Upload>,
    /// Maps over them.
    pub maps: Vec<IntMap>,
}

/// A part of the quantised network, in execution order.
#[derive(Clone, Debug)]
pub enum IntPart {
    /// Runs on the device.
    Local(LocalSegment),
    /// Runs at the edges.
    Stage(IntStage),
}
