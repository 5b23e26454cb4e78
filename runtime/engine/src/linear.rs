//! Linear maps on ring elements: weights packed once for the kernels, the rest as the reference says.

use std::borrow::Cow;

use pponnx_kernels::{ConvSpec, ConvTransposeSpec, Input, KernelError, Kernels, MatMulSpec, Output};
use pponnx_kernels::{PackedConv, PackedConvTranspose, PackedMatMul, Weights, packed_len};
use pponnx_plans::constant::ConstStore;
use pponnx_plans::map::{LinearMap, MapOp};
use pponnx_plans::plan::{Bundle, Slot};
use pponnx_plans::reference::linear;
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::value::{ConstId, DType, MapId, Shape, ValueId};

use crate::buffers::Buffers;
use crate::error::EngineError;
use crate::memory::{Payload, Value};
use crate::plan::constant_bytes;
use crate::ring::{self, RingWord, unfit};

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
        kernels: &Kernels,
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

    /// Applies the map over the ring of width `ring`. All inputs must have words of the same width.
    pub(crate) fn apply(
        &self,
        map: &LinearMap,
        ring: u32,
        inputs: &[&Value],
        kernels: &Kernels,
    ) -> Result<Value, EngineError> {
        if narrow(inputs)? {
            Ok(u32::value(self.run::<u32>(map, ring, inputs, None, kernels)?.ok_or_else(lost)?))
        } else {
            Ok(u64::value(self.run::<u64>(map, ring, inputs, None, kernels)?.ok_or_else(lost)?))
        }
    }

    /// The payload of a slot: the map's result, less a packed correction if there is one.
    pub(crate) fn answer(
        &self,
        map: &LinearMap,
        slot: &Slot,
        inputs: &[&Value],
        correction: Option<&[u8]>,
        kernels: &Kernels,
        buffers: &Buffers,
    ) -> Result<Vec<u8>, EngineError> {
        let bytes = packed_len(slot.shape.len(), slot.k).ok_or_else(|| unfit("a payload beyond memory"))?;
        let mut payload = buffers.bytes(bytes);
        let answer = Answer { correction, bytes: &mut payload };
        let rest = if narrow(inputs)? {
            self.run::<u32>(map, slot.k, inputs, Some(answer), kernels)?.map(u32::value)
        } else {
            self.run::<u64>(map, slot.k, inputs, Some(answer), kernels)?.map(u64::value)
        };
        // `None`: the last operation has written the payload itself
        let Some(mut result) = rest else { return Ok(payload) };
        if let Some(bytes) = correction {
            let correction = ring::unpack(bytes, slot, kernels).map_err(unfit)?;
            result = ring::sub(result, &correction, kernels)?;
        }
        ring::pack(&result, slot, kernels)
    }

    /// Runs the operations. With an answer to write, the last operation writes it if it can, and nothing is returned.
    fn run<W: RingWord>(
        &self,
        map: &LinearMap,
        ring: u32,
        inputs: &[&Value],
        mut answer: Option<Answer<'_>>,
        kernels: &Kernels,
    ) -> Result<Option<Tensor<W>>, EngineError> {
        let mut values: Vec<Held<'_, W>> = Vec::with_capacity(self.shapes.len());
        for (input, shape) in inputs.iter().zip(&map.inputs) {
            values.push(Held::of(input, shape, ring, kernels)?);
        }
        if values.len() != map.inputs.len() {
            return Err(lost());
        }
        for (i, (op, packed)) in map.ops.iter().zip(&self.ops).enumerate() {
            let shape = self.shapes.get(values.len()).ok_or_else(lost)?;
            let operands = op.operands();
            let operand = operands.first().map_or(0, |v| v.index());
            let result = if let Some(kernel) = packed.kernel() {
                let last = i + 1 == map.ops.len() && map.output.index() == values.len();
                if last && let Some(Answer { correction, bytes }) = answer.take() {
                    let x = values.get(operand).ok_or_else(lost)?.input()?;
                    kernel.run(kernels, ring, x, Output::Answer { correction, bytes }).map_err(unfit)?;
                    return Ok(None);
                }
                let x = values.get(operand).ok_or_else(lost)?.input()?;
                let mut data = vec![W::default(); shape.len()];
                kernel.run(kernels, ring, x, Output::Words(&mut data)).map_err(unfit)?;
                Tensor { shape: shape.clone(), data }
            } else {
                for v in &operands {
                    values.get_mut(v.index()).ok_or_else(lost)?.unpack(kernels)?;
                }
                match (packed, op) {
                    (Packed::Light, MapOp::Reshape { x, .. }) if self.last[x.index()] == i => {
                        // Nothing moves: the words change hands if they are the map's own.
                        let taken = values.get_mut(x.index()).map(|v| std::mem::replace(v, Held::Gone));
                        Tensor { shape: shape.clone(), data: taken.ok_or_else(lost)?.owned()?.data }
                    }
                    _ => {
                        let of = |v: &ValueId| values.get(v.index()).ok_or_else(lost)?.words();
                        let xs = operands.iter().map(of).collect::<Result<Vec<&Tensor<W>>, _>>()?;
                        match packed {
                            Packed::Light => linear::step::<_, W, i32>(op, &xs, None).map_err(unfit)?,
                            Packed::Reference(w) => linear::step(op, &xs, Some(w)).map_err(unfit)?,
                            Packed::MatMul { blocks, order } => {
                                let [x] = xs.as_slice() else { return Err(lost()) };
                                let mut data = vec![W::default(); shape.len()];
                                products(blocks, order, ring, &x.data, &mut data, kernels).map_err(unfit)?;
                                Tensor { shape: shape.clone(), data }
                            }
                            Packed::Conv(_) | Packed::ConvTranspose(_) => return Err(lost()),
                        }
                    }
                }
            };
            values.push(Held::Words(Cow::Owned(result)));
            for v in operands.iter().filter(|v| self.last[v.index()] == i) {
                values[v.index()] = Held::Gone;
            }
        }
        let result = values.get_mut(map.output.index()).map(|v| std::mem::replace(v, Held::Gone));
        let mut result = result.ok_or_else(lost)?;
        result.unpack(kernels)?;
        result.owned().map(Some)
    }
}

fn lost() -> EngineError {
    unfit("a linear map without its values")
}

/// Whether the inputs of a map have words of 32 bits.
fn narrow(inputs: &[&Value]) -> Result<bool, EngineError> {
    match inputs.first() {
        Some(Value::Ring32(_)) => Ok(true),
        Some(Value::Ring64(_)) => Ok(false),
        Some(Value::Payload(p)) => Ok(p.k <= 32),
        _ => Err(unfit("a map of something else than ring elements")),
    }
}

/// Where a map's last operation may write.
struct Answer<'a> {
    correction: Option<&'a [u8]>,
    bytes: &'a mut [u8],
}

/// A value of a map under evaluation.
enum Held<'a, W: RingWord> {
    Words(Cow<'a, Tensor<W>>),
    /// A payload of the map's own ring, which kernels read as it is.
    Packed(&'a Payload),
    /// No later operation reads it.
    Gone,
}

impl<'a, W: RingWord> Held<'a, W> {
    fn of(input: &'a Value, shape: &Shape, ring: u32, kernels: &Kernels) -> Result<Held<'a, W>, EngineError> {
        if let Value::Payload(payload) = input {
            if &payload.shape != shape {
                return Err(lost());
            }
            let mut held = Held::Packed(payload);
            if payload.k != ring {
                held.unpack(kernels)?;
            }
            return Ok(held);
        }
        let tensor = W::of(input).filter(|t| &t.shape == shape).ok_or_else(lost)?;
        Ok(Held::Words(Cow::Borrowed(tensor)))
    }

    fn unpack(&mut self, kernels: &Kernels) -> Result<(), EngineError> {
        if let Held::Packed(payload) = self {
            let mut data = vec![W::default(); payload.shape.len()];
            kernels.unpack(&payload.bytes, payload.k, &mut data).map_err(unfit)?;
            *self = Held::Words(Cow::Owned(Tensor { shape: payload.shape.clone(), data }));
        }
        Ok(())
    }

    fn input(&self) -> Result<Input<'_, W>, EngineError> {
        match self {
            Held::Words(tensor) => Ok(Input::Words(&tensor.data)),
            Held::Packed(payload) => Ok(Input::Packed(&payload.bytes)),
            Held::Gone => Err(lost()),
        }
    }

    fn words(&self) -> Result<&Tensor<W>, EngineError> {
        match self {
            Held::Words(tensor) => Ok(tensor),
            Held::Packed(_) | Held::Gone => Err(lost()),
        }
    }

    fn owned(self) -> Result<Tensor<W>, EngineError> {
        match self {
            Held::Words(tensor) => Ok(tensor.into_owned()),
            Held::Packed(_) | Held::Gone => Err(lost()),
        }
    }
}

/// One call of a kernel does the whole operation.
enum Kernel<'a> {
    Conv(&'a PackedConv),
    ConvTranspose(&'a PackedConvTranspose),
    MatMul(&'a PackedMatMul),
}

impl Kernel<'_> {
    fn run<W: RingWord>(
        &self,
        kernels: &Kernels,
        ring: u32,
        x: Input<'_, W>,
        y: Output<'_, W>,
    ) -> Result<(), KernelError> {
        match self {
            Kernel::Conv(p) => kernels.conv(p, ring, x, y),
            Kernel::ConvTranspose(p) => kernels.conv_transpose(p, ring, x, y),
            Kernel::MatMul(p) => kernels.matmul(p, ring, x, y),
        }
    }
}

impl Packed {
    fn kernel(&self) -> Option<Kernel<'_>> {
        match self {
            Packed::Conv(p) => Some(Kernel::Conv(p)),
            Packed::ConvTranspose(p) => Some(Kernel::ConvTranspose(p)),
            Packed::MatMul { blocks, order } => match (blocks.as_slice(), order.as_slice()) {
                ([one], [_]) => Some(Kernel::MatMul(one)),
                _ => None,
            },
            Packed::Reference(_) | Packed::Light => None,
        }
    }
}

fn products<W: RingWord>(
    blocks: &[PackedMatMul],
    order: &[usize],
    ring: u32,
    x: &[W],
    y: &mut [W],
    kernels: &Kernels,
) -> Result<(), KernelError> {
    let n = order.len().max(1);
    let (xs, ys) = ((x.len() / n).max(1), (y.len() / n).max(1));
    for ((x, y), block) in x.chunks_exact(xs).zip(y.chunks_exact_mut(ys)).zip(order) {
        if let Some(block) = blocks.get(*block) {
            kernels.matmul(block, ring, Input::Words(x), Output::Words(y))?;
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
    kernels: &Kernels,
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
        _ => Packed::Reference(Tensor::weights(decl, &bytes).map_err(unfit)?),
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
