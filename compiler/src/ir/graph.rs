//! The network as ONNX nodes, each either affine (a list of steps) or opaque.

use std::collections::BTreeMap;
use std::sync::Arc;

use pponnx_plans::map::MapOp;
use pponnx_plans::value::{DType, Shape, ValueId};

use super::dense::Dense;
use super::split::RealTensor;

/// A tensor that depends on the network's inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// ONNX name: that of the first node output (or input) that is this tensor. `None` inside an ONNX node.
    pub name: Option<String>,
    /// Element type; `None` for one that cannot leave a local segment.
    pub dtype: Option<DType>,
    /// Shape; `None` if it depends on the input's values.
    pub shape: Option<Shape>,
}

/// What a step computes.
#[derive(Clone, Debug, PartialEq)]
pub enum StepOp {
    /// A linear map; operands are values of the graph.
    Linear(MapOp<Arc<RealTensor>>),
    /// `x * factor`, the factor broadcasting to `x`.
    Scale {
        /// Operand.
        x: ValueId,
        /// Factor.
        factor: Arc<Dense>,
    },
    /// `x + term`, the term broadcasting to `x`.
    Shift {
        /// Operand.
        x: ValueId,
        /// Constant term.
        term: Arc<Dense>,
    },
}

impl StepOp {
    /// The values it reads.
    pub fn operands(&self) -> Vec<ValueId> {
        match self {
            StepOp::Linear(op) => op.operands(),
            StepOp::Scale { x, .. } | StepOp::Shift { x, .. } => vec![*x],
        }
    }

    /// Whether it has weights, so that it is worth sending out.
    pub fn is_heavy(&self) -> bool {
        matches!(self, StepOp::Linear(op) if op.constant().is_some())
    }
}

/// One step of an affine node.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What it computes.
    pub op: StepOp,
    /// What it defines.
    pub output: ValueId,
}

/// What a node amounts to.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Nothing at run time, with the reason.
    Folded(String),
    /// Something only the device can do, with the reason.
    Local(String),
    /// Affine steps.
    Affine(Vec<Step>),
}

impl Work {
    /// Whether some step has weights.
    pub fn is_heavy(&self) -> bool {
        matches!(self, Work::Affine(steps) if steps.iter().any(|s| s.op.is_heavy()))
    }
}

/// An ONNX node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Name for messages.
    pub name: String,
    /// ONNX operator.
    pub op: String,
    /// Tensors it reads, constants left out; no repeats.
    pub inputs: Vec<ValueId>,
    /// Tensors it makes.
    pub outputs: Vec<ValueId>,
    /// What it amounts to.
    pub work: Work,
    /// Multiply-adds.
    pub mult_adds: u64,
}

/// The network between reading and splitting. Nodes stand in execution order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Graph {
    /// Values, by handle.
    pub values: Vec<Value>,
    /// Nodes in execution order.
    pub nodes: Vec<Node>,
    /// Inputs of the network.
    pub inputs: Vec<ValueId>,
    /// Outputs of the network that are no constants, repeats allowed.
    pub outputs: Vec<ValueId>,
    /// The value behind each ONNX tensor name.
    pub by_name: BTreeMap<String, ValueId>,
}

impl Graph {
    /// A value's shape; scalar if it is unknown (affine steps have known shapes only).
    pub fn shape(&self, v: ValueId) -> Shape {
        self.values.get(v.index()).and_then(|v| v.shape.clone()).unwrap_or_default()
    }

    /// Number of elements of a value.
    pub fn len(&self, v: ValueId) -> usize {
        self.shape(v).len()
    }

    /// Whether the graph has no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}
