//! Collects the steps of one ONNX node.

use std::sync::Arc;

use pponnx_plans::map::MapOp;
use pponnx_plans::value::{DType, Shape, ValueId};

use crate::ir::dense::Dense;
use crate::ir::graph::{Step, StepOp, Value};
use crate::ir::split::RealTensor;
use crate::source::Constant;

/// Steps under construction. Steps that would do nothing are left out.
#[derive(Debug)]
pub struct Lowering<'g> {
    values: &'g mut Vec<Value>,
    /// The steps so far.
    pub steps: Vec<Step>,
}

impl<'g> Lowering<'g> {
    /// No steps yet; new values go to `values`.
    pub fn new(values: &'g mut Vec<Value>) -> Lowering<'g> {
        Lowering { values, steps: Vec::new() }
    }

    /// Shape of a value.
    pub fn shape(&self, v: ValueId) -> Shape {
        self.values.get(v.index()).and_then(|v| v.shape.clone()).unwrap_or_default()
    }

    fn push(&mut self, op: StepOp, shape: Shape) -> ValueId {
        let output = ValueId(self.values.len() as u32);
        self.values.push(Value { name: None, dtype: Some(DType::F32), shape: Some(shape) });
        self.steps.push(Step { op, output });
        output
    }

    /// Appends a linear operation.
    ///
    /// # Errors
    /// If its shapes do not fit.
    pub fn linear(&mut self, op: MapOp<Arc<RealTensor>>) -> Result<ValueId, String> {
        let operands = op.operands();
        let shapes: Vec<Shape> = operands.iter().map(|v| self.shape(*v)).collect();
        let weights = op.constant().map(|w| w.shape.clone());
        let shape = op.shape(&shapes.iter().collect::<Vec<_>>(), weights.as_ref())?;
        let idle = match &op {
            MapOp::Reshape { .. } | MapOp::Expand { .. } | MapOp::PadZero { .. } => shape == shapes[0],
            MapOp::Transpose { perm, .. } => perm.iter().copied().eq(0..perm.len()),
            MapOp::Slice { steps, .. } => shape == shapes[0] && steps.iter().all(|s| *s == 1),
            MapOp::Gather { indices, axis, .. } => indices.iter().copied().eq(0..shapes[0].0[*axis]),
            MapOp::Concat { xs, .. } => xs.len() == 1,
            MapOp::Conv { .. }
            | MapOp::ConvTranspose { .. }
            | MapOp::MatMul { .. }
            | MapOp::SumPool { .. }
            | MapOp::Add { .. }
            | MapOp::Sub { .. } => false,
        };
        Ok(if idle { operands[0] } else { self.push(StepOp::Linear(op), shape) })
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// If the number of elements differs.
    pub fn reshape(&mut self, x: ValueId, shape: &[usize]) -> Result<ValueId, String> {
        self.linear(MapOp::Reshape { x, shape: shape.to_vec() })
    }

    /// Axis `i` of the result is axis `perm[i]` of the operand. A mere reshape where only axes of size 1 move.
    ///
    /// # Errors
    /// If `perm` is no permutation.
    pub fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Result<ValueId, String> {
        let from = self.shape(x);
        let op = MapOp::<Arc<RealTensor>>::Transpose { x, perm: perm.to_vec() };
        let shape = op.shape(&[&from], None)?;
        let long: Vec<usize> = perm.iter().copied().filter(|a| from.0[*a] != 1).collect();
        if long.is_sorted() { self.reshape(x, &shape.0) } else { self.linear(op) }
    }

    /// Axes of size 1 repeated up to `shape`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn expand(&mut self, x: ValueId, shape: &Shape) -> Result<ValueId, String> {
        self.linear(MapOp::Expand { x, shape: shape.0.clone() })
    }

    /// `x * factor`.
    pub fn scale(&mut self, x: ValueId, factor: Dense) -> ValueId {
        let shape = self.shape(x);
        if factor.is_all(1.0) { x } else { self.push(StepOp::Scale { x, factor: Arc::new(factor.compress()) }, shape) }
    }

    /// `x + term`.
    pub fn shift(&mut self, x: ValueId, term: Dense) -> ValueId {
        let shape = self.shape(x);
        if term.is_all(0.0) { x } else { self.push(StepOp::Shift { x, term: Arc::new(term.compress()) }, shape) }
    }
}

/// The constant's elements as weights.
///
/// # Errors
/// If they are not `f32`, or not finite.
pub fn weights(c: &Constant) -> Result<RealTensor, String> {
    let data = c.floats().ok_or("its weights are not finite f32 numbers")?;
    Ok(RealTensor { shape: c.shape(), data })
}

/// The constant's elements in double precision.
///
/// # Errors
/// If they are not `f32`, or not finite.
pub fn dense(c: &Constant) -> Result<Dense, String> {
    let w = weights(c)?;
    Ok(Dense { shape: w.shape, data: w.data.iter().copied().map(f64::from).collect() })
}
