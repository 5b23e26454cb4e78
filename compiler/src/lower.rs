//! The quantised network to a bundle: what all schemes share.

use std::collections::BTreeMap;
use std::sync::Arc;

use pponnx_plans::constant::{ConstDecl, ConstStore};
use pponnx_plans::map::LinearMap;
use pponnx_plans::op::Op;
use pponnx_plans::plan::{Bundle, Cost, Header, Port, Range, SlotKind};
use pponnx_plans::value::{ConstId, DType, MapId, Role, Shape, ValueId, ValueType};

use crate::ir::integer::{IntMap, IntPart, IntStage, IntWeights};
use crate::ir::split::{LocalSegment, TensorId, TensorInfo};
use crate::schemes::{MapIo, Scheme, UploadIo, Writer};

/// What the network looks like from outside, and its tensors.
pub struct Interface<'a> {
    /// Inputs with the tensors behind them.
    pub inputs: (&'a [Port], &'a [TensorId]),
    /// Outputs with the tensors behind them.
    pub outputs: (&'a [Port], &'a [TensorId]),
    /// All tensors that cross segments.
    pub tensors: &'a [TensorInfo],
}

/// Writes the programs of all roles.
///
/// # Errors
/// A sentence, when the split graph reads a tensor before it is made.
pub fn lower(
    header: Header,
    interface: &Interface<'_>,
    parts: Vec<IntPart>,
    scheme: &dyn Scheme,
) -> Result<(Bundle, ConstStore), String> {
    let mut lowering = Lowering {
        w: Writer::new(),
        constants: Vec::new(),
        known: BTreeMap::new(),
        store: ConstStore::new(),
        maps: Vec::new(),
        ranges: Vec::new(),
        device: BTreeMap::new(),
        tensors: interface.tensors,
    };
    let (ports, tensors) = interface.inputs;
    for (i, (port, tensor)) in ports.iter().zip(tensors).enumerate() {
        lowering.w.programs[1].params.push(ValueType::Tensor(port.dtype, port.shape.clone()));
        lowering.device.insert(*tensor, ValueId(i as u32));
    }
    for part in parts {
        match part {
            IntPart::Local(segment) => lowering.local(segment)?,
            IntPart::Stage(stage) => lowering.stage(stage, scheme)?,
        }
    }
    let (ports, tensors) = interface.outputs;
    let outputs = tensors.iter().map(|t| lowering.value(*t)).collect::<Result<Vec<_>, _>>()?;
    lowering.w.push_many(Role::Device, Op::Return { outputs }, Vec::new());
    let bundle = Bundle {
        header,
        inputs: interface.inputs.0.to_vec(),
        outputs: ports.to_vec(),
        constants: lowering.constants,
        maps: lowering.maps,
        slots: lowering.w.slots,
        ranges: lowering.ranges,
        programs: lowering.w.programs,
        cost: Cost::default(),
    };
    Ok((bundle, lowering.store))
}

struct Lowering<'a> {
    w: Writer,
    constants: Vec<ConstDecl>,
    known: BTreeMap<([u8; 32], u8, Vec<usize>), ConstId>,
    store: ConstStore,
    maps: Vec<LinearMap>,
    ranges: Vec<Range>,
    /// The device's value of each tensor made so far.
    device: BTreeMap<TensorId, ValueId>,
    tensors: &'a [TensorInfo],
}

impl Lowering<'_> {
    fn value(&self, tensor: TensorId) -> Result<ValueId, String> {
        self.device.get(&tensor).copied().ok_or_else(|| match self.tensors.get(tensor.0) {
            Some(t) => format!("tensor {} is read before it is made", t.name),
            None => "unknown tensor".into(),
        })
    }

    fn info(&self, tensor: TensorId) -> Result<&TensorInfo, String> {
        self.tensors.get(tensor.0).ok_or_else(|| "unknown tensor".into())
    }

    fn constant(&mut self, dtype: DType, shape: Shape, bytes: Vec<u8>) -> ConstId {
        let digest = self.store.insert(bytes);
        let next = ConstId(self.constants.len() as u32);
        let id = *self.known.entry((digest, dtype as u8, shape.0.clone())).or_insert(next);
        if id == next {
            self.constants.push(ConstDecl { digest, dtype, shape });
        }
        id
    }

    fn local(&mut self, segment: LocalSegment) -> Result<(), String> {
        let inputs = segment.inputs.iter().map(|t| self.value(*t)).collect::<Result<Vec<_>, _>>()?;
        let model = self.constant(DType::U8, Shape(vec![segment.onnx.len()]), segment.onnx);
        let results = segment
            .outputs
            .iter()
            .map(|t| self.info(*t).map(|t| ValueType::Tensor(t.dtype, t.shape.clone())))
            .collect::<Result<Vec<_>, _>>()?;
        let first = self.w.push_many(Role::Device, Op::Local { model, inputs }, results);
        for (i, t) in segment.outputs.iter().enumerate() {
            self.device.insert(*t, ValueId(first.0 + i as u32));
        }
        Ok(())
    }

    fn stage(&mut self, stage: IntStage, scheme: &dyn Scheme) -> Result<(), String> {
        // up: each tensor once, whatever number of maps reads it
        let mut uploads = Vec::new();
        for upload in &stage.uploads {
            let readers: Vec<&IntMap> = stage.maps.iter().filter(|m| m.input == upload.tensor).collect();
            let k = readers.iter().map(|m| m.bound.k).max().ok_or("an upload that no map reads")?;
            let info = self.info(upload.tensor)?.clone();
            self.ranges.push(Range { bounds: readers.iter().map(|m| m.bound.clone()).collect() });
            let x = self.value(upload.tensor)?;
            let encode = Op::Encode { x, groups: upload.groups, range: self.ranges.len() - 1 };
            let encoded = self.w.push(Role::Device, encode, ValueType::Encoded(info.shape.clone()));
            let slot = self.w.slot(SlotKind::Upload, k, &info.shape, &info.name);
            let mut io = UploadIo { slot, k, shape: info.shape, drawn: None };
            let hidden = scheme.hide(&mut self.w, &io, encoded);
            let masked = self.w.transfer(Role::Device, Role::EdgeA, slot, hidden, io.ring());
            scheme.upload(&mut self.w, &mut io);
            uploads.push((upload.tensor, io, encoded, masked));
        }
        // at the edges
        let mut replies = Vec::new();
        for mut map in stage.maps {
            let (_, upload, encoded, masked) =
                uploads.iter().find(|u| u.0 == map.input).ok_or("a map whose upload is missing")?;
            let io = self.map(&mut map, scheme)?;
            self.w.push_many(Role::Offline, Op::DealCheck { map: io.map }, Vec::new());
            scheme.answer(&mut self.w, &io, upload, *masked);
            replies.push((map, io, *encoded));
        }
        // down
        for (map, io, encoded) in replies {
            let recv = Op::Recv { from: Role::EdgeA, slot: io.reply };
            let reply = self.w.push(Role::Device, recv, io.ring());
            let residues = scheme.reveal(&mut self.w, &io, reply);
            let (k, shape) = (io.k, io.shape.clone());
            let z = self.w.push(Role::Device, Op::Lift { x: residues }, ValueType::Lifted(k, shape.clone()));
            let check = Op::Check { map: io.map, inputs: vec![encoded], z };
            let z = self.w.push(Role::Device, check, ValueType::Checked(k, shape.clone()));
            let f64s = map.scale.data.iter().flat_map(|v| v.to_le_bytes()).collect();
            let scale = self.constant(DType::F64, map.scale.shape, f64s);
            let f32s = map.bias.data.iter().flat_map(|v| v.to_le_bytes()).collect();
            let bias = self.constant(DType::F32, map.bias.shape, f32s);
            let group = map.group.map(|g| {
                let u32s = g.data.iter().flat_map(|v| v.to_le_bytes()).collect();
                self.constant(DType::U32, g.shape, u32s)
            });
            let decode = Op::Decode { z, source: encoded, scale, bias, group };
            let y = self.w.push(Role::Device, decode, ValueType::Tensor(DType::F32, shape));
            self.device.insert(map.output, y);
        }
        Ok(())
    }

    /// Declares a map; its weights move into the store.
    fn map(&mut self, map: &mut IntMap, scheme: &dyn Scheme) -> Result<MapIo, String> {
        let weight = |this: &mut Self, w: Arc<IntWeights>| {
            let IntWeights { dtype, shape, bytes } = Arc::unwrap_or_clone(w);
            this.constant(dtype, shape, bytes)
        };
        let ops = std::mem::take(&mut map.map.ops);
        let ops = ops.into_iter().map(|op| op.with_constant(|w| weight(self, w))).collect();
        let lowered =
            LinearMap { name: map.map.name.clone(), inputs: map.map.inputs.clone(), ops, output: map.map.output };
        let shape = self.info(map.output)?.shape.clone();
        self.maps.push(lowered);
        let k = map.bound.k;
        let name = &map.map.name;
        let correction = scheme.corrects().then(|| self.w.slot(SlotKind::Correction, k, &shape, name));
        let reply = self.w.slot(SlotKind::Download, k, &shape, name);
        Ok(MapIo { map: MapId(self.maps.len() as u32 - 1), correction: correction.unwrap_or(reply), reply, k, shape })
    }
}
