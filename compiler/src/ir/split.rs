//! The split network: local segments and outsourced stages in order, still in real numbers.
//!
//! The front end (reading, classifying, folding, splitting, cutting) ends here; quantisation and the schemes
//! start here.

use std::sync::Arc;

use pponnx_plans::map::LinearMap;
use pponnx_plans::plan::Port;
use pponnx_plans::value::{DType, Shape};

use super::floats::Floats;

/// Real-valued weights or per-element constants, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct RealTensor {
    /// Shape.
    pub shape: Shape,
    /// Elements.
    pub data: Floats,
}

/// A tensor of the network that crosses segments.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// ONNX name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Shape,
}

/// Handle of a [`TensorInfo`] in [`SplitGraph::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub usize);

/// One output of an outsourced segment: `y = post * L(x) + bias`, L linear over its inputs.
#[derive(Clone, Debug)]
pub struct RealMap {
    /// L with real weights; its inputs correspond to `inputs`. No constant term.
    pub map: LinearMap<Arc<RealTensor>>,
    /// Uploaded tensors.
    pub inputs: Vec<TensorId>,
    /// The tensor it produces, with the shape of `map`'s result.
    pub output: TensorId,
    /// Factor per output element, broadcast to the output's shape (1/n of an average pool, a trailing Mul); f64 because
    /// it goes into the decoding scale.
    pub post: Option<(Shape, Vec<f64>)>,
    /// Constant term, broadcast to the output's shape; `None` for zero.
    pub bias: Option<RealTensor>,
    /// ONNX nodes it evaluates, by index in [`SplitGraph::nodes`].
    pub nodes: Vec<usize>,
}

/// One round: maps that are evaluated together. Maps that read the same tensor share its upload.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The maps, in graph order.
    pub maps: Vec<RealMap>,
}

/// Nodes that the device runs, as an ONNX model of their own.
#[derive(Clone, Debug)]
pub struct LocalSegment {
    /// Name of its first node, for messages.
    pub name: String,
    /// Inputs, in the sub-model's input order.
    pub inputs: Vec<TensorId>,
    /// Outputs, in the sub-model's output order.
    pub outputs: Vec<TensorId>,
    /// The encoded ONNX model.
    pub onnx: Vec<u8>,
    /// ONNX nodes it evaluates, by index in [`SplitGraph::nodes`].
    pub nodes: Vec<usize>,
}

/// A part of the network, in execution order.
#[derive(Clone, Debug)]
pub enum Part {
    /// Runs on the device.
    Local(LocalSegment),
    /// Runs at the edges.
    Stage(Stage),
}

/// Where an ONNX node went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Evaluated by an edge.
    Outsourced,
    /// Evaluated by the device.
    Local,
    /// Computed while compiling, or without effect at run time.
    Folded,
}

/// An ONNX node with the decision about it.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// ONNX node name, or `#index` for a nameless one.
    pub name: String,
    /// ONNX operator.
    pub op: String,
    /// Where it went.
    pub place: Place,
    /// Why.
    pub reason: String,
    /// Multiply-adds, zero for operators without products.
    pub mult_adds: u64,
    /// Name and shape of its first output.
    pub output: Option<(String, Shape)>,
}

/// The network after the front end.
#[derive(Clone, Debug)]
pub struct SplitGraph {
    /// Model name, from the file.
    pub model: String,
    /// BLAKE3 digest of the model file (with its external data).
    pub model_digest: [u8; 32],
    /// Inputs of the network, pinned.
    pub inputs: Vec<Port>,
    /// The tensor behind each input.
    pub input_tensors: Vec<TensorId>,
    /// Outputs of the network.
    pub outputs: Vec<Port>,
    /// The tensor behind each output (may be an input or an inner tensor, may repeat).
    pub output_tensors: Vec<TensorId>,
    /// Tensors that cross segments.
    pub tensors: Vec<TensorInfo>,
    /// Segments in execution order.
    pub parts: Vec<Part>,
    /// All ONNX nodes in file order.
    pub nodes: Vec<NodeInfo>,
    /// Remarks for the user that do not stop the compilation (pinned batch axis, operators on which runtimes disagree).
    pub notes: Vec<String>,
}
