//! Linear maps on ring elements: weights packed once for the kernels, the rest as the reference says.

use std::borrow::Cow;

use pponnx_kernels::{ConvSpec, ConvTransposeSpec, Input, KernelError, Kernels, MatMulSpec, Output};
use pponnx_kernels::{PackedConv, PackedConvTranspose, PackedMatMul, Weights, Word};
use pponnx_plans::constant::ConstStore;
use pponnx_plans::map::{LinearMap, MapOp};
use pponnx_plans::plan::Bundle;
use pponnx_plans::reference::linear;
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::value::{ConstId, DType, MapId, Shape, ValueId};

use crate::error::EngineError;
use crate::memory::Value;
use crate::plan::constant_bytes;
use crate::ring::{RingWord, unfit};

/// How one operation of a map is evaluated.
enum Packed {
    Conv(Box<PackedConv>),
    ConvTranspose(Box<PackedConvTranspose>),
    /// One product for each matrix of activations; `order` names its weights among `blocks`.
    MatMul {
        blocks: Vec<PackedMatMul>,
        order: Vec<usize>,
    },
    /// Weights of an operation that no kernel knows: a convolution over more than three axes.
    Reference(Tensor<i32>),
    /// No weights.
    Light,
}

/// A map with its weights packed.
pub(crate) struct PackedMap {
    /// Shapes of all values: inputs, then one an operation.
    shapes: Vec<Shape>,
    ops: Vec<Packed>,
    /// For each value, the operation that reads it last; the number of operations if it is the result.
    last: Vec<usize>,
}

impl PackedMap {
    /// Packs the weights of a map.
    pub(crate) fn load(
        bundle: &Bundle,
        constants: &ConstStore,
        id: MapId,
        kernels: Kernels,
    ) -> Result<PackedMap, EngineError> {
        let map = bundle.maps.get(id.index());
        let map = map.ok_or_else(|| EngineError::mismatch(format!("the bundle has no map {id}")))?;
        let shapes = linear::shapes(map, |c| bundle.constants.get(c.index()).map(|d| &d.shape)).map_err(unfit)?;
        let mut ops = Vec::with_capacity(map.ops.len());
        for op in &map.ops {
            ops.push(match op.constant() {
                Some(w) => pack(bundle, constants, op, *w, &shapes, kernels)?,
                None => Packed::Light,
            });
        }
        let mut last = vec![0; shapes.len()];
        for (i, op) in map.ops.iter().enumerate() {
            op.operands().iter().for_each(|v| last[v.index()] = i);
        }
        last[map.output.index()] = map.ops.len();
        Ok(PackedMap { shapes, ops, last })
    }

    /// Applies the map. All inputs must have words of the same width.
    pub(crate) fn apply(&self, map: &LinearMap, inputs: &[&Value], kernels: Kernels) -> Result<Value, EngineError> {
        match inputs.first() {
            Some(Value::Ring32(_)) => self.run::<u32>(map, inputs, kernels),
            Some(Value::Ring64(_)) => self.run::<u64>(map, inputs, kernels),
            _ => Err(unfit("a map of something else than ring elements")),
        }
    }

    fn run<W: RingWord>(&self, map: &LinearMap, inputs: &[&Value], kernels: Kernels) -> Result<Value, EngineError> {
        let lost = || unfit(format!("segment {}: a value is not there", map.name));
        let mut values: Vec<Option<Cow<'_, Tensor<W>>>> = Vec::with_capacity(self.shapes.len());
        for (input, shape) in inputs.iter().zip(&map.inputs) {
            let tensor = W::of(input).filter(|t| &t.shape == shape).ok_or_else(lost)?;
            values.push(Some(Cow::Borrowed(tensor)));
        }
        if values.len() != map.inputs.len() {
            return Err(lost());
        }
        for (i, (op, packed)) in map.ops.iter().zip(&self.ops).enumerate() {
            let shape = self.shapes.get(values.len()).ok_or_else(lost)?;
            let operands = op.operands();
            let at = |v: &ValueId| values.get(v.index()).and_then(|v| v.as_deref()).ok_or_else(lost);
            let xs = operands.iter().map(at).collect::<Result<Vec<&Tensor<W>>, _>>()?;
            let result = match (packed, op, xs.as_slice()) {
                (Packed::Light, MapOp::Reshape { x, .. }, _) if self.last[x.index()] == i => {
                    // Nothing moves: the words change hands if they are the map's own.
                    let taken = values.get_mut(x.index()).and_then(Option::take).ok_or_else(lost)?;
                    Tensor { shape: shape.clone(), data: taken.into_owned().data }
                }
                (Packed::Light, _, xs) => linear::step::<_, W, i32>(op, xs, None).map_err(unfit)?,
                (Packed::Reference(w), _, xs) => linear::step(op, xs, Some(w)).map_err(unfit)?,
                (Packed::Conv(p), _, [x]) => {
                    filled(shape, |y| kernels.conv(p, <W as Word>::BITS, Input::Words(&x.data), Output::Words(y)))?
                }
                (Packed::ConvTranspose(p), _, [x]) => filled(shape, |y| {
                    kernels.conv_transpose(p, <W as Word>::BITS, Input::Words(&x.data), Output::Words(y))
                })?,
                (Packed::MatMul { blocks, order }, _, [x]) => {
                    filled(shape, |y| products(blocks, order, &x.data, y, kernels))?
                }
                _ => return Err(lost()),
            };
            values.push(Some(Cow::Owned(result)));
            for v in operands.iter().filter(|v| self.last[v.index()] == i) {
                values[v.index()] = None;
            }
        }
        let result = values.get_mut(map.output.index()).and_then(Option::take).ok_or_else(lost)?;
        Ok(W::value(result.into_owned()))
    }
}

/// A tensor that a kernel fills.
fn filled<W: RingWord>(
    shape: &Shape,
    fill: impl FnOnce(&mut [W]) -> Result<(), KernelError>,
) -> Result<Tensor<W>, EngineError> {
    let mut data = vec![W::default(); shape.len()];
    fill(&mut data).map_err(unfit)?;
    Ok(Tensor { shape: shape.clone(), data })
}

fn products<W: RingWord>(
    blocks: &[PackedMatMul],
    order: &[usize],
    x: &[W],
    y: &mut [W],
    kernels: Kernels,
) -> Result<(), KernelError> {
    let n = order.len().max(1);
    let (xs, ys) = ((x.len() / n).max(1), (y.len() / n).max(1));
    for ((x, y), block) in x.chunks_exact(xs).zip(y.chunks_exact_mut(ys)).zip(order) {
        if let Some(block) = blocks.get(*block) {
            kernels.matmul(block, <W as Word>::BITS, Input::Words(x), Output::Words(y))?;
        }
    }
    Ok(())
}

fn pack(
    bundle: &Bundle,
    constants: &ConstStore,
    op: &MapOp,
    w: ConstId,
    shapes: &[Shape],
    kernels: Kernels,
) -> Result<Packed, EngineError> {
    let (decl, bytes) = constant_bytes(bundle, constants, w)?;
    let weights = |range: std::ops::Range<usize>| {
        let part = bytes.get(range.start * decl.dtype.bytes()..range.end * decl.dtype.bytes()).unwrap_or_default();
        match decl.dtype {
            DType::I16 => Ok(Weights::I16(part)),
            DType::I32 => Ok(Weights::I32(part)),
            other => {
                Err(EngineError::Constant { id: w, what: format!("weights are {} and not i16 or i32", other.name()) })
            }
        }
    };
    let all = || weights(0..decl.shape.len());
    let operand = op.operands().first().and_then(|v| shapes.get(v.index())).cloned().unwrap_or_default();
    let fault = |e: KernelError| EngineError::Constant { id: w, what: e.to_string() };
    let packed = match (op, operand.0.as_slice(), decl.shape.0.as_slice()) {
        (
            MapOp::Conv { strides, dilations, pads_before, pads_after, groups, .. },
            [batch, channels, input @ ..],
            [out_channels, _, kernel @ ..],
        ) if input.len() <= 3 => {
            let spec = ConvSpec {
                batch: *batch,
                in_channels: *channels,
                input: input.to_vec(),
                out_channels: *out_channels,
                kernel: kernel.to_vec(),
                strides: strides.clone(),
                dilations: dilations.clone(),
                pads_before: pads_before.clone(),
                pads_after: pads_after.clone(),
                groups: *groups,
            };
            Packed::Conv(Box::new(kernels.pack_conv(spec, all()?).map_err(fault)?))
        }
        (
            MapOp::ConvTranspose { strides, dilations, pads_before, pads_after, output_padding, groups, .. },
            [batch, channels, input @ ..],
            [out_channels, _, kernel @ ..],
        ) if input.len() <= 3 => {
            let spec = ConvTransposeSpec {
                batch: *batch,
                in_channels: *channels,
                input: input.to_vec(),
                out_channels: *out_channels,
                kernel: kernel.to_vec(),
                strides: strides.clone(),
                dilations: dilations.clone(),
                pads_before: pads_before.clone(),
                pads_after: pads_after.clone(),
                output_padding: output_padding.clone(),
                groups: *groups,
            };
            Packed::ConvTranspose(Box::new(kernels.pack_conv_transpose(spec, all()?).map_err(fault)?))
        }
        (MapOp::MatMul { .. }, x, [lead @ .., n, k]) => {
            let count: usize = lead.iter().product();
            // Without batch axes all rows share the weights.
            let batch = if lead.is_empty() { &[][..] } else { &x[..lead.len()] };
            let rows = operand.len() / k.max(&1) / batch.iter().product::<usize>().max(1);
            let spec = MatMulSpec { batch: 1, broadcast: true, rows, n: *n, k: *k };
            let blocks = (0..count).map(|b| {
                let part = weights(b * n * k..(b + 1) * n * k)?;
                kernels.pack_matmul(spec.clone(), part).map_err(fault)
            });
            Packed::MatMul { blocks: blocks.collect::<Result<_, _>>()?, order: order(lead, batch) }
        }
        _ => Packed::Reference(Tensor::weights(decl, bytes).map_err(unfit)?),
    };
    Ok(packed)
}

/// For each index of the axes `batch`, row-major, the weights it takes among the axes `lead`, each of which equals
/// that of `batch` or is 1.
fn order(lead: &[usize], batch: &[usize]) -> Vec<usize> {
    let mut list = vec![0usize];
    for (l, b) in lead.iter().zip(batch) {
        list = list.iter().flat_map(|base| (0..*b).map(move |i| base * l + if *l == 1 { 0 } else { i })).collect();
    }
    list
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn weights_are_repeated_along_axes_of_size_one() {
        assert_eq!(order(&[], &[]), [0]);
        assert_eq!(order(&[2, 3], &[2, 3]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(order(&[1, 3], &[2, 3]), [0, 1, 2, 0, 1, 2]);
        assert_eq!(order(&[2, 1], &[2, 3]), [0, 0, 0, 1, 1, 1]);
    }
}
