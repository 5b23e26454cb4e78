//! Real weights to integers, with sound bounds on what the edges' results can reach.
//!
//! Every row (output channel) has its own scale `s = min(beta / max(P, N), limit / max|w|)` with
//! `beta = 2^(k/2 - 2) * sqrt(K)`: P and N are the row's sums of positive and of absolute negative weights, K
//! the inputs of the longest row. It balances the rounding of weights and of activations. All bounds are taken from the
//! rounded integers, so an inexact scale costs accuracy and never soundness.

use std::sync::Arc;

use pponnx_plans::map::{LinearMap, MapOp};
use pponnx_plans::plan::{Bound, Patch};
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::value::{DType, Shape, ValueId};

use crate::ir::integer::{IntMap, IntPart, IntStage, IntWeights, Upload};
use crate::ir::split::{Part, RealMap, RealTensor, Stage};
use crate::passes::rows::{self, Heavy, NONE, Reach, Rows};
use crate::passes::weights::{IntRow, RealRow, real_rows, round_rows};
use crate::precision::Precision;

/// Quantises every stage; local segments pass through.
///
/// # Errors
/// Name of the map and what is wrong with it. The split never makes such maps; the check is against mistakes in it.
pub fn quantise(parts: Vec<Part>, precision: Precision) -> Result<Vec<IntPart>, (String, String)> {
    let mut out = Vec::new();
    for part in parts {
        out.push(match part {
            Part::Local(l) => IntPart::Local(l),
            Part::Stage(s) => IntPart::Stage(stage(s, precision)?),
        });
    }
    Ok(out)
}

fn stage(stage: Stage, precision: Precision) -> Result<IntStage, (String, String)> {
    let mut done = Vec::new();
    for map in stage.maps {
        let name = map.map.name.clone();
        done.push(quantise_map(map, precision).map_err(|e| (name, e))?);
    }
    let mut uploads: Vec<Upload> = Vec::new();
    for (map, groups) in &done {
        match uploads.iter_mut().find(|u| u.tensor == map.input) {
            // consumers that group differently need one exponent for the whole tensor
            Some(u) if u.groups != *groups => u.groups = 1,
            Some(_) => {}
            None => uploads.push(Upload { tensor: map.input, groups: *groups }),
        }
    }
    let maps = done
        .into_iter()
        .map(|(mut map, groups)| {
            let wanted = uploads.iter().find(|u| u.tensor == map.input).map_or(1, |u| u.groups);
            if wanted != groups {
                map.group = None;
            }
            map
        })
        .collect();
    Ok(IntStage { uploads, maps })
}

fn quantise_map(real: RealMap, precision: Precision) -> Result<(IntMap, usize), String> {
    let [input] = real.inputs[..] else {
        return Err(format!("a map over {} uploads; exponents are chosen per upload", real.inputs.len()));
    };
    let map = &real.map;
    let shapes = value_shapes(map)?;
    let sums: Vec<Vec<RealRow>> = map.ops.iter().map(real_sums).collect();
    let reach = |op: usize, _: &Arc<RealTensor>| {
        let w = map.ops[op].constant().map(|w| &w.shape);
        let inputs = w.map_or(0, |w| row_len(&map.ops[op], w)) as f64;
        sums[op].iter().map(|r| Reach { positive: r.positive, negative: r.negative, inputs }).collect()
    };
    let found = rows::rows(map, &shapes, |w| w.shape.clone(), reach)?;
    let scales = row_scales(&sums, &found, precision);
    let dtype = if precision == Precision::Fast { DType::I16 } else { DType::I32 };
    let mut heavy = found.heavy.iter();
    let mut ops: Vec<MapOp<Arc<IntWeights>>> = Vec::with_capacity(map.ops.len());
    let mut int_sums: Vec<Vec<IntRow>> = Vec::with_capacity(map.ops.len());
    for op in &map.ops {
        let mut weights = IntWeights { dtype, shape: Shape(vec![0]), bytes: Vec::new() };
        let mut sums = Vec::new();
        if let Some(w) = op.constant() {
            let h = heavy.next().ok_or("heavy operation without rows")?;
            let per_row: Vec<f64> = (0..h.rows).map(|m| scales[found.class[h.first + m] as usize]).collect();
            (weights.bytes, sums) = round_rows(&w.data, &per_row, dtype);
            weights.shape = w.shape.clone();
        }
        let weights = Arc::new(weights);
        ops.push(op.clone().with_constant(|_| Arc::clone(&weights)));
        int_sums.push(sums);
    }
    let int = LinearMap { name: map.name.clone(), inputs: map.inputs.clone(), ops, output: map.output };
    let (bound, groups) = bound_of(&int, &shapes, &int_sums, precision)?;

    let out_shape = &shapes[map.output.index()];
    let inverse = |row: u32| if row == NONE { 1.0 } else { 1.0 / scales[found.class[row as usize] as usize] };
    let ids = &found.output;
    let mut scale = Tensor { shape: ids.shape.clone(), data: ids.data.iter().map(|r| inverse(*r)).collect() };
    if let Some((shape, post)) = &real.post {
        let wide = rows::broadcast(&scale, out_shape);
        let factor = rows::broadcast(&Tensor { shape: shape.clone(), data: post.clone() }, out_shape);
        let data = wide.iter().zip(&factor).map(|(a, b)| a * b).collect();
        scale = rows::compress(Tensor { shape: out_shape.clone(), data });
    }
    let group = (groups > 1).then(|| {
        let of_row = |row: u32| {
            let inside = |h: &&Heavy| (row as usize) >= h.first && (row as usize) < h.first + h.rows;
            let h = found.heavy.iter().find(inside);
            h.map_or(0, |h| ((row as usize - h.first) / h.rows_per_group) as u32)
        };
        Tensor { shape: ids.shape.clone(), data: ids.data.iter().map(|r| of_row(*r)).collect() }
    });
    let bias =
        real.bias.unwrap_or_else(|| RealTensor { shape: Shape(vec![1; out_shape.rank()]), data: vec![0.0].into() });
    Ok((IntMap { map: int, input, output: real.output, scale, bias, group, bound, nodes: real.nodes }, groups))
}

/// Shapes of all values of a map: inputs, then results.
///
/// # Errors
/// The first shape rule that an operation breaks.
pub fn value_shapes(map: &LinearMap<Arc<RealTensor>>) -> Result<Vec<Shape>, String> {
    let mut shapes = map.inputs.clone();
    for op in &map.ops {
        let xs: Option<Vec<&Shape>> = op.operands().iter().map(|v: &ValueId| shapes.get(v.index())).collect();
        let shape = op.shape(&xs.ok_or("operand not defined")?, op.constant().map(|w| &w.shape))?;
        shapes.push(shape);
    }
    Ok(shapes)
}

/// Inputs of one row: the last axis of a matrix, all but the first axis of a convolution.
fn row_len<C>(op: &MapOp<C>, w: &Shape) -> usize {
    match op {
        MapOp::MatMul { .. } => w.0.last().copied().unwrap_or(1),
        _ => w.0.iter().skip(1).product(),
    }
}

fn real_sums(op: &MapOp<Arc<RealTensor>>) -> Vec<RealRow> {
    op.constant().map(|w| real_rows(&w.data, row_len(op, &w.shape))).unwrap_or_default()
}

/// `sums` are those of each operation's rows.
fn row_scales(sums: &[Vec<RealRow>], found: &Rows, precision: Precision) -> Vec<f64> {
    let k = precision.ring_bits();
    let longest = found.reach.iter().map(|r| r.inputs).fold(1.0, f64::max);
    let beta = f64::from(1u32 << (k / 2 - 2)) * longest.sqrt();
    let mut largest = vec![0.0f64; found.classes];
    for h in &found.heavy {
        for (m, row) in sums[h.op].iter().enumerate() {
            let class = found.class[h.first + m] as usize;
            largest[class] = largest[class].max(f64::from(row.largest));
        }
    }
    found
        .reach
        .iter()
        .zip(&largest)
        .map(|(r, w)| {
            let budget = beta / r.positive.max(r.negative);
            let scale = budget.min(precision.weight_limit() / w);
            // a row of zeros, or of weights so small that the scale leaves f64's comfortable range
            if scale.is_finite() && scale > 0.0 { scale.min(1e200) } else { 1.0 }
        })
        .collect()
}

/// The integer bound of a map, and the number of exponent groups it allows its input.
fn bound_of(
    map: &LinearMap<Arc<IntWeights>>,
    shapes: &[Shape],
    sums: &[Vec<IntRow>],
    precision: Precision,
) -> Result<(Bound, usize), String> {
    // Sums up to 2^53 are exact in f64, and larger ones are refused below.
    let reach = |op: usize, w: &Arc<IntWeights>| {
        let inputs = row_len(&map.ops[op], &w.shape) as f64;
        let of = |r: &IntRow| Reach { positive: r.positive as f64, negative: r.negative as f64, inputs };
        sums[op].iter().map(of).collect()
    };
    let found = rows::rows(map, shapes, |w| w.shape.clone(), reach)?;
    let direct = |op: &MapOp<Arc<IntWeights>>| op.operands() == [ValueId(0)];
    let heavy_ops: Vec<&MapOp<Arc<IntWeights>>> = found.heavy.iter().map(|h| &map.ops[h.op]).collect();
    let groups = match heavy_ops.first() {
        Some(MapOp::Conv { groups, .. } | MapOp::ConvTranspose { groups, .. }) => *groups,
        _ => 1,
    };
    let same = heavy_ops.iter().all(|op| {
        let g = match op {
            MapOp::Conv { groups, .. } | MapOp::ConvTranspose { groups, .. } => *groups,
            _ => 1,
        };
        g == groups && direct(op)
    });
    // rows of one class must read one group
    let group_of = |row: usize| {
        let h = found.heavy.iter().find(|h| row >= h.first && row < h.first + h.rows);
        h.map_or(0, |h| (row - h.first) / h.rows_per_group.max(1))
    };
    let mut class_group = vec![None; found.classes];
    let mut apart = true;
    for (row, class) in found.class.iter().enumerate() {
        let g = class_group[*class as usize].get_or_insert(group_of(row));
        apart &= *g == group_of(row);
    }
    let groups = if same && apart { groups } else { 1 };
    let slot = |row: usize| if groups > 1 { group_of(row) } else { 0 };
    let (mut major, mut minor) = (vec![0u64; groups], vec![0u64; groups]);
    for (row, class) in found.class.iter().enumerate() {
        let r = found.reach[*class as usize];
        if r.positive.max(r.negative) > 9e15 {
            return Err("sums of weights beyond 2^53".into());
        }
        let (p, n) = (r.positive as u64, r.negative as u64);
        let g = slot(row);
        major[g] = major[g].max(p.max(n));
        minor[g] = minor[g].max(p.min(n));
    }
    let (square, patch) = patch_of(map, &found, groups, &slot, sums, &heavy_ops, &direct);
    Ok((Bound { k: precision.ring_bits(), major, minor, square, patch }, groups))
}

/// Sums of squares for the Cauchy-Schwarz bound. It covers maps in which every result is one row of one heavy
/// operation; sums and pools of rows do without.
fn patch_of(
    map: &LinearMap<Arc<IntWeights>>,
    found: &Rows,
    groups: usize,
    slot: &dyn Fn(usize) -> usize,
    sums: &[Vec<IntRow>],
    heavy_ops: &[&MapOp<Arc<IntWeights>>],
    direct: &dyn Fn(&MapOp<Arc<IntWeights>>) -> bool,
) -> (Vec<u64>, Patch) {
    let moves_only =
        map.ops.iter().all(|op| !matches!(op, MapOp::Add { .. } | MapOp::Sub { .. } | MapOp::SumPool { .. }));
    // a gather or expand in front of the heavy operation may read one input twice, which a patch counts once
    let repeats = map.ops.iter().any(|op| matches!(op, MapOp::Gather { .. } | MapOp::Expand { .. }));
    let all_direct = heavy_ops.iter().all(|op| direct(op));
    if !moves_only || (repeats && !all_direct) {
        return (Vec::new(), Patch::Whole);
    }
    let mut square = vec![0u64; groups];
    for h in &found.heavy {
        for (m, row) in sums[h.op].iter().enumerate() {
            let g = slot(h.first + m);
            square[g] = square[g].max(row.square);
        }
    }
    let of = |op: &MapOp<Arc<IntWeights>>| match op {
        MapOp::Conv { w, strides, dilations, pads_before, pads_after, .. } if direct(op) => Patch::Window {
            kernel: w.shape.0[2..].to_vec(),
            strides: strides.clone(),
            dilations: dilations.clone(),
            pads_before: pads_before.clone(),
            pads_after: pads_after.clone(),
        },
        MapOp::MatMul { .. } if direct(op) => Patch::LastAxis,
        _ => Patch::Whole,
    };
    let patches: Vec<Patch> = heavy_ops.iter().map(|op| of(op)).collect();
    match patches.as_slice() {
        [first, rest @ ..] if rest.iter().all(|p| p == first) => (square, first.clone()),
        _ => (square, Patch::Whole),
    }
}

#[cfg(test)]
#[path = "quantise_test.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
