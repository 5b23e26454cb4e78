//! Hand-made bundles: a few stages of linear maps, written out for every scheme as the compiler would.

use pponnx_plans::constant::{ConstDecl, ConstStore};
use pponnx_plans::map::{LinearMap, MapOp};
use pponnx_plans::op::Op;
use pponnx_plans::plan::{Bound, Bundle, Cost, Header, Patch, Port, Program, Range, Slot, SlotKind};
use pponnx_plans::reference::linear;
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::value::{ConstId, DType, MapId, Role, Shape, SlotId, ValueId, ValueType};

pub const SCHEMES: [&str; 5] = ["relay", "two-edge", "one-time", "stockpile", "plain"];
pub const WIDTHS: [u32; 3] = [32, 40, 52];

/// A small deterministic source of numbers (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// In [-1, 1).
    pub fn real(&mut self) -> f64 {
        self.next() as i64 as f64 / 2f64.powi(63)
    }

    pub fn reals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.real() as f32).collect()
    }
}

/// Where an upload comes from.
#[derive(Clone)]
pub enum Source {
    /// An input of the network.
    Input(usize),
    /// What the map of this number decodes to, after ReLU in a local segment.
    Relu(usize),
}

pub struct Upload {
    pub source: Source,
    pub shape: Vec<usize>,
    pub groups: usize,
}

/// One map and the uploads it reads.
pub struct Use {
    pub name: &'static str,
    pub uploads: Vec<usize>,
    /// Operations; weights are shapes, filled with random integers.
    pub ops: Vec<MapOp<Vec<usize>>>,
}

/// A network: stage `s` sends `uploads` and evaluates `uses`. Every decoded result is an output.
pub struct Net {
    pub inputs: Vec<Vec<usize>>,
    pub stages: Vec<(Vec<Upload>, Vec<Use>)>,
}

/// A written bundle and what is needed to check it.
pub struct Written {
    pub bundle: Bundle,
    pub constants: ConstStore,
    /// Integer weights by constant.
    pub weights: Vec<(ConstId, Tensor<i32>)>,
    pub inverse: f64,
}

pub fn conv(w: &[usize], stride: usize, pad: usize, groups: usize) -> MapOp<Vec<usize>> {
    let n = w.len() - 2;
    MapOp::Conv {
        x: ValueId(0),
        w: w.to_vec(),
        strides: vec![stride; n],
        dilations: vec![1; n],
        pads_before: vec![pad; n],
        pads_after: vec![pad; n],
        groups,
    }
}

pub fn matmul(x: u32, w: &[usize]) -> MapOp<Vec<usize>> {
    MapOp::MatMul { x: ValueId(x), w: w.to_vec() }
}

fn upload(input: usize, shape: &[usize], groups: usize) -> Upload {
    Upload { source: Source::Input(input), shape: shape.to_vec(), groups }
}

fn one(name: &'static str, ops: Vec<MapOp<Vec<usize>>>) -> Use {
    Use { name, uploads: vec![0], ops }
}

/// A single 3x3 convolution with padding.
pub fn net_conv() -> Net {
    let shape = [2, 3, 7, 6];
    Net {
        inputs: vec![shape.to_vec()],
        stages: vec![(vec![upload(0, &shape, 1)], vec![one("conv1", vec![conv(&[4, 3, 3, 3], 1, 1, 1)])])],
    }
}

/// A single matrix product on rows.
pub fn net_matmul() -> Net {
    let shape = [3, 11];
    Net {
        inputs: vec![shape.to_vec()],
        stages: vec![(vec![upload(0, &shape, 1)], vec![one("fc", vec![matmul(0, &[5, 11])])])],
    }
}

/// Two convolutions that read one upload, one of them pointwise.
pub fn net_shared() -> Net {
    let shape = [1, 4, 6, 6];
    let uses = vec![one("left", vec![conv(&[5, 4, 1, 1], 1, 0, 1)]), one("right", vec![conv(&[3, 4, 3, 3], 2, 1, 1)])];
    Net { inputs: vec![shape.to_vec()], stages: vec![(vec![upload(0, &shape, 1)], uses)] }
}

/// A depthwise convolution with an exponent a channel.
pub fn net_depthwise() -> Net {
    let shape = [2, 6, 5, 5];
    Net {
        inputs: vec![shape.to_vec()],
        stages: vec![(vec![upload(0, &shape, 6)], vec![one("dw", vec![conv(&[6, 1, 3, 3], 1, 1, 6)])])],
    }
}

/// Convolution, ReLU on the device, then flatten and a fully connected layer.
pub fn net_chain() -> Net {
    let shape = [1, 2, 5, 5];
    let flat = MapOp::Reshape { x: ValueId(0), shape: vec![1, 3 * 25] };
    let second = Upload { source: Source::Relu(0), shape: vec![1, 3, 5, 5], groups: 1 };
    Net {
        inputs: vec![shape.to_vec()],
        stages: vec![
            (vec![upload(0, &shape, 1)], vec![one("conv1", vec![conv(&[3, 2, 3, 3], 1, 1, 1)])]),
            (vec![second], vec![one("fc1", vec![flat, matmul(1, &[7, 75])])]),
        ],
    }
}

/// Two inputs, two uploads, and a map that reads both.
pub fn net_sum() -> Net {
    let (a, b) = ([1, 4, 6], [1, 4, 3]);
    let ops = vec![
        MapOp::PadZero { x: ValueId(1), before: vec![0, 0, 2], after: vec![0, 0, 1] },
        matmul(0, &[1, 9, 6]),
        matmul(2, &[9, 6]),
        MapOp::Add { a: ValueId(3), b: ValueId(4) },
        MapOp::Transpose { x: ValueId(5), perm: vec![0, 2, 1] },
    ];
    Net {
        inputs: vec![a.to_vec(), b.to_vec()],
        stages: vec![(vec![upload(0, &a, 1), upload(1, &b, 1)], vec![Use { name: "both", uploads: vec![0, 1], ops }])],
    }
}

/// Every operation of linear maps at least once, on one upload.
pub fn net_zoo() -> Net {
    let shape = [1, 4, 6, 6];
    let x = || ValueId(0);
    let up = MapOp::ConvTranspose {
        x: x(),
        w: vec![6, 2, 3, 3],
        strides: vec![2, 2],
        dilations: vec![1, 1],
        pads_before: vec![1, 1],
        pads_after: vec![1, 0],
        output_padding: vec![1, 0],
        groups: 2,
    };
    let pool = MapOp::SumPool {
        x: x(),
        kernel: vec![3, 2],
        strides: vec![2, 1],
        dilations: vec![1, 2],
        pads_before: vec![1, 0],
        pads_after: vec![1, 1],
    };
    let moves = vec![
        MapOp::Transpose { x: x(), perm: vec![2, 0, 3, 1] },
        MapOp::Slice { x: ValueId(1), starts: vec![1, 0, 0, 3], steps: vec![2, 1, 1, 1], lens: vec![3, 1, 6, 1] },
        MapOp::Expand { x: ValueId(2), shape: vec![3, 1, 6, 5] },
        MapOp::Gather { x: ValueId(3), axis: 2, indices: vec![5, 0, 0, 3] },
        MapOp::Concat { xs: vec![ValueId(3), ValueId(4)], axis: 2 },
        MapOp::Reshape { x: ValueId(5), shape: vec![3, 50] },
        matmul(6, &[8, 50]),
        MapOp::Slice { x: ValueId(7), starts: vec![0, 0], steps: vec![1, 2], lens: vec![3, 4] },
        MapOp::Slice { x: ValueId(7), starts: vec![0, 1], steps: vec![1, 2], lens: vec![3, 4] },
        MapOp::Sub { a: ValueId(8), b: ValueId(9) },
    ];
    let heads = vec![MapOp::Reshape { x: x(), shape: vec![1, 4, 6, 6] }, matmul(1, &[1, 4, 3, 6])];
    let uses = vec![
        one("up", vec![up]),
        one("pooled", vec![pool, conv1(1, &[2, 4, 1, 1])]),
        one("moved", moves),
        one("heads", heads),
        one("line", vec![MapOp::Reshape { x: x(), shape: vec![1, 4, 36] }, conv1(1, &[3, 4, 5])]),
    ];
    Net { inputs: vec![shape.to_vec()], stages: vec![(vec![upload(0, &shape, 1)], uses)] }
}

/// A convolution on a value other than the first.
fn conv1(x: u32, w: &[usize]) -> MapOp<Vec<usize>> {
    match conv(w, 1, 0, 1) {
        MapOp::Conv { w, strides, dilations, pads_before, pads_after, groups, .. } => {
            MapOp::Conv { x: ValueId(x), w, strides, dilations, pads_before, pads_after, groups }
        }
        other => other,
    }
}

pub fn all() -> Vec<(&'static str, Net)> {
    vec![
        ("conv", net_conv()),
        ("matmul", net_matmul()),
        ("shared", net_shared()),
        ("depthwise", net_depthwise()),
        ("chain", net_chain()),
        ("sum", net_sum()),
        ("zoo", net_zoo()),
    ]
}

struct Writer {
    bundle: Bundle,
    constants: ConstStore,
    weights: Vec<(ConstId, Tensor<i32>)>,
}

impl Writer {
    fn constant(&mut self, dtype: DType, shape: Vec<usize>, bytes: Vec<u8>) -> ConstId {
        let digest = self.constants.insert(bytes);
        self.bundle.constants.push(ConstDecl { digest, dtype, shape: Shape(shape) });
        ConstId(self.bundle.constants.len() as u32 - 1)
    }

    fn slot(&mut self, kind: SlotKind, k: u32, shape: &Shape, name: &str) -> SlotId {
        self.bundle.slots.push(Slot { kind, k, shape: shape.clone(), name: name.into() });
        SlotId(self.bundle.slots.len() as u32 - 1)
    }

    fn program(&mut self, role: Role) -> &mut Program {
        self.bundle.programs.iter_mut().find(|p| p.role == role).unwrap()
    }
}

/// Real value of one weight step.
const INVERSE: f64 = 1.0 / 64.0;

/// Writes a network for a scheme and ring.
pub fn write(net: &Net, scheme: &str, k: u32) -> Written {
    let bundle = Bundle {
        header: Header {
            model: "test".into(),
            model_digest: [7; 32],
            scheme: scheme.into(),
            precision: match k {
                32 => "fast".into(),
                40 => "balanced".into(),
                _ => "precise".into(),
            },
            suite: "chacha20".into(),
            total_mult_adds: 1 << 30,
        },
        inputs: Vec::new(),
        outputs: Vec::new(),
        constants: Vec::new(),
        maps: Vec::new(),
        slots: Vec::new(),
        ranges: Vec::new(),
        programs: Role::ALL.into_iter().map(Program::new).collect(),
        cost: Cost::default(),
    };
    let mut w = Writer { bundle, constants: ConstStore::new(), weights: Vec::new() };
    let mut dice = Dice(u64::from(k) + scheme.len() as u64);
    for (i, shape) in net.inputs.iter().enumerate() {
        let shape = Shape(shape.clone());
        w.program(Role::Device).params.push(ValueType::Tensor(DType::F32, shape.clone()));
        w.bundle.inputs.push(Port { name: format!("input{i}"), dtype: DType::F32, shape });
    }
    let mut outputs = Vec::new();
    for (uploads, uses) in &net.stages {
        stage(&mut w, scheme, k, uploads, uses, &mut outputs, &mut dice);
    }
    for (i, (_, shape)) in outputs.iter().enumerate() {
        w.bundle.outputs.push(Port { name: format!("output{i}"), dtype: DType::F32, shape: shape.clone() });
    }
    let outputs = outputs.into_iter().map(|(v, _)| v).collect();
    w.program(Role::Device).push(Op::Return { outputs }, vec![]);
    w.bundle.cost = pponnx_plans::valid::cost(&w.bundle).unwrap();
    w.bundle.header.total_mult_adds = w.bundle.cost.mult_adds_edge_a;
    Written { bundle: w.bundle, constants: w.constants, weights: w.weights, inverse: INVERSE }
}

fn stage(
    w: &mut Writer,
    scheme: &str,
    k: u32,
    uploads: &[Upload],
    uses: &[Use],
    outputs: &mut Vec<(ValueId, Shape)>,
    dice: &mut Dice,
) {
    let ring = |shape: &Shape| vec![ValueType::Ring(k, shape.clone())];
    let maps: Vec<(MapId, Shape)> = uses.iter().map(|u| map(w, k, uploads, u, dice)).collect();
    let mut encoded = Vec::new();
    let (mut drawn_b, mut drawn_owner, mut received) = (Vec::new(), Vec::new(), Vec::new());
    for (u, upload) in uploads.iter().enumerate() {
        let shape = Shape(upload.shape.clone());
        let readers: Vec<usize> = (0..uses.len()).filter(|i| uses[*i].uploads.contains(&u)).collect();
        let bounds = readers.iter().map(|i| bound(w, k, &maps[*i], uses, *i, u)).collect();
        w.bundle.ranges.push(Range { bounds });
        let range = w.bundle.ranges.len() - 1;
        let slot = w.slot(SlotKind::Upload, k, &shape, uses[readers[0]].name);
        let x = match upload.source {
            Source::Input(i) => ValueId(i as u32),
            Source::Relu(i) => {
                let model = crate::onnx::relu(&upload.shape);
                let model = w.constant(DType::U8, vec![model.len()], model);
                let inputs = vec![outputs[i].0];
                w.program(Role::Device)
                    .push(Op::Local { model, inputs }, vec![ValueType::Tensor(DType::F32, shape.clone())])
            }
        };
        let device = w.program(Role::Device);
        let e = device.push(Op::Encode { x, groups: upload.groups, range }, vec![ValueType::Encoded(shape.clone())]);
        let m = match scheme {
            "plain" => device.push(Op::Expose { x: e, k: k as usize }, ring(&shape)),
            _ => device.push(Op::Mask { slot, x: e }, ring(&shape)),
        };
        device.push(Op::Send { to: Role::EdgeA, slot, x: m }, vec![]);
        encoded.push(e);
        received.push(w.program(Role::EdgeA).push(Op::Recv { from: Role::Device, slot }, ring(&shape)));
        if matches!(scheme, "relay" | "two-edge") {
            drawn_b.push(w.program(Role::EdgeB).push(Op::Draw { slot }, ring(&shape)));
        }
        if matches!(scheme, "one-time" | "stockpile") {
            drawn_owner.push(w.program(Role::Offline).push(Op::Draw { slot }, ring(&shape)));
        }
    }
    for ((id, out), using) in maps.iter().zip(uses) {
        let pick = |list: &[ValueId]| using.uploads.iter().map(|u| list[*u]).collect::<Vec<_>>();
        let correction = (scheme != "plain").then(|| w.slot(SlotKind::Correction, k, out, using.name));
        let download = w.slot(SlotKind::Download, k, out, using.name);
        let fixed = correction.unwrap_or(download);
        w.program(Role::Offline).push(Op::DealCheck { map: *id }, vec![]);
        let role = if matches!(scheme, "relay" | "two-edge") { Role::EdgeB } else { Role::Offline };
        let drawn = if role == Role::EdgeB { &drawn_b } else { &drawn_owner };
        if scheme != "plain" {
            let inputs = pick(drawn);
            let program = w.program(role);
            let mut u = program.push(Op::Apply { map: *id, inputs }, ring(out));
            if matches!(scheme, "relay" | "stockpile") {
                u = program.push(Op::Pad { slot: download, x: u }, ring(out));
            }
            program.push(
                match scheme {
                    "relay" => Op::Send { to: Role::EdgeA, slot: fixed, x: u },
                    "two-edge" => Op::Send { to: Role::Device, slot: fixed, x: u },
                    "one-time" => Op::Store { to: Role::Device, slot: fixed, x: u },
                    _ => Op::Store { to: Role::EdgeA, slot: fixed, x: u },
                },
                vec![],
            );
        }
        let inputs = pick(&received);
        let edge = w.program(Role::EdgeA);
        let mut y = edge.push(Op::Apply { map: *id, inputs }, ring(out));
        if matches!(scheme, "relay" | "stockpile") {
            let op = match scheme {
                "relay" => Op::Recv { from: Role::EdgeB, slot: fixed },
                _ => Op::Load { slot: fixed },
            };
            let c = edge.push(op, ring(out));
            y = edge.push(Op::Sub { a: y, b: c }, ring(out));
        }
        edge.push(Op::Send { to: Role::Device, slot: download, x: y }, vec![]);
        let device = w.program(Role::Device);
        let mut z = device.push(Op::Recv { from: Role::EdgeA, slot: download }, ring(out));
        z = match scheme {
            "relay" | "stockpile" => device.push(Op::Unpad { slot: download, x: z }, ring(out)),
            "two-edge" => {
                let b = device.push(Op::Recv { from: Role::EdgeB, slot: fixed }, ring(out));
                device.push(Op::Sub { a: z, b }, ring(out))
            }
            "one-time" => {
                let b = device.push(Op::Load { slot: fixed }, ring(out));
                device.push(Op::Sub { a: z, b }, ring(out))
            }
            _ => z,
        };
        let lifted = device.push(Op::Lift { x: z }, vec![ValueType::Lifted(k, out.clone())]);
        let op = Op::Check { map: *id, inputs: pick(&encoded), z: lifted };
        let checked = device.push(op, vec![ValueType::Checked(k, out.clone())]);
        let source = encoded[using.uploads[0]];
        let groups = uploads[using.uploads[0]].groups;
        // A constant a channel, of axis 1 where there is one, as the compiler makes them.
        let mut each = vec![1; out.rank()];
        each[1] = out.0[1];
        let n = out.0[1];
        let bias: Vec<u8> = dice.reals(n).into_iter().flat_map(f32::to_le_bytes).collect();
        let bias = w.constant(DType::F32, each.clone(), bias);
        let scale = w.constant(DType::F64, vec![1], INVERSE.to_le_bytes().to_vec());
        let group = (groups > 1).then(|| {
            let list: Vec<u8> = (0..n).flat_map(|c| ((c * groups / n) as u32).to_le_bytes()).collect();
            w.constant(DType::U32, each, list)
        });
        let op = Op::Decode { z: checked, source, scale, bias, group };
        let y = w.program(Role::Device).push(op, vec![ValueType::Tensor(DType::F32, out.clone())]);
        outputs.push((y, out.clone()));
    }
}

/// Declares a map with random weights.
fn map(w: &mut Writer, k: u32, uploads: &[Upload], using: &Use, dice: &mut Dice) -> (MapId, Shape) {
    let mut ops = Vec::new();
    for op in &using.ops {
        ops.push(op.clone().with_constant(|shape: Vec<usize>| {
            let n: usize = shape.iter().product();
            let limit = if k == 32 { 300 } else { 70_000 };
            let data: Vec<i32> = (0..n).map(|_| dice.below(2 * limit) as i32 - limit as i32 + 1).collect();
            let id = match k {
                32 => {
                    let bytes = data.iter().flat_map(|v| (*v as i16).to_le_bytes()).collect();
                    w.constant(DType::I16, shape.clone(), bytes)
                }
                _ => w.constant(DType::I32, shape.clone(), data.iter().flat_map(|v| v.to_le_bytes()).collect()),
            };
            w.weights.push((id, Tensor { shape: Shape(shape), data }));
            id
        }));
    }
    let inputs = using.uploads.iter().map(|u| Shape(uploads[*u].shape.clone())).collect::<Vec<_>>();
    let output = ValueId((inputs.len() + ops.len()) as u32 - 1);
    let map = LinearMap { name: using.name.into(), inputs, ops, output };
    let shapes = linear::shapes(&map, |c| w.bundle.constants.get(c.index()).map(|d| &d.shape)).unwrap();
    let out = shapes[output.index()].clone();
    w.bundle.maps.push(map);
    (MapId(w.bundle.maps.len() as u32 - 1), out)
}

/// A sound bound: sums of absolute weights over all rows (and over all inputs of the map, so that the largest of their
/// encodings may stand for each). Sums of squares for single convolutions and matrix products.
fn bound(w: &Writer, k: u32, map: &(MapId, Shape), uses: &[Use], at: usize, upload: usize) -> Bound {
    let decl = &w.bundle.maps[map.0.index()];
    let magnitudes: Vec<(ConstId, Tensor<i32>)> = w.weights.iter().map(|(id, t)| (*id, t.map(|v| v.abs()))).collect();
    let find = |id: &ConstId| magnitudes.iter().find(|(c, _)| c == id).map(|(_, t)| t);
    // With `sub` turned into `add`, ones in give the sum of absolute weights out.
    let ops = decl.ops.iter().cloned().map(|op| match op {
        MapOp::Sub { a, b } => MapOp::Add { a, b },
        other => other,
    });
    let decl = LinearMap { ops: ops.collect(), ..decl.clone() };
    let ones: Vec<Tensor<i64>> =
        decl.inputs.iter().map(|s| Tensor { shape: s.clone(), data: vec![1; s.len()] }).collect();
    let sums = linear::apply(&decl, &ones, find).unwrap();
    let largest = sums.data.iter().copied().max().unwrap() as u64;
    let single = uses[at].ops.len() == 1 && uses[at].uploads == [upload];
    let (patch, square) = match (&decl.ops[0], single) {
        (MapOp::Conv { w: c, strides, dilations, pads_before, pads_after, .. }, true) => {
            let weights = find(c).unwrap();
            let row: usize = weights.shape.0[1..].iter().product();
            let square = weights.data.chunks(row).map(|r| r.iter().map(|v| (*v as i64).pow(2)).sum::<i64>());
            let patch = Patch::Window {
                kernel: weights.shape.0[2..].to_vec(),
                strides: strides.clone(),
                dilations: dilations.clone(),
                pads_before: pads_before.clone(),
                pads_after: pads_after.clone(),
            };
            (patch, vec![square.max().unwrap() as u64])
        }
        _ => (Patch::Whole, vec![]),
    };
    Bound { k, major: vec![largest], minor: vec![largest], square, patch }
}
