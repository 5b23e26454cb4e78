//! Bundles for tests: one small real one, and arbitrary ones. Arbitrary bundles have every kind of entry and every
//! operation with its fields at random, and mean nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::constant::{ConstDecl, ConstStore};
use crate::field::Attr;
use crate::map::{LinearMap, MapOp};
use crate::op::Op;
use crate::plan::{Bound, Bundle, Cost, Header, Patch, Port, Program, Range, Slot, SlotKind, Step};
use crate::value::{ConstId, DType, MapId, Role, Shape, SlotId, ValueId, ValueType};

/// One matrix product under scheme `relay` and its constants: the example of `FORMAT.md`.
pub fn relay() -> (Bundle, ConstStore) {
    let weights: [i16; 12] = [1, -2, 3, -4, 5, 6, -7, 8, -9, 10, 11, -12];
    let scale: [f64; 3] = [0.5, 0.25, 0.125];
    let bias: [f32; 3] = [1.0, -1.0, 0.0];
    let mut store = ConstStore::new();
    let mut declare = |bytes: Vec<u8>, dtype, dims: &[usize]| {
        let digest = store.insert(bytes);
        ConstDecl { digest, dtype, shape: dims.into() }
    };
    let constants = vec![
        declare(weights.iter().flat_map(|w| w.to_le_bytes()).collect(), DType::I16, &[3, 4]),
        declare(scale.iter().flat_map(|s| s.to_le_bytes()).collect(), DType::F64, &[1, 3]),
        declare(bias.iter().flat_map(|b| b.to_le_bytes()).collect(), DType::F32, &[1, 3]),
        declare(b"relu".to_vec(), DType::U8, &[4]),
    ];
    let shape = |dims: &[usize]| Shape::from(dims);
    let (x, y) = (shape(&[1, 4]), shape(&[1, 3]));
    let real = |s: &Shape| vec![ValueType::Tensor(DType::F32, s.clone())];
    let ring = |s: &Shape| vec![ValueType::Ring(32, s.clone())];
    let (map, up, fix, down) = (MapId(0), SlotId(0), SlotId(1), SlotId(2));

    let mut offline = Program::new(Role::Offline);
    offline.push(Op::DealCheck { map }, vec![]);

    let mut device = Program::new(Role::Device);
    device.params = real(&x);
    let input = ValueId(0);
    let encoded = device.push(Op::Encode { x: input, groups: 1, range: 0 }, vec![ValueType::Encoded(x.clone())]);
    let masked = device.push(Op::Mask { slot: up, x: encoded }, ring(&x));
    device.push(Op::Send { to: Role::EdgeA, slot: up, x: masked }, vec![]);
    let reply = device.push(Op::Recv { from: Role::EdgeA, slot: down }, ring(&y));
    let bare = device.push(Op::Unpad { slot: down, x: reply }, ring(&y));
    let lifted = device.push(Op::Lift { x: bare }, vec![ValueType::Lifted(32, y.clone())]);
    let check = Op::Check { map, inputs: vec![encoded], z: lifted };
    let checked = device.push(check, vec![ValueType::Checked(32, y.clone())]);
    let decode = Op::Decode { z: checked, source: encoded, scale: ConstId(1), bias: ConstId(2), group: None };
    let decoded = device.push(decode, real(&y));
    let result = device.push(Op::Local { model: ConstId(3), inputs: vec![decoded] }, real(&y));
    device.push(Op::Return { outputs: vec![result] }, vec![]);

    let mut edge_a = Program::new(Role::EdgeA);
    let correction = edge_a.push(Op::Recv { from: Role::EdgeB, slot: fix }, ring(&y));
    let upload = edge_a.push(Op::Recv { from: Role::Device, slot: up }, ring(&x));
    let product = edge_a.push(Op::Apply { map, inputs: vec![upload] }, ring(&y));
    let answer = edge_a.push(Op::Sub { a: product, b: correction }, ring(&y));
    edge_a.push(Op::Send { to: Role::Device, slot: down, x: answer }, vec![]);

    let mut edge_b = Program::new(Role::EdgeB);
    let mask = edge_b.push(Op::Draw { slot: up }, ring(&x));
    let product = edge_b.push(Op::Apply { map, inputs: vec![mask] }, ring(&y));
    let padded = edge_b.push(Op::Pad { slot: down, x: product }, ring(&y));
    edge_b.push(Op::Send { to: Role::EdgeA, slot: fix, x: padded }, vec![]);

    let slot = |kind, shape: &Shape| Slot { kind, k: 32, shape: shape.clone(), name: "fc".into() };
    let bundle = Bundle {
        header: Header {
            model: "fc_relu.onnx".into(),
            model_digest: *blake3::hash(b"fc_relu.onnx").as_bytes(),
            scheme: "relay".into(),
            precision: "fast".into(),
            suite: "chacha20".into(),
            total_mult_adds: 12,
        },
        inputs: vec![Port { name: "x".into(), dtype: DType::F32, shape: x.clone() }],
        outputs: vec![Port { name: "y".into(), dtype: DType::F32, shape: y.clone() }],
        constants,
        maps: vec![LinearMap {
            name: "fc".into(),
            inputs: vec![x.clone()],
            ops: vec![MapOp::MatMul { x: input, w: ConstId(0) }],
            output: ValueId(1),
        }],
        slots: vec![slot(SlotKind::Upload, &x), slot(SlotKind::Correction, &y), slot(SlotKind::Download, &y)],
        ranges: vec![Range {
            bounds: vec![Bound { k: 32, major: vec![21], minor: vec![21], square: vec![446], patch: Patch::Whole }],
        }],
        programs: vec![offline, device, edge_a, edge_b],
        cost: Cost {
            rounds: 1,
            bytes_up: 16,
            bytes_down: 12,
            bytes_edge_link: 12,
            mult_adds_edge_a: 12,
            mult_adds_edge_b: 12,
        },
    };
    (bundle, store)
}

/// Names with what a quoted text must escape.
fn name() -> impl Strategy<Value = String> {
    let char = prop_oneof![any::<char>(), select(vec!['"', '\\', '\n', '\t', ';', 'a', '{', '\u{7f}', '\u{85}'])];
    vec(char, 0..6).prop_map(|chars| chars.into_iter().collect())
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..10u64, any::<u64>()]
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![0..10usize, any::<usize>()]
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(size(), 0..4)
}

fn shape() -> impl Strategy<Value = Shape> {
    sizes().prop_map(Shape)
}

fn value() -> impl Strategy<Value = ValueId> {
    prop_oneof![(0..10u32), any::<u32>()].prop_map(ValueId)
}

fn value_type() -> impl Strategy<Value = ValueType> {
    prop_oneof![
        (select(DType::ALL.to_vec()), shape()).prop_map(|(d, s)| ValueType::Tensor(d, s)),
        shape().prop_map(ValueType::Encoded),
        (any::<u32>(), shape()).prop_map(|(k, s)| ValueType::Ring(k, s)),
        (any::<u32>(), shape()).prop_map(|(k, s)| ValueType::Lifted(k, s)),
        (any::<u32>(), shape()).prop_map(|(k, s)| ValueType::Checked(k, s)),
    ]
}

/// Any attribute of the sample's kind.
fn attr(sample: Attr) -> BoxedStrategy<Attr> {
    let id = any::<u32>();
    match sample {
        Attr::Value(_) => value().prop_map(Attr::Value).boxed(),
        Attr::Values(_) => vec(value(), 0..4).prop_map(Attr::Values).boxed(),
        Attr::Slot(_) => id.prop_map(|id| Attr::Slot(SlotId(id))).boxed(),
        Attr::Map(_) => id.prop_map(|id| Attr::Map(MapId(id))).boxed(),
        Attr::Const(_) => id.prop_map(|id| Attr::Const(ConstId(id))).boxed(),
        Attr::MaybeConst(_) => option::of(id).prop_map(|id| Attr::MaybeConst(id.map(ConstId))).boxed(),
        Attr::Role(_) => select(Role::ALL.to_vec()).prop_map(Attr::Role).boxed(),
        // Fields of type `usize` take what fits one.
        Attr::Int(_) => size().prop_map(|n| Attr::Int(n as u64)).boxed(),
        Attr::Ints(_) => sizes().prop_map(|list| Attr::Ints(list.into_iter().map(|n| n as u64).collect())).boxed(),
    }
}

fn attrs(signature: Vec<(&'static str, Attr)>) -> BoxedStrategy<Vec<Attr>> {
    signature.into_iter().map(|(_, sample)| attr(sample)).collect::<Vec<_>>().boxed()
}

/// Any operation of a program.
pub fn op() -> impl Strategy<Value = Op> {
    select(Op::TABLE).prop_flat_map(|(code, _)| {
        attrs(Op::signature(code).unwrap()).prop_map(move |fields| Op::from_fields(code, fields).unwrap())
    })
}

/// Any operation of a linear map.
pub fn map_op() -> impl Strategy<Value = MapOp> {
    select(MapOp::<ConstId>::TABLE).prop_flat_map(|(code, _)| {
        let signature = MapOp::<ConstId>::signature(code).unwrap();
        attrs(signature).prop_map(move |fields| MapOp::from_fields(code, fields).unwrap())
    })
}

fn header() -> impl Strategy<Value = Header> {
    (name(), any::<[u8; 32]>(), name(), name(), name(), number()).prop_map(
        |(model, model_digest, scheme, precision, suite, total_mult_adds)| Header {
            model,
            model_digest,
            scheme,
            precision,
            suite,
            total_mult_adds,
        },
    )
}

fn port() -> impl Strategy<Value = Port> {
    (name(), select(DType::ALL.to_vec()), shape()).prop_map(|(name, dtype, shape)| Port { name, dtype, shape })
}

fn constant() -> impl Strategy<Value = ConstDecl> {
    let parts = (any::<[u8; 32]>(), select(DType::ALL.to_vec()), shape());
    parts.prop_map(|(digest, dtype, shape)| ConstDecl { digest, dtype, shape })
}

fn map() -> impl Strategy<Value = LinearMap> {
    (name(), vec(shape(), 0..3), vec(map_op(), 0..4), value()).prop_map(|(name, inputs, ops, output)| LinearMap {
        name,
        inputs,
        ops,
        output,
    })
}

fn slot() -> impl Strategy<Value = Slot> {
    (select(SlotKind::ALL.to_vec()), any::<u32>(), shape(), name()).prop_map(|(kind, k, shape, name)| Slot {
        kind,
        k,
        shape,
        name,
    })
}

fn patch() -> impl Strategy<Value = Patch> {
    let window = (sizes(), sizes(), sizes(), sizes(), sizes());
    prop_oneof![
        Just(Patch::Whole),
        Just(Patch::LastAxis),
        window.prop_map(|(kernel, strides, dilations, pads_before, pads_after)| Patch::Window {
            kernel,
            strides,
            dilations,
            pads_before,
            pads_after
        }),
    ]
}

fn range() -> impl Strategy<Value = Range> {
    let numbers = || vec(number(), 0..3);
    let bound = (any::<u32>(), numbers(), numbers(), numbers(), patch())
        .prop_map(|(k, major, minor, square, patch)| Bound { k, major, minor, square, patch });
    vec(bound, 0..3).prop_map(|bounds| Range { bounds })
}

fn program() -> impl Strategy<Value = Program> {
    let step = (op(), vec(value_type(), 0..3)).prop_map(|(op, results)| Step { op, results });
    (select(Role::ALL.to_vec()), vec(value_type(), 0..3), vec(step, 0..6)).prop_map(|(role, params, steps)| Program {
        role,
        params,
        steps,
    })
}

fn cost() -> impl Strategy<Value = Cost> {
    any::<[u64; 6]>().prop_map(|[rounds, bytes_up, bytes_down, bytes_edge_link, mult_adds_edge_a, mult_adds_edge_b]| {
        Cost { rounds, bytes_up, bytes_down, bytes_edge_link, mult_adds_edge_a, mult_adds_edge_b }
    })
}

/// Any bundle, most of them without meaning.
pub fn bundle() -> impl Strategy<Value = Bundle> {
    let ports = || vec(port(), 0..3);
    let tables = (vec(constant(), 0..4), vec(map(), 0..3), vec(slot(), 0..4), vec(range(), 0..3));
    (header(), ports(), ports(), tables, vec(program(), 0..5), cost()).prop_map(
        |(header, inputs, outputs, (constants, maps, slots, ranges), programs, cost)| Bundle {
            header,
            inputs,
            outputs,
            constants,
            maps,
            slots,
            ranges,
            programs,
            cost,
        },
    )
}
