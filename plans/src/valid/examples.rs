//! Good bundles for tests: every scheme written out by hand for small networks of stages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::constant::{ConstDecl, ConstStore};
use crate::map::{LinearMap, MapOp};
use crate::op::Op;
use crate::plan::{Bound, Bundle, Cost, Header, Patch, Port, Program, Range, Slot, SlotKind};
use crate::reference::linear;
use crate::reference::tensor::Tensor;
use crate::value::{ConstId, DType, MapId, Role, Shape, SlotId, ValueId, ValueType};

/// All schemes.
pub(crate) const SCHEMES: [&str; 5] = ["relay", "two-edge", "one-time", "stockpile", "plain"];

/// Linear maps of one round: what is uploaded and which maps read it.
pub(crate) struct Stage {
    /// Which plain tensors are encoded and uploaded: 0 the input, then the results of maps in order.
    pub(crate) uploads: Vec<usize>,
    /// Maps, each with the uploads it reads.
    pub(crate) maps: Vec<(LinearMap, Vec<usize>)>,
}

/// A bundle under construction, with its constants.
#[derive(Default)]
pub(crate) struct Constants {
    pub(crate) decls: Vec<ConstDecl>,
    pub(crate) store: ConstStore,
}

impl Constants {
    pub(crate) fn add(&mut self, dtype: DType, shape: &[usize], bytes: Vec<u8>) -> ConstId {
        let digest = self.store.insert(bytes);
        self.decls.push(ConstDecl { digest, dtype, shape: Shape(shape.to_vec()) });
        ConstId(self.decls.len() as u32 - 1)
    }

    /// Small weights of either sign.
    pub(crate) fn weights(&mut self, shape: &[usize]) -> ConstId {
        let seed = self.decls.len() as i64 * 5 + 3;
        let n = shape.iter().product::<usize>() as i64;
        let bytes = (0..n).flat_map(|i| (((i * i * 7 + seed * i + seed) % 19 - 9) as i16).to_le_bytes()).collect();
        self.add(DType::I16, shape, bytes)
    }

    fn tensor(&self, c: &ConstId) -> Tensor<i32> {
        let decl = &self.decls[c.index()];
        Tensor::weights(decl, &self.store.load(&decl.digest).unwrap()).unwrap()
    }
}

/// A fully connected map `[1, k] -> [1, n]`.
pub(crate) fn matmul(constants: &mut Constants, k: usize, n: usize) -> LinearMap {
    let w = constants.weights(&[n, k]);
    let ops = vec![MapOp::MatMul { x: ValueId(0), w }];
    LinearMap { name: format!("fc{n}"), inputs: vec![Shape(vec![1, k])], ops, output: ValueId(1) }
}

/// `W (x0 + x1)` on two inputs `[1, k]`.
pub(crate) fn joined(constants: &mut Constants, k: usize, n: usize) -> LinearMap {
    let w = constants.weights(&[n, k]);
    let ops = vec![MapOp::Add { a: ValueId(0), b: ValueId(1) }, MapOp::MatMul { x: ValueId(2), w }];
    LinearMap { name: "joined".into(), inputs: vec![Shape(vec![1, k]); 2], ops, output: ValueId(3) }
}

/// The programs of a bundle, in order, with short ways to append steps.
struct Writer {
    programs: Vec<Program>,
}

impl Writer {
    fn push(&mut self, role: Role, op: Op, results: Vec<ValueType>) -> ValueId {
        self.programs.iter_mut().find(|p| p.role == role).unwrap().push(op, results)
    }
}

/// One map `[1, 4] -> [1, 3]` under a scheme.
pub(crate) fn single(scheme: &str, k: u32) -> (Bundle, ConstStore) {
    let mut constants = Constants::default();
    let map = matmul(&mut constants, 4, 3);
    network(scheme, k, constants, vec![Stage { uploads: vec![0], maps: vec![(map, vec![0])] }])
}

/// Two stages: one upload with two consumers, then a map of two uploads.
pub(crate) fn double(scheme: &str, k: u32) -> (Bundle, ConstStore) {
    let mut constants = Constants::default();
    let (left, right) = (matmul(&mut constants, 4, 3), matmul(&mut constants, 4, 3));
    let join = joined(&mut constants, 3, 2);
    let first = Stage { uploads: vec![0], maps: vec![(left, vec![0]), (right, vec![0])] };
    let second = Stage { uploads: vec![1, 2], maps: vec![(join, vec![0, 1])] };
    network(scheme, k, constants, vec![first, second])
}

/// A network of stages on an input `[1, 4]` under a scheme; its output is the last map's result through a local
/// segment.
pub(crate) fn network(scheme: &str, k: u32, mut constants: Constants, stages: Vec<Stage>) -> (Bundle, ConstStore) {
    use Role::{Device, EdgeA, EdgeB, Offline};
    let f32s = |shape: &Shape| ValueType::Tensor(DType::F32, shape.clone());
    let ring = |shape: &Shape| ValueType::Ring(k, shape.clone());
    let input = Shape(vec![1, 4]);
    let mut writer = Writer { programs: Role::ALL.map(Program::new).to_vec() };
    writer.programs[1].params.push(f32s(&input));
    let (mut maps, mut slots, mut ranges) = (Vec::new(), Vec::<Slot>::new(), Vec::new());
    let mut tensors = vec![(ValueId(0), input.clone())];
    let dealer = if scheme == "relay" || scheme == "two-edge" { EdgeB } else { Offline };
    let relayed = scheme == "relay" || scheme == "stockpile";
    let plain = scheme == "plain";
    let scale = constants.add(DType::F64, &[], 0.125f64.to_le_bytes().to_vec());
    let model = constants.add(DType::U8, &[4], b"relu".to_vec());
    for (number, stage) in stages.into_iter().enumerate() {
        let mut slot = |kind, shape: &Shape| {
            slots.push(Slot { kind, k, shape: shape.clone(), name: format!("s{number}") });
            SlotId(slots.len() as u32 - 1)
        };
        let mut encoded = Vec::new();
        for (at, upload) in stage.uploads.iter().enumerate() {
            let (x, shape) = tensors[*upload].clone();
            let bounds =
                stage.maps.iter().filter(|(_, from)| from.contains(&at)).map(|(map, _)| bound(map, k, &constants));
            ranges.push(Range { bounds: bounds.collect() });
            let encode = Op::Encode { x, groups: 1, range: ranges.len() - 1 };
            let x = writer.push(Device, encode, vec![ValueType::Encoded(shape.clone())]);
            encoded.push((x, shape));
        }
        let up: Vec<SlotId> = encoded.iter().map(|(_, shape)| slot(SlotKind::Upload, shape)).collect();
        for ((x, shape), up) in encoded.iter().zip(&up) {
            let hide = if plain { Op::Expose { x: *x, k: k as usize } } else { Op::Mask { slot: *up, x: *x } };
            let masked = writer.push(Device, hide, vec![ring(shape)]);
            writer.push(Device, Op::Send { to: EdgeA, slot: *up, x: masked }, vec![]);
        }
        // The dealer's masks and corrections.
        let drawn: Vec<ValueId> = match plain {
            true => Vec::new(),
            false => {
                let draw = |(slot, (_, shape)): (&SlotId, &(ValueId, Shape))| {
                    writer.push(dealer, Op::Draw { slot: *slot }, vec![ring(shape)])
                };
                up.iter().zip(&encoded).map(draw).collect()
            }
        };
        let mut planned = Vec::new();
        for (map, from) in stage.maps {
            let shapes = linear::shapes(&map, |c| constants.decls.get(c.index()).map(|d| &d.shape)).unwrap();
            let out = shapes[map.output.index()].clone();
            maps.push(map);
            let map = MapId(maps.len() as u32 - 1);
            writer.push(Offline, Op::DealCheck { map }, vec![]);
            let correction = (!plain).then(|| slot(SlotKind::Correction, &out));
            let down = slot(SlotKind::Download, &out);
            if let Some(correction) = correction {
                let inputs = from.iter().map(|i| drawn[*i]).collect();
                let mut u = writer.push(dealer, Op::Apply { map, inputs }, vec![ring(&out)]);
                if relayed {
                    u = writer.push(dealer, Op::Pad { slot: down, x: u }, vec![ring(&out)]);
                }
                let to = if relayed { EdgeA } else { Device };
                let give = match dealer {
                    EdgeB => Op::Send { to, slot: correction, x: u },
                    _ => Op::Store { to, slot: correction, x: u },
                };
                writer.push(dealer, give, vec![]);
            }
            planned.push((map, from, out, correction, down));
        }
        let take = |slot: SlotId| match dealer {
            EdgeB => Op::Recv { from: EdgeB, slot },
            _ => Op::Load { slot },
        };
        // Edge A.
        let mut corrections = Vec::new();
        for (_, _, out, correction, _) in &planned {
            let wanted = correction.filter(|_| relayed);
            corrections.push(wanted.map(|slot| writer.push(EdgeA, take(slot), vec![ring(out)])));
        }
        let arrived: Vec<ValueId> = up
            .iter()
            .zip(&encoded)
            .map(|(slot, (_, shape))| writer.push(EdgeA, Op::Recv { from: Device, slot: *slot }, vec![ring(shape)]))
            .collect();
        for ((map, from, out, _, down), correction) in planned.iter().zip(corrections) {
            let inputs = from.iter().map(|i| arrived[*i]).collect();
            let mut y = writer.push(EdgeA, Op::Apply { map: *map, inputs }, vec![ring(out)]);
            if let Some(c) = correction {
                y = writer.push(EdgeA, Op::Sub { a: y, b: c }, vec![ring(out)]);
            }
            writer.push(EdgeA, Op::Send { to: Device, slot: *down, x: y }, vec![]);
        }
        // The device's replies.
        for (map, from, out, correction, down) in planned {
            let mut z = writer.push(Device, Op::Recv { from: EdgeA, slot: down }, vec![ring(&out)]);
            if relayed {
                z = writer.push(Device, Op::Unpad { slot: down, x: z }, vec![ring(&out)]);
            } else if let Some(correction) = correction {
                let c = writer.push(Device, take(correction), vec![ring(&out)]);
                z = writer.push(Device, Op::Sub { a: z, b: c }, vec![ring(&out)]);
            }
            let y = writer.push(Device, Op::Lift { x: z }, vec![ValueType::Lifted(k, out.clone())]);
            let inputs: Vec<ValueId> = from.iter().map(|i| encoded[*i].0).collect();
            let source = inputs[0];
            let check = Op::Check { map, inputs, z: y };
            let c = writer.push(Device, check, vec![ValueType::Checked(k, out.clone())]);
            let n = out.0[1];
            let bytes = (0..n).flat_map(|i| (i as f32 * 0.5 - 1.0).to_le_bytes()).collect();
            let bias = constants.add(DType::F32, &[n], bytes);
            let decode = Op::Decode { z: c, source, scale, bias, group: None };
            let y = writer.push(Device, decode, vec![f32s(&out)]);
            tensors.push((y, out));
        }
    }
    let (last, shape) = tensors.pop().unwrap();
    let result = writer.push(Device, Op::Local { model, inputs: vec![last] }, vec![f32s(&shape)]);
    writer.push(Device, Op::Return { outputs: vec![result] }, vec![]);
    let port = |name: &str, shape| Port { name: name.into(), dtype: DType::F32, shape };
    let header = Header {
        model: "example".into(),
        scheme: scheme.into(),
        precision: "fast".into(),
        suite: "chacha20".into(),
        ..Header::default()
    };
    let mut bundle = Bundle {
        header,
        inputs: vec![port("x", input)],
        outputs: vec![port("y", shape)],
        constants: constants.decls,
        maps,
        slots,
        ranges,
        programs: writer.programs,
        cost: Cost::default(),
    };
    bundle.cost = super::cost(&bundle).unwrap();
    (bundle, constants.store)
}

/// A bound from absolute row sums; every input of a map gets an equal part of the ring.
fn bound(map: &LinearMap, k: u32, constants: &Constants) -> Bound {
    let map = LinearMap {
        name: String::new(),
        inputs: map.inputs.clone(),
        ops: map.ops.iter().map(|op| op.clone().with_constant(|c| constants.tensor(&c).map(|w| w.abs()))).collect(),
        output: map.output,
    };
    let ones: Vec<Tensor<i64>> =
        map.inputs.iter().map(|s| Tensor { shape: s.clone(), data: vec![1; s.len()] }).collect();
    let rows = linear::apply(&map, &ones, Some).unwrap();
    let sum = rows.data.into_iter().max().unwrap() as u64;
    Bound { k, major: vec![sum], minor: vec![sum], square: vec![], patch: Patch::Whole }
}
