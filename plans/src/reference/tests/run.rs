use std::collections::BTreeMap;

use super::Random;
use crate::constant::ConstStore;
use crate::field::Attr;
use crate::op::Op;
use crate::plan::{Bundle, SlotKind};
use crate::reference::linear;
use crate::reference::number::{NumberError, encode, low_bits};
use crate::reference::run::{Locals, Outcome, Plain, RunError, Side, Streams, run};
use crate::reference::scalar::{Fp, P61};
use crate::reference::tensor::Tensor;
use crate::valid::examples::{Constants, SCHEMES, Stage, double, matmul, network, single};
use crate::valid::validate;
use crate::value::{ConstId, DType, MapId, Role, Shape, SlotId, ValueId};

/// The only sub-model of the examples.
struct Relu;

impl Locals for Relu {
    fn run(&mut self, _: ConstId, bytes: &[u8], inputs: &[&Plain]) -> Result<Vec<Plain>, String> {
        assert_eq!(bytes, b"relu");
        let x = inputs.first().ok_or("no input")?;
        Ok(vec![Plain::f32(x.shape.clone(), &x.to_f32().iter().map(|v| v.max(0.0)).collect::<Vec<_>>())])
    }
}

/// Streams of a request from a seed; `flip` tampers with one element of one slot.
struct Seeded {
    seed: u64,
    flip: Option<(SlotId, u64)>,
}

impl Streams for Seeded {
    fn words(&mut self, slot: SlotId, side: Side, len: usize) -> Vec<u64> {
        let mut r = Random(self.seed ^ (u64::from(slot.0) << 8 | side as u64) << 20);
        (0..len).map(|_| r.word()).collect()
    }

    fn field(&mut self, map: MapId, part: u8, len: usize) -> Vec<Fp> {
        let mut r = Random(!self.seed ^ (u64::from(map.0) << 8 | u64::from(part)) << 20);
        (0..len).map(|_| Fp::new(r.word() % P61)).collect()
    }

    fn carry(&mut self, slot: SlotId, mut words: Vec<u64>) -> Vec<u64> {
        if let Some((at, delta)) = self.flip
            && at == slot
        {
            words[0] = words[0].wrapping_add(delta);
        }
        words
    }
}

fn go(bundle: &Bundle, store: &ConstStore, x: &[f32], seed: u64) -> Result<Outcome, RunError> {
    let x = Plain::f32(vec![1, x.len()], x);
    run(bundle, store, &[x], &mut Seeded { seed, flip: None }, &mut Relu)
}

fn inputs() -> Vec<[f32; 4]> {
    vec![[0.0; 4], [1.0, -2.5, 0.125, 1e-3], [3e30, -3e30, 3e30, 1.0], [-1e-45, 1e-40, 0.0, 0.0], [0.1, 0.2, 0.3, -0.0]]
}

#[test]
fn all_schemes_and_masks_give_the_same_integers() {
    for k in [8, 32, 40, 52, 60] {
        for make in [single, double] {
            for x in inputs() {
                let (bundle, store) = make("plain", k);
                let want = go(&bundle, &store, &x, 0).unwrap();
                assert!(!want.results.is_empty());
                for scheme in SCHEMES {
                    let (bundle, store) = make(scheme, k);
                    for seed in [1, 2] {
                        let got = go(&bundle, &store, &x, seed).unwrap();
                        assert_eq!(got.results, want.results, "{scheme} {k}");
                        assert_eq!(got.outputs, want.outputs, "{scheme} {k}");
                    }
                }
            }
        }
    }
}

/// Results are those of the integer map itself, not only of one another.
#[test]
fn results_are_those_of_the_integers() {
    for x in inputs() {
        let (bundle, store) = single("relay", 32);
        let outcome = go(&bundle, &store, &x, 3).unwrap();
        let exponents = outcome.exponents.values().next().unwrap();
        let integers = encode(&x, &Shape(vec![1, 4]), exponents).unwrap();
        let input = Tensor { shape: Shape(vec![1, 4]), data: integers.iter().map(|v| i64::from(*v)).collect() };
        let decl = &bundle.constants[0];
        let weights = Tensor::weights(decl, &store.load(&decl.digest).unwrap()).unwrap();
        let z = linear::apply(&bundle.maps[0], std::slice::from_ref(&input), |_| Some(&weights)).unwrap();
        assert_eq!(outcome.results[&MapId(0)], std::slice::from_ref(&z.data));
        // y = relu(z * 0.125 * 2^-a + bias)
        let scale = 0.125 / 2f64.powi(exponents[0]);
        let want: Vec<f32> = z
            .data
            .iter()
            .enumerate()
            .map(|(i, z)| ((*z as f64 * scale + (i as f64 * 0.5 - 1.0)) as f32).max(0.0))
            .collect();
        assert_eq!(outcome.outputs[0].to_f32(), want);
    }
}

/// A change that reaches the result fails the check; one that weights cancel (an even weight times 2^31) leaves it right.
#[test]
fn tampering_fails_the_check_or_changes_nothing() {
    let x = [1.0, -2.0, 3.0, 0.5];
    for scheme in SCHEMES {
        let (bundle, store) = double(scheme, 32);
        let honest = go(&bundle, &store, &x, 5).unwrap();
        for (slot, delta) in (0..bundle.slots.len()).flat_map(|s| [1, 1 << 31, low_bits(32)].map(|d| (s, d))) {
            let mut streams = Seeded { seed: 5, flip: Some((SlotId(slot as u32), delta)) };
            let plain = Plain::f32(vec![1, 4], &x);
            match run(&bundle, &store, &[plain], &mut streams, &mut Relu) {
                Err(RunError::Check { .. }) => {}
                Err(error) => panic!("{scheme} {slot}: {error}"),
                Ok(outcome) => {
                    assert!(bundle.slots[slot].kind == SlotKind::Upload && delta == 1 << 31, "{scheme} {slot} {delta}");
                    assert!(outcome.outputs == honest.outputs);
                }
            }
        }
    }
}

#[test]
fn bad_data_and_constants_are_errors() {
    let (bundle, store) = single("relay", 32);
    let nan = go(&bundle, &store, &[f32::NAN, 0.0, 0.0, 0.0], 1).unwrap_err();
    assert!(matches!(nan, RunError::Number { source: NumberError::NotFinite, role: Role::Device, step: 0 }));
    assert!(matches!(go(&bundle, &store, &[1.0; 3], 1), Err(RunError::Inputs(_))));
    assert!(matches!(go(&bundle, &ConstStore::new(), &[1.0; 4], 1), Err(RunError::Constant(_))));
    let mut cut = bundle.clone();
    cut.programs[3].steps.pop();
    assert!(matches!(go(&cut, &store, &[1.0; 4], 1), Err(RunError::Invalid { reason: "it waits for ever", .. })));
}

/// Streams that count through all values: every mask and pad of a tiny ring.
struct Counted(BTreeMap<(SlotId, Side), Vec<u64>>);

impl Streams for Counted {
    fn words(&mut self, slot: SlotId, side: Side, _: usize) -> Vec<u64> {
        self.0[&(slot, side)].clone()
    }
    fn field(&mut self, _: MapId, _: u8, len: usize) -> Vec<Fp> {
        (0..len as u64).map(|v| Fp::new(v + 7)).collect()
    }
}

/// What edge A receives for all masks and pads at k = 2, counted.
fn views(bundle: &Bundle, store: &ConstStore, x: &[f32; 4], want: i64) -> BTreeMap<Vec<u64>, usize> {
    let mut seen = BTreeMap::new();
    for code in 0..4u64.pow(5) {
        let digits: Vec<u64> = (0..5).map(|i| code >> (2 * i) & 3).collect();
        let streams = [((SlotId(0), Side::Mask), digits[..4].to_vec()), ((SlotId(2), Side::Pad), digits[4..].to_vec())];
        let input = Plain::f32(vec![1, 4], x);
        let outcome = run(bundle, store, &[input], &mut Counted(streams.into_iter().collect()), &mut Relu).unwrap();
        assert_eq!(outcome.results[&MapId(0)], [[want]]);
        let view = [outcome.sent[&SlotId(0)].as_slice(), &outcome.sent[&SlotId(1)]].concat();
        *seen.entry(view).or_default() += 1;
    }
    seen
}

/// Exhaustive: edge A's view of relay and stockpile is uniform for every input, and is not without the pad.
#[test]
fn the_view_of_edge_a_is_uniform() {
    let tiny = |scheme| {
        let mut constants = Constants::default();
        let mut map = matmul(&mut constants, 4, 1);
        let signs = [1i16, 0, 0, 0].iter().flat_map(|w| w.to_le_bytes()).collect();
        let w = constants.add(DType::I16, &[1, 4], signs);
        map.ops = vec![crate::map::MapOp::MatMul { x: ValueId(0), w }];
        network(scheme, 2, constants, vec![Stage { uploads: vec![0], maps: vec![(map, vec![0])] }])
    };
    let inputs = [([0.0; 4], 0), ([1.0, 0.0, 0.0, 0.0], 1), ([0.0, 1.0, 0.0, 0.0], 0), ([-1.0, 0.0, 0.0, 0.5], -1)];
    for scheme in ["relay", "stockpile"] {
        let (bundle, store) = tiny(scheme);
        assert!(validate(bundle.clone()).is_ok());
        for (x, want) in &inputs {
            let views = views(&bundle, &store, x, *want);
            assert_eq!(views.len(), 4usize.pow(5));
            assert!(views.values().all(|n| *n == 1));
        }
    }
    let (mut bundle, store) = tiny("relay");
    // The steps stay, so that no number changes, but what they yield is not used.
    for (role, name) in [(Role::EdgeB, "send"), (Role::Device, "lift")] {
        let program = bundle.programs.iter_mut().find(|p| p.role == role).unwrap();
        let step = program.steps.iter_mut().find(|s| s.op.name() == name).unwrap();
        if let Op::Send { x, .. } | Op::Lift { x } = &mut step.op {
            *x = ValueId(x.0 - 1);
        }
    }
    let of = |(x, want): &([f32; 4], i64)| views(&bundle, &store, x, *want);
    assert!(of(&inputs[0]) != of(&inputs[1]));
    // What does not change the result does not change this view either: edge A learns L(x), no more.
    assert!(of(&inputs[0]) == of(&inputs[2]));
}

/// Changes one thing of a bundle at random.
fn mutate(bundle: &mut Bundle, r: &mut Random) {
    let pick = |r: &mut Random, n: usize| r.between(0, n.max(1) as i64 - 1) as usize;
    let small = |r: &mut Random| match r.between(0, 12) {
        12 => usize::MAX,
        11 => 1 << 40,
        n => n as usize,
    };
    if bundle.slots.is_empty() || bundle.maps.is_empty() || bundle.constants.is_empty() {
        return;
    }
    match r.between(0, 13) {
        0..=5 => {
            let program = pick(r, 4);
            let steps = &mut bundle.programs[program].steps;
            if steps.is_empty() {
                return;
            }
            let at = pick(r, steps.len());
            let mut attrs: Vec<Attr> = steps[at].op.fields().into_iter().map(|(_, a)| a).collect();
            if attrs.is_empty() {
                return;
            }
            let field = pick(r, attrs.len());
            let id = r.between(0, 14) as u32;
            attrs[field] = match attrs[field].clone() {
                Attr::Value(_) => Attr::Value(ValueId(id)),
                Attr::Values(mut v) => {
                    match r.between(0, 2) {
                        0 => v.push(ValueId(id)),
                        1 => drop(v.pop()),
                        _ => v.iter_mut().for_each(|v| *v = ValueId(id)),
                    }
                    Attr::Values(v)
                }
                Attr::Slot(_) => Attr::Slot(SlotId(id % 9)),
                Attr::Map(_) => Attr::Map(MapId(id % 4)),
                Attr::Const(_) => Attr::Const(ConstId(id)),
                Attr::MaybeConst(_) => Attr::MaybeConst((id > 5).then_some(ConstId(id))),
                Attr::Role(_) => Attr::Role(Role::ALL[id as usize % 4]),
                Attr::Int(_) => Attr::Int(small(r) as u64),
                Attr::Ints(v) => Attr::Ints(v.into_iter().map(|_| small(r) as u64).collect()),
            };
            steps[at].op = Op::from_fields(steps[at].op.code(), attrs).unwrap();
        }
        6 => {
            let steps = &mut bundle.programs[pick(r, 4)].steps;
            if !steps.is_empty() {
                let (a, b) = (pick(r, steps.len()), pick(r, steps.len()));
                steps.swap(a, b);
            }
        }
        7 => {
            let steps = &mut bundle.programs[pick(r, 4)].steps;
            if !steps.is_empty() {
                let at = pick(r, steps.len());
                if r.between(0, 1) == 0 {
                    steps.remove(at);
                } else {
                    let step = steps[at].clone();
                    steps.insert(at, step);
                }
            }
        }
        8 => {
            let at = pick(r, bundle.slots.len());
            match r.between(0, 2) {
                0 => bundle.slots[at].k = small(r) as u32,
                1 => bundle.slots[at].shape = Shape((0..r.between(0, 4)).map(|_| small(r)).collect()),
                _ => bundle.slots.truncate(at),
            }
        }
        9 => {
            let at = pick(r, bundle.maps.len());
            match r.between(0, 2) {
                0 => bundle.maps[at].output = ValueId(r.between(0, 4) as u32),
                1 => bundle.maps[at].inputs = vec![Shape((0..r.between(0, 4)).map(|_| small(r)).collect())],
                _ => bundle.maps.truncate(at),
            }
        }
        10 => {
            let at = pick(r, bundle.constants.len());
            bundle.constants[at].shape = Shape((0..r.between(0, 3)).map(|_| small(r)).collect());
        }
        11 => {
            let at = pick(r, bundle.ranges.len());
            for bound in &mut bundle.ranges[at].bounds {
                bound.k = small(r) as u32;
                // Bounds that admit less stay sound.
                bound.square = vec![u64::MAX; r.between(0, 2) as usize];
            }
        }
        12 => bundle.header.scheme = SCHEMES[pick(r, 5)].into(),
        _ => {
            let steps = &mut bundle.programs[pick(r, 4)].steps;
            if !steps.is_empty() {
                let at = pick(r, steps.len());
                steps[at].results.clear();
            }
        }
    }
}

/// Whatever a bundle says, the validator answers; and what it admits runs to the right integers.
#[test]
fn mutated_bundles_are_refused_or_right() {
    let mut r = Random(11);
    let x = [1.0, -2.0, 3.0, 0.5];
    let mut admitted = 0;
    for round in 0..6000 {
        let make = if round % 2 == 0 { single } else { double };
        let scheme = SCHEMES[round / 2 % 5];
        let (good, store) = make(scheme, 32);
        let mut bundle = good.clone();
        for _ in 0..r.between(1, 2) {
            mutate(&mut bundle, &mut r);
        }
        if bundle == good {
            continue;
        }
        if let Ok(counted) = crate::valid::cost(&bundle) {
            bundle.cost = counted;
        }
        let Ok(valid) = validate(bundle) else { continue };
        admitted += 1;
        match go(&valid, &store, &x, round as u64) {
            // A constant's bytes that no longer fit, or a sub-model on other tensors: found when they are loaded.
            Err(RunError::Constant(_) | RunError::Local { .. }) => {}
            Err(error) => panic!("admitted, but {error}"),
            Ok(outcome) => {
                // Each result is that of its map on some encoded inputs; the check inside `run` has compared them.
                assert_eq!(outcome.outputs.len(), 1);
            }
        }
    }
    assert!(admitted > 20, "only {admitted} mutants were admitted: the test says little");
}
