//! Which weight rows each output element of a linear map depends on, and how large it can become.
//!
//! A *row* is one output channel of a heavy operation (convolution, matrix product). Elements that are added must
//! share one row scale, so rows that meet in a sum form a *class*. Along the way the pass carries, for every
//! element, the sums P of positive and N of absolute negative weights and the number of inputs read: they
//! bound the element whatever light operations follow the heavy one.

use pponnx_plans::map::{LinearMap, MapOp};
use pponnx_plans::reference::linear::step;
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::value::{Shape, ValueId};

/// No row: a zero that padding put there.
pub const NONE: u32 = u32::MAX;
/// An input of the map that has not met a heavy operation.
const RAW: u32 = u32::MAX - 1;

/// Sums over the weights of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reach {
    /// Sum of positive weights.
    pub positive: f64,
    /// Sum of absolute negative weights.
    pub negative: f64,
    /// Number of inputs read.
    pub inputs: f64,
}

/// The heavy operations of a map and their rows.
#[derive(Clone, Debug)]
pub struct Heavy {
    /// Index of the operation in the map.
    pub op: usize,
    /// Number of the first of its rows.
    pub first: usize,
    /// Number of rows.
    pub rows: usize,
    /// Rows that read one group of inputs: rows / groups.
    pub rows_per_group: usize,
    /// Inputs of one row.
    pub inputs: usize,
}

/// Result of the pass over one map.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Heavy operations in order.
    pub heavy: Vec<Heavy>,
    /// Class of each row.
    pub class: Vec<u32>,
    /// Number of classes.
    pub classes: usize,
    /// Row behind each output element ([`NONE`] for padding), with the output's shape, or with axes of size 1 where the
    /// row does not depend on the position.
    pub output: Tensor<u32>,
    /// Largest reach of an element of each class, taken per row over the elements that end in the output.
    pub reach: Vec<Reach>,
}

struct Classes(Vec<u32>);

impl Classes {
    fn find(&mut self, mut i: u32) -> u32 {
        while self.0[i as usize] != i {
            self.0[i as usize] = self.0[self.0[i as usize] as usize];
            i = self.0[i as usize];
        }
        i
    }
    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b) as usize] = a.min(b);
    }
}

/// One element on its way: the row it came from and what it can reach.
#[derive(Clone, Copy)]
struct Trace {
    row: u32,
    reach: Reach,
}

const NOWHERE: Trace = Trace { row: NONE, reach: Reach { positive: 0.0, negative: 0.0, inputs: 0.0 } };

/// Runs the pass. `weights` are real numbers or already integers (as f32 or f64): the sums follow them.
///
/// # Errors
/// A sentence, if the map is not of the shape that the split promises: exactly one heavy operation on each path.
pub fn rows<C, W: Fn(usize, &C) -> Vec<Reach>>(
    map: &LinearMap<C>,
    shapes: &[Shape],
    weight_shape: impl Fn(&C) -> Shape,
    reach_of: W,
) -> Result<Rows, String> {
    let inputs = map.inputs.len();
    let mut heavy = Vec::new();
    let mut first = 0;
    for (i, op) in map.ops.iter().enumerate() {
        let Some(w) = op.constant() else { continue };
        let shape = weight_shape(w);
        let (rows, row_inputs, per_group) = match op {
            MapOp::Conv { groups, .. } | MapOp::ConvTranspose { groups, .. } => {
                (shape.0[0], shape.0[1..].iter().product(), shape.0[0] / (*groups).max(1))
            }
            _ => {
                let n = shape.0[shape.rank() - 2];
                let batches: usize = shape.0[..shape.rank() - 2].iter().product();
                (n * batches, shape.0[shape.rank() - 1], n * batches)
            }
        };
        heavy.push(Heavy { op: i, first, rows, rows_per_group: per_group, inputs: row_inputs });
        first += rows;
    }
    let single = matches!(map.ops.as_slice(), [op] if op.constant().is_some());
    let mut classes = Classes((0..first as u32).collect());
    let mut reach = vec![NOWHERE.reach; first];
    let output = if single {
        let own = reach_of(0, map.ops[0].constant().ok_or("no weights")?);
        reach.copy_from_slice(&own);
        row_tensor(&map.ops[0], &weight_shape(map.ops[0].constant().ok_or("no weights")?), &shapes[inputs], 0)
    } else {
        let mut values: Vec<Option<Tensor<Trace>>> = Vec::new();
        for shape in &map.inputs {
            let raw = Trace { row: RAW, reach: NOWHERE.reach };
            values.push(Some(Tensor { shape: shape.clone(), data: vec![raw; shape.len()] }));
        }
        let mut next = heavy.iter();
        for (i, op) in map.ops.iter().enumerate() {
            let operand = |v: ValueId| values[v.index()].as_ref().ok_or("value is missing");
            let out = &shapes[inputs + i];
            let value = if let Some(w) = op.constant() {
                let h = next.next().ok_or("heavy operation is missing")?;
                if operand(op.operands()[0])?.data.iter().any(|t| t.row < RAW) {
                    return Err("two heavy operations on one path".into());
                }
                let own = reach_of(i, w);
                let ids = row_tensor(op, &weight_shape(w), out, h.first as u32);
                let full = broadcast(&ids, out);
                Tensor {
                    shape: out.clone(),
                    data: full.into_iter().map(|row| Trace { row, reach: own[row as usize - h.first] }).collect(),
                }
            } else {
                light(op, &values, out, &mut classes)?
            };
            values.push(Some(value));
        }
        let last = values.swap_remove(map.output.index()).ok_or("the result is missing")?;
        for t in &last.data {
            match t.row {
                NONE => {}
                RAW => return Err("a path without a heavy operation".into()),
                row => {
                    let r = &mut reach[row as usize];
                    // an element stands for its whole class; the larger sums win, component by component
                    r.positive = r.positive.max(t.reach.positive);
                    r.negative = r.negative.max(t.reach.negative);
                    r.inputs = r.inputs.max(t.reach.inputs);
                }
            }
        }
        compress(Tensor { shape: last.shape, data: last.data.iter().map(|t| t.row).collect() })
    };
    let mut numbers = std::collections::BTreeMap::new();
    let mut class = Vec::with_capacity(first);
    for row in 0..first as u32 {
        let root = classes.find(row);
        let n = numbers.len() as u32;
        class.push(*numbers.entry(root).or_insert(n));
    }
    let total = numbers.len();
    // joined rows share the largest reach of any of them: the element that joined them carries it
    let mut of_class = vec![NOWHERE.reach; total];
    for (row, c) in class.iter().enumerate() {
        let (r, o) = (reach[row], &mut of_class[*c as usize]);
        o.positive = o.positive.max(r.positive);
        o.negative = o.negative.max(r.negative);
        o.inputs = o.inputs.max(r.inputs);
    }
    Ok(Rows { heavy, class, classes: total, output, reach: of_class })
}

/// Rows of a heavy operation's result, one entry where the row does not depend on the axis.
fn row_tensor<C>(op: &MapOp<C>, w: &Shape, out: &Shape, first: u32) -> Tensor<u32> {
    let mut shape = vec![1; out.rank()];
    let rows: usize = match op {
        MapOp::MatMul { .. } => {
            let batch = &w.0[..w.rank() - 2];
            if !batch.is_empty() {
                shape[..batch.len()].copy_from_slice(batch);
            }
            shape[out.rank() - 1] = w.0[w.rank() - 2];
            w.0[..w.rank() - 1].iter().product()
        }
        _ => {
            shape[1] = w.0[0];
            w.0[0]
        }
    };
    Tensor { shape: Shape(shape), data: (0..rows as u32).map(|r| first + r).collect() }
}

/// Every element of `shape`, reading `t` with axes of size 1 repeated.
pub fn broadcast<T: Copy>(t: &Tensor<T>, shape: &Shape) -> Vec<T> {
    if t.shape == *shape {
        return t.data.clone();
    }
    let skip = shape.rank() - t.shape.rank().min(shape.rank());
    let own = t.shape.strides();
    let strides: Vec<usize> =
        (0..shape.rank()).map(|a| if a < skip || t.shape.0[a - skip] == 1 { 0 } else { own[a - skip] }).collect();
    let mut out = Vec::with_capacity(shape.len());
    let mut index = vec![0usize; shape.rank()];
    let mut at = 0usize;
    for _ in 0..shape.len() {
        out.push(t.data[at]);
        for axis in (0..shape.rank()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape.0[axis] {
                break;
            }
            at -= strides[axis] * shape.0[axis];
            index[axis] = 0;
        }
    }
    out
}

/// Axes along which nothing changes shrink to size 1.
pub fn compress<T: Copy + PartialEq>(t: Tensor<T>) -> Tensor<T> {
    let mut t = t;
    for axis in 0..t.shape.rank() {
        let n = t.shape.0[axis];
        let inner: usize = t.shape.0[axis + 1..].iter().product();
        if n <= 1 || inner == 0 {
            continue;
        }
        let constant = t.data.chunks_exact(n * inner).all(|c| c.chunks_exact(inner).all(|p| p == &c[..inner]));
        if constant {
            t.data = t.data.chunks_exact(n * inner).flat_map(|c| c[..inner].iter().copied()).collect();
            t.shape.0[axis] = 1;
        }
    }
    t
}

/// A light operation on traces: sums join rows, everything else moves elements.
fn light<C>(
    op: &MapOp<C>,
    values: &[Option<Tensor<Trace>>],
    out: &Shape,
    classes: &mut Classes,
) -> Result<Tensor<Trace>, String> {
    let operand = |v: &ValueId| values.get(v.index()).and_then(Option::as_ref).ok_or("value is missing");
    let mut meet = |a: Trace, b: Trace, minus: bool| -> Result<Trace, String> {
        let (p, n) = if minus { (b.reach.negative, b.reach.positive) } else { (b.reach.positive, b.reach.negative) };
        let row = match (a.row, b.row) {
            (NONE, r) | (r, NONE) => r,
            (RAW, RAW) => RAW,
            (RAW, _) | (_, RAW) => return Err("a sum with a tensor that no heavy operation read".into()),
            (r, s) => {
                classes.join(r, s);
                r
            }
        };
        Ok(Trace {
            row,
            reach: Reach {
                positive: a.reach.positive + p,
                negative: a.reach.negative + n,
                inputs: a.reach.inputs + b.reach.inputs,
            },
        })
    };
    match op {
        MapOp::Add { a, b } | MapOp::Sub { a, b } => {
            let minus = matches!(op, MapOp::Sub { .. });
            let (a, b) = (operand(a)?, operand(b)?);
            let data = a.data.iter().zip(&b.data).map(|(a, b)| meet(*a, *b, minus)).collect::<Result<_, _>>()?;
            Ok(Tensor { shape: out.clone(), data })
        }
        MapOp::SumPool { x, .. } => {
            // sum the sums through the same windows, and take any row of the window: all are of one class
            let x = operand(x)?;
            let sums = |f: fn(&Trace) -> f64| -> Result<Vec<f64>, String> {
                let t = Tensor { shape: x.shape.clone(), data: x.data.iter().map(f).collect() };
                Ok(move_values(op, &[&t])?.data)
            };
            let (p, n, c) = (sums(|t| t.reach.positive)?, sums(|t| t.reach.negative)?, sums(|t| t.reach.inputs)?);
            let channels = x.shape.0[0] * x.shape.0[1];
            let (inner_in, inner_out) = (x.data.len() / channels.max(1), out.len() / channels.max(1));
            let mut data = Vec::with_capacity(out.len());
            for ch in 0..channels {
                let plane = &x.data[ch * inner_in..(ch + 1) * inner_in];
                let mut acc = NOWHERE;
                for t in plane {
                    acc = meet(acc, Trace { row: t.row, reach: NOWHERE.reach }, false)?;
                }
                for i in ch * inner_out..(ch + 1) * inner_out {
                    data.push(Trace { row: acc.row, reach: Reach { positive: p[i], negative: n[i], inputs: c[i] } });
                }
            }
            Ok(Tensor { shape: out.clone(), data })
        }
        MapOp::Concat { xs, .. } => moved(op, &xs.iter().map(operand).collect::<Result<Vec<_>, _>>()?),
        MapOp::Reshape { x, .. }
        | MapOp::Transpose { x, .. }
        | MapOp::PadZero { x, .. }
        | MapOp::Slice { x, .. }
        | MapOp::Gather { x, .. }
        | MapOp::Expand { x, .. } => moved(op, &[operand(x)?]),
        MapOp::Conv { .. } | MapOp::ConvTranspose { .. } | MapOp::MatMul { .. } => Err("not a light operation".into()),
    }
}

/// Moves traces by moving their positions (plus one; zero is padding) with the reference operation.
fn moved<C>(op: &MapOp<C>, xs: &[&Tensor<Trace>]) -> Result<Tensor<Trace>, String> {
    let mut all = Vec::new();
    let mut positions = Vec::new();
    for x in xs {
        let start = all.len();
        all.extend_from_slice(&x.data);
        positions.push(Tensor { shape: x.shape.clone(), data: (start..all.len()).map(|i| (i + 1) as f64).collect() });
    }
    let refs: Vec<&Tensor<f64>> = positions.iter().collect();
    let out = move_values(op, &refs)?;
    let data = out.data.iter().map(|p| if *p == 0.0 { NOWHERE } else { all[*p as usize - 1] }).collect();
    Ok(Tensor { shape: out.shape, data })
}

fn move_values<C>(op: &MapOp<C>, xs: &[&Tensor<f64>]) -> Result<Tensor<f64>, String> {
    step(op, xs, None::<&Tensor<i32>>).map_err(|e| e.to_string())
}
