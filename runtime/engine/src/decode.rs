//! Checked integers to real numbers.

use pponnx_kernels::Kernels;
use pponnx_plans::reference::number::{decode_one, pow2};
use pponnx_plans::value::Shape;

use crate::check::Verified;
use crate::error::EngineError;
use crate::memory::Encoded;
use crate::ring::unfit;
use crate::value::TensorValue;

/// The constants of one `decode`, broadcast once at load.
///
/// The result's elements fall into runs of `run` neighbours that share scale, bias and group (a channel's pixels, for
/// a convolution); the constants repeat after all runs of the table (for each batch entry).
pub(crate) struct DecodeTable {
    shape: Shape,
    run: usize,
    scale: Vec<f64>,
    bias: Vec<f32>,
    /// Empty where there is one group only.
    group: Vec<u32>,
}

/// A constant and its shape.
pub(crate) struct Table<T> {
    pub(crate) shape: Shape,
    pub(crate) data: Vec<T>,
}

impl DecodeTable {
    /// Broadcasts the constants to `shape`: axes aligned at the end, axes of size 1 repeated.
    ///
    /// # Errors
    /// A sentence, if one does not broadcast.
    pub(crate) fn new(
        shape: &Shape,
        scale: &Table<f64>,
        bias: &Table<f32>,
        group: Option<&Table<u32>>,
    ) -> Result<DecodeTable, String> {
        let rank = shape.rank();
        let mut shapes = vec![&scale.shape, &bias.shape];
        shapes.extend(group.map(|g| &g.shape));
        // Whether no constant changes along an axis.
        let mut still = vec![true; rank];
        for constant in &shapes {
            let lead = rank.checked_sub(constant.rank()).ok_or_else(|| format!("{constant} for {shape}"))?;
            for (axis, d) in constant.0.iter().enumerate() {
                if *d != 1 && *d != shape.0[axis + lead] {
                    return Err(format!("a constant of shape {constant} does not broadcast to {shape}"));
                }
                still[axis + lead] &= *d == 1;
            }
        }
        let first = still.iter().position(|s| !s).unwrap_or(rank);
        let last = still.iter().rposition(|s| !s).map_or(first, |a| a + 1);
        let box_ = &shape.0[first..last];
        let run = shape.0[last..].iter().product();
        let pick = |constant: &Shape| indices(constant, box_, rank, first);
        Ok(DecodeTable {
            shape: shape.clone(),
            run,
            scale: picked(&scale.data, &pick(&scale.shape))?,
            bias: picked(&bias.data, &pick(&bias.shape))?,
            group: match group {
                Some(g) => picked(&g.data, &pick(&g.shape))?,
                None => Vec::new(),
            },
        })
    }
}

/// For each element of the axes `first..first + dims.len()`, row-major: which element of the constant lies there.
fn indices(constant: &Shape, dims: &[usize], rank: usize, first: usize) -> Vec<usize> {
    let lead = rank - constant.rank();
    let strides = constant.strides();
    let mut list = vec![0usize];
    for (i, d) in dims.iter().enumerate() {
        let axis = (first + i).checked_sub(lead);
        let step = axis.map_or(0, |a| if constant.0[a] == 1 { 0 } else { strides[a] });
        list = list.iter().flat_map(|base| (0..*d).map(move |j| base + j * step)).collect();
    }
    list
}

fn picked<T: Copy>(data: &[T], indices: &[usize]) -> Result<Vec<T>, String> {
    let all = indices.iter().map(|i| data.get(*i).copied()).collect::<Option<Vec<T>>>();
    all.ok_or_else(|| "a constant is shorter than its shape".into())
}

/// `f32(f64(z) * scale * 2^-a + f64(bias))`, equal to [`pponnx_plans::reference::number::decode`] bit for bit: one
/// product, one sum, one rounding, never fused.
///
/// # Errors
/// [`EngineError::PlanMismatch`] if a group number lies beyond the groups of `source`; loading has checked it.
pub(crate) fn decode(
    z: &Verified<Vec<i64>>,
    source: &Encoded,
    table: &DecodeTable,
    kernels: Kernels,
) -> Result<TensorValue, EngineError> {
    let z = z.value();
    let inverse: Vec<f64> = source.exponents.iter().map(|a| pow2(-a)).collect();
    let of = |group: u32| inverse.get(group as usize).copied();
    let factors = match table.group.as_slice() {
        [] => table.scale.iter().map(|s| of(0).map(|f| s * f)).collect::<Option<Vec<f64>>>(),
        groups => table.scale.iter().zip(groups).map(|(s, g)| of(*g).map(|f| s * f)).collect(),
    };
    let factors = factors.ok_or_else(|| EngineError::mismatch("decode names a group that its source lacks"))?;
    let mut out = vec![0f32; z.len()];
    let rows = factors.iter().zip(&table.bias).cycle();
    if table.run == 1 {
        let each = z.iter().zip(rows).zip(&mut out);
        each.for_each(|((z, (factor, bias)), out)| *out = decode_one(*z, *factor, *bias));
    } else {
        let run = table.run.max(1);
        for ((z, out), (factor, bias)) in z.chunks(run).zip(out.chunks_mut(run)).zip(rows) {
            kernels.decode_row(z, *factor, *bias, out).map_err(unfit)?;
        }
    }
    TensorValue::from_f32(table.shape.clone(), out)
}
