//! Turns the nodes of one map into `y = post * L(x) + bias`: factors go into the weights or behind the map, constant
//! terms into the bias.
//!
//! Every value on the way stands as `scale * v + shift`, with `v` a value of the linear map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pponnx_plans::map::{LinearMap, MapOp};
use pponnx_plans::value::{Shape, ValueId};

use crate::ir::dense::{Dense, apply};
use crate::ir::floats::all_finite;
use crate::ir::graph::{Graph, Step, StepOp, Work};
use crate::ir::split::RealTensor;

type Op = MapOp<Arc<RealTensor>>;

/// A map with everything around it.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The linear map.
    pub map: LinearMap<Arc<RealTensor>>,
    /// Uploaded values, in the order of the map's inputs.
    pub inputs: Vec<ValueId>,
    /// The value it produces.
    pub output: ValueId,
    /// Factor, broadcasting to the output.
    pub post: Option<Dense>,
    /// Constant term, broadcasting to the output.
    pub bias: Option<RealTensor>,
}

/// Why a map cannot be built: the node that must stay on the device, and the reason.
#[derive(Clone, Debug)]
pub struct Unfoldable {
    /// Index of the node.
    pub node: usize,
    /// The reason.
    pub reason: String,
}

/// `scale * v + shift`; `None` for one and zero.
#[derive(Clone, Debug)]
struct Term {
    v: ValueId,
    scale: Option<Dense>,
    shift: Option<Dense>,
}

/// Builds the map of these nodes (in execution order; the last one makes the result).
///
/// # Errors
/// The node that keeps the others from being one map.
pub fn fold(graph: &Graph, nodes: &[usize]) -> Result<Folded, Unfoldable> {
    let mut steps: Vec<(usize, &Step)> = Vec::new();
    for i in nodes {
        if let Work::Affine(list) = &graph.nodes[*i].work {
            steps.extend(list.iter().map(|s| (*i, s)));
        }
    }
    let made: Vec<ValueId> = steps.iter().map(|(_, s)| s.output).collect();
    let mut inputs: Vec<ValueId> = Vec::new();
    for v in steps.iter().flat_map(|(_, s)| s.op.operands()) {
        if !made.contains(&v) && !inputs.contains(&v) {
            inputs.push(v);
        }
    }
    let shapes: Vec<Shape> = inputs.iter().map(|v| graph.shape(*v)).collect();
    let mut builder = Builder { inputs: shapes.len(), shapes, ops: Vec::new() };
    let mut terms: BTreeMap<ValueId, Term> = BTreeMap::new();
    for (i, v) in inputs.iter().enumerate() {
        terms.insert(*v, Term { v: ValueId(i as u32), scale: None, shift: None });
    }
    let last = nodes.last().copied().unwrap_or(0);
    let unfoldable = |node: usize, reason: String| Unfoldable { node, reason };
    for (node, step) in &steps {
        let term = builder.step(&step.op, &terms).map_err(|e| unfoldable(*node, e))?;
        terms.insert(step.output, term);
    }
    let output = graph.nodes.get(last).and_then(|n| n.outputs.first()).copied();
    let output = output.ok_or_else(|| unfoldable(last, "it has no result".into()))?;
    let term = terms.get(&output).cloned().ok_or_else(|| unfoldable(last, "its result is not affine".into()))?;
    let term = builder.settle(term);
    let finite = |d: &Option<Dense>| d.iter().flat_map(|d| &d.data).all(|v| (*v as f32).is_finite());
    let finite_weights = builder.ops.iter().filter_map(MapOp::constant).all(|w| all_finite(&w.data));
    if !finite(&term.scale) || !finite(&term.shift) || !finite_weights {
        return Err(unfoldable(last, "its folded constants leave the range of f32".into()));
    }
    let heavy = nodes.iter().find(|i| graph.nodes[**i].work.is_heavy()).unwrap_or(&last);
    let map = builder.finish(graph.nodes[*heavy].name.clone(), term.v);
    let bias = term.shift.map(|d| d.compress()).filter(|d| !d.is_all(0.0));
    Ok(Folded {
        map,
        inputs,
        output,
        post: term.scale.map(|d| d.compress()).filter(|d| !d.is_all(1.0)),
        bias: bias.map(|d| RealTensor { shape: d.shape, data: d.data.iter().map(|v| *v as f32).collect() }),
    })
}

/// The linear map under construction.
struct Builder {
    inputs: usize,
    /// Shapes of all values.
    shapes: Vec<Shape>,
    ops: Vec<Op>,
}

impl Builder {
    fn step(&mut self, op: &StepOp, terms: &BTreeMap<ValueId, Term>) -> Result<Term, String> {
        let term = |v: &ValueId| terms.get(v).cloned().ok_or_else(|| "an operand of it is missing".to_string());
        match op {
            StepOp::Scale { x, factor } => {
                let t = term(x)?;
                let times = |d: Option<Dense>| d.map(|d| d.zip(factor, |a, b| a * b)).transpose();
                let scale = times(t.scale)?.or_else(|| Some((**factor).clone()));
                Ok(Term { v: t.v, scale, shift: times(t.shift)? })
            }
            StepOp::Shift { x, term: c } => {
                let t = term(x)?;
                let shift = t.shift.map(|d| d.zip(c, |a, b| a + b)).transpose()?;
                Ok(Term { v: t.v, scale: t.scale, shift: shift.or_else(|| Some((**c).clone())) })
            }
            StepOp::Linear(op) => {
                let xs: Vec<Term> = op.operands().iter().map(term).collect::<Result<_, _>>()?;
                self.linear(op, xs)
            }
        }
    }

    fn linear(&mut self, op: &Op, xs: Vec<Term>) -> Result<Term, String> {
        match op {
            MapOp::Conv { .. } | MapOp::ConvTranspose { .. } | MapOp::MatMul { .. } => {
                if xs.iter().any(|x| x.scale.is_some() || x.shift.is_some()) {
                    return Err("a constant is applied in front of its weights".into());
                }
                let v = self.push(op, &xs)?;
                Ok(Term { v, scale: None, shift: None })
            }
            MapOp::Add { .. } | MapOp::Sub { .. } => self.sum(op, xs),
            MapOp::SumPool { .. } => {
                let [x] = xs.as_slice() else { return Err("a pool of other than one tensor".into()) };
                let mut x = x.clone();
                if x.scale.as_ref().is_some_and(|s| s.compress().shape.0.iter().skip(2).any(|d| *d != 1)) {
                    x = self.settle(x);
                    if x.scale.is_some() {
                        return Err("a factor in front of it varies within a window".into());
                    }
                }
                let shift = self.through(op, std::slice::from_ref(&x), |t| &t.shift, 0.0)?;
                let scale = x.scale.as_ref().map(Dense::compress);
                Ok(Term { v: self.push(op, &[x])?, scale, shift })
            }
            MapOp::Concat { .. }
            | MapOp::Reshape { .. }
            | MapOp::Transpose { .. }
            | MapOp::PadZero { .. }
            | MapOp::Slice { .. }
            | MapOp::Gather { .. }
            | MapOp::Expand { .. } => {
                let scale = self.through(op, &xs, |t| &t.scale, 1.0)?;
                let shift = self.through(op, &xs, |t| &t.shift, 0.0)?;
                Ok(Term { v: self.push(op, &xs)?, scale, shift })
            }
        }
    }

    /// Sums need one factor for both sides.
    fn sum(&mut self, op: &Op, mut xs: Vec<Term>) -> Result<Term, String> {
        if let [a, b] = xs.as_mut_slice() {
            let like = |d: &Option<Dense>| d.as_ref().map(Dense::compress).filter(|d| !d.is_all(1.0));
            if like(&a.scale) != like(&b.scale) && a.v != b.v {
                *a = self.settle(a.clone());
                *b = self.settle(b.clone());
            }
            if like(&a.scale) != like(&b.scale) {
                return Err("its operands have different factors".into());
            }
        }
        let scale = xs.first().and_then(|x| x.scale.clone());
        let shift = self.through(op, &xs, |t| &t.shift, 0.0)?;
        Ok(Term { v: self.push(op, &xs)?, scale, shift })
    }

    /// What an operation does to the factors or to the constant terms of its operands; `None` stands for `neutral`.
    fn through(
        &self,
        op: &Op,
        xs: &[Term],
        part: impl Fn(&Term) -> &Option<Dense>,
        neutral: f64,
    ) -> Result<Option<Dense>, String> {
        if xs.iter().all(|x| part(x).is_none()) {
            return Ok(None);
        }
        let full = |x: &Term| {
            let shape = &self.shapes[x.v.index()];
            part(x).clone().unwrap_or_else(|| Dense::uniform(shape.rank(), neutral)).full(shape)
        };
        let full: Vec<Dense> = xs.iter().map(full).collect::<Result<_, _>>()?;
        Ok(Some(apply(op, &full.iter().collect::<Vec<_>>(), neutral)?.compress()))
    }

    fn push(&mut self, op: &Op, xs: &[Term]) -> Result<ValueId, String> {
        let mut operands: Vec<ValueId> = xs.iter().map(|x| x.v).collect();
        if let (MapOp::Reshape { shape, .. }, [x]) = (op, operands.as_mut_slice()) {
            // A reshape of a reshape needs the second only, or neither.
            while let Some(MapOp::Reshape { x: inner, .. }) = self.definition(*x) {
                *x = *inner;
            }
            if self.shapes[x.index()].0 == *shape {
                return Ok(*x);
            }
        }
        let op = with_operands(op, &operands)?;
        let shapes: Vec<&Shape> = operands.iter().map(|x| &self.shapes[x.index()]).collect();
        let shape = op.shape(&shapes, op.constant().map(|w| &w.shape))?;
        self.ops.push(op);
        self.shapes.push(shape);
        Ok(ValueId((self.shapes.len() - 1) as u32))
    }

    fn definition(&self, v: ValueId) -> Option<&Op> {
        self.ops.get(v.index().checked_sub(self.inputs)?)
    }

    /// Moves the factor into weights where that is possible.
    fn settle(&mut self, term: Term) -> Term {
        match &term.scale {
            Some(scale) if self.absorb(term.v, scale) => Term { scale: None, ..term },
            _ => term,
        }
    }

    /// Multiplies the value `v` by `scale` by changing weights; `false`, and no change, if that cannot be done.
    fn absorb(&mut self, v: ValueId, scale: &Dense) -> bool {
        let Some(at) = v.index().checked_sub(self.inputs) else { return false };
        if self.ops.iter().any(|op| op.operands().contains(&v)) {
            return false;
        }
        let scale = scale.compress();
        let uniform = scale.as_uniform();
        let Some(op) = self.ops.get(at).cloned() else { return false };
        let rows = match &op {
            MapOp::Conv { w, .. } | MapOp::ConvTranspose { w, .. } => along(&scale, 1, w.shape.0[0]),
            MapOp::MatMul { w, .. } if uniform.is_some() || w.shape.rank() == 2 => {
                let n = w.shape.0[w.shape.rank() - 2];
                along(&scale, scale.shape.rank().saturating_sub(1), n)
            }
            MapOp::MatMul { .. }
            | MapOp::SumPool { .. }
            | MapOp::Add { .. }
            | MapOp::Sub { .. }
            | MapOp::Concat { .. }
            | MapOp::Reshape { .. }
            | MapOp::Transpose { .. }
            | MapOp::PadZero { .. }
            | MapOp::Slice { .. }
            | MapOp::Gather { .. }
            | MapOp::Expand { .. } => None,
        };
        let Some(rows) = rows else { return false };
        let leading = matches!(op, MapOp::MatMul { .. });
        let scaled = op.with_constant(|w| {
            // Rows are the first axis of a kernel, the last but one of a matrix.
            let inner: usize = if leading { w.shape.0[w.shape.rank() - 1] } else { w.shape.0.iter().skip(1).product() };
            let scaled =
                |(row, by): (&[f32], &f64)| row.iter().map(|v| (f64::from(*v) * by) as f32).collect::<Vec<_>>();
            let data = w.data.chunks(inner.max(1)).zip(rows.iter().cycle()).flat_map(scaled).collect();
            Arc::new(RealTensor { shape: w.shape.clone(), data })
        });
        self.ops[at] = scaled;
        true
    }

    /// The finished map: zero padding merged into convolutions, operations that nothing reads left out.
    fn finish(mut self, name: String, output: ValueId) -> LinearMap<Arc<RealTensor>> {
        while let Some((pad, conv)) = self.padded_conv() {
            let MapOp::PadZero { x: source, before, after } = self.ops[pad].clone() else { break };
            let MapOp::Conv { x, pads_before, pads_after, .. } = &mut self.ops[conv] else { break };
            *x = source;
            pads_before.iter_mut().zip(before.iter().skip(2)).for_each(|(p, more)| *p += more);
            pads_after.iter_mut().zip(after.iter().skip(2)).for_each(|(p, more)| *p += more);
        }
        let mut read: BTreeSet<ValueId> = [output].into();
        for (i, op) in self.ops.iter().enumerate().rev() {
            if read.contains(&ValueId((self.inputs + i) as u32)) {
                read.extend(op.operands());
            }
        }
        let mut number: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        let mut ops = Vec::with_capacity(self.ops.len());
        for v in 0..self.shapes.len() as u32 {
            let Some(at) = (v as usize).checked_sub(self.inputs) else {
                number.insert(ValueId(v), ValueId(v));
                continue;
            };
            if read.contains(&ValueId(v)) {
                number.insert(ValueId(v), ValueId((self.inputs + ops.len()) as u32));
                let xs: Vec<ValueId> = self.ops[at].operands().iter().filter_map(|x| number.get(x).copied()).collect();
                ops.extend(with_operands(&self.ops[at], &xs));
            }
        }
        self.shapes.truncate(self.inputs);
        let output = number.get(&output).copied().unwrap_or(output);
        LinearMap { name, inputs: self.shapes, ops, output }
    }

    /// A zero padding and the convolution that alone reads it.
    fn padded_conv(&self) -> Option<(usize, usize)> {
        self.ops.iter().enumerate().find_map(|(pad, op)| {
            let MapOp::PadZero { before, after, .. } = op else { return None };
            let outer = before.iter().take(2).chain(after.iter().take(2)).any(|p| *p != 0);
            let v = ValueId((self.inputs + pad) as u32);
            let mut readers = self.ops.iter().enumerate().filter(|(_, op)| op.operands().contains(&v));
            let (conv, reader) = readers.next()?;
            let alone = readers.next().is_none() && matches!(reader, MapOp::Conv { .. });
            (alone && !outer).then_some((pad, conv))
        })
    }
}

/// The values of `scale` along `axis`, `n` of them, if it varies along no other.
fn along(scale: &Dense, axis: usize, n: usize) -> Option<Vec<f64>> {
    if let Some(v) = scale.as_uniform() {
        return Some(vec![v; n]);
    }
    let only = scale.shape.0.iter().enumerate().all(|(a, d)| a == axis || *d == 1);
    (only && scale.data.len() == n).then(|| scale.data.clone())
}

/// The same operation on other operands.
fn with_operands(op: &Op, xs: &[ValueId]) -> Result<Op, String> {
    let mut op = op.clone();
    let wrong = || "wrong number of operands".to_string();
    match (&mut op, xs) {
        (
            MapOp::Conv { x, .. }
            | MapOp::ConvTranspose { x, .. }
            | MapOp::MatMul { x, .. }
            | MapOp::SumPool { x, .. }
            | MapOp::Reshape { x, .. }
            | MapOp::Transpose { x, .. }
            | MapOp::PadZero { x, .. }
            | MapOp::Slice { x, .. }
            | MapOp::Gather { x, .. }
            | MapOp::Expand { x, .. },
            [new],
        ) => *x = *new,
        (MapOp::Add { a, b } | MapOp::Sub { a, b }, [first, second]) => (*a, *b) = (*first, *second),
        (MapOp::Concat { xs: old, .. }, new) if old.len() == new.len() => *old = new.to_vec(),
        _ => return Err(wrong()),
    }
    Ok(op)
}
