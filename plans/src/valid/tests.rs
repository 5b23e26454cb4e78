//! Good bundles of all schemes are admitted; each way to leak, to reuse or to mispair is refused by its own rule.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use super::algebra::{Base, Sum, Term, Trace};
use super::examples::{SCHEMES, double, single};
use super::{Report, cost, secrecy, validate};
use crate::field::Attr;
use crate::map::MapOp;
use crate::op::Op;
use crate::plan::{Bundle, Patch, Program, Slot, SlotKind, Step};
use crate::value::{ConstId, DType, MapId, Role, Shape, SlotId, ValueId, ValueType};
use Role::{Device, EdgeA, EdgeB, Offline};

/// The rules a bundle breaks, its declared cost set right.
fn rules(mut bundle: Bundle) -> Vec<&'static str> {
    if let Ok(counted) = cost(&bundle) {
        bundle.cost = counted;
    }
    broken(bundle)
}

fn broken(bundle: Bundle) -> Vec<&'static str> {
    let violations = validate(bundle).err().unwrap_or_default();
    violations.iter().map(|v| v.rule).collect::<BTreeSet<_>>().into_iter().collect()
}

fn relay() -> Bundle {
    single("relay", 32).0
}

fn program(bundle: &mut Bundle, role: Role) -> &mut Program {
    bundle.programs.iter_mut().find(|p| p.role == role).unwrap()
}

/// The step number of the `nth` operation of this name.
fn find(bundle: &Bundle, role: Role, name: &str, nth: usize) -> usize {
    let steps = bundle.program(role).unwrap().steps.iter().enumerate();
    steps.filter(|(_, s)| s.op.name() == name).nth(nth).unwrap().0
}

fn op<'a>(bundle: &'a mut Bundle, role: Role, name: &str, nth: usize) -> &'a mut Op {
    let at = find(bundle, role, name, nth);
    &mut program(bundle, role).steps[at].op
}

/// The value that a step defines.
fn result(bundle: &Bundle, role: Role, name: &str, nth: usize) -> ValueId {
    let (at, program) = (find(bundle, role, name, nth), bundle.program(role).unwrap());
    ValueId((program.params.len() + program.steps[..at].iter().map(|s| s.results.len()).sum::<usize>()) as u32)
}

/// Replaces value numbers in a step's operands.
fn renumber(op: &mut Op, f: impl Fn(ValueId) -> ValueId) {
    let attrs = op.fields().into_iter().map(|(_, attr)| match attr {
        Attr::Value(v) => Attr::Value(f(v)),
        Attr::Values(vs) => Attr::Values(vs.into_iter().map(&f).collect()),
        other => other,
    });
    *op = Op::from_fields(op.code(), attrs.collect()).unwrap();
}

/// Inserts a step before step `at`; later values move up.
fn insert(bundle: &mut Bundle, role: Role, at: usize, op: Op, results: Vec<ValueType>) {
    let program = program(bundle, role);
    let first = program.params.len() + program.steps[..at].iter().map(|s| s.results.len()).sum::<usize>();
    let by = results.len() as u32;
    for step in &mut program.steps[at..] {
        renumber(&mut step.op, |v| if v.index() >= first { ValueId(v.0 + by) } else { v });
    }
    program.steps.insert(at, Step { op, results });
}

/// Removes a step of at most one result; readers of the result get its first operand instead.
fn remove(bundle: &mut Bundle, role: Role, name: &str, nth: usize) {
    let at = find(bundle, role, name, nth);
    let gone = result(bundle, role, name, nth);
    let program = program(bundle, role);
    let step = program.steps.remove(at);
    if step.results.is_empty() {
        return;
    }
    let instead = step.op.operands().first().copied();
    for step in &mut program.steps[at..] {
        renumber(&mut step.op, |v| match v.0.cmp(&gone.0) {
            std::cmp::Ordering::Less => v,
            std::cmp::Ordering::Equal => instead.unwrap(),
            std::cmp::Ordering::Greater => ValueId(v.0 - 1),
        });
    }
}

fn last(bundle: &Bundle, role: Role) -> usize {
    bundle.program(role).unwrap().steps.len()
}

fn ring(shape: &[usize]) -> ValueType {
    ValueType::Ring(32, Shape(shape.to_vec()))
}

fn add_slot(bundle: &mut Bundle, kind: SlotKind, shape: &[usize]) -> SlotId {
    bundle.slots.push(Slot { kind, k: 32, shape: Shape(shape.to_vec()), name: "extra".into() });
    SlotId(bundle.slots.len() as u32 - 1)
}

#[test]
fn good_bundles_of_every_scheme_are_admitted() {
    for scheme in SCHEMES {
        for k in [8, 32, 40, 52, 60] {
            for (bundle, _) in [single(scheme, k), double(scheme, k)] {
                let valid = validate(bundle.clone()).unwrap_or_else(|e| panic!("{scheme} {k}: {e:?}"));
                assert_eq!(*valid, bundle);
                assert_eq!(*valid.digest(), crate::digest::bundle_digest(&bundle));
            }
        }
    }
}

#[test]
fn costs_are_those_of_the_schemes() {
    let count = |scheme| {
        let c = single(scheme, 32).0.cost;
        (c.rounds, c.bytes_up, c.bytes_down, c.bytes_edge_link, c.mult_adds_edge_a, c.mult_adds_edge_b)
    };
    assert_eq!(count("relay"), (1, 16, 12, 12, 12, 12));
    assert_eq!(count("two-edge"), (1, 16, 24, 0, 12, 12));
    assert_eq!(count("one-time"), (1, 16, 12, 0, 12, 0));
    assert_eq!(count("stockpile"), (1, 16, 12, 0, 12, 0));
    assert_eq!(count("plain"), (1, 16, 12, 0, 12, 0));
    let c = double("relay", 52).0.cost;
    assert_eq!((c.rounds, c.bytes_up, c.bytes_down), (2, 26 + 2 * 20, 2 * 20 + 13));
    // A receive before anything was sent, and further ones after a wait, start no round.
    let c = double("two-edge", 32).0.cost;
    assert_eq!(c.rounds, 2);
}

#[test]
fn wrong_costs_are_refused() {
    for (rule, spoil) in [
        ("C01", (|b| b.cost.rounds += 1) as fn(&mut Bundle)),
        ("C02", |b| b.cost.bytes_up -= 1),
        ("C02", |b| b.cost.bytes_down += 1),
        ("C02", |b| b.cost.bytes_edge_link = 0),
        ("C03", |b| b.cost.mult_adds_edge_a += 1),
        ("C03", |b| b.cost.mult_adds_edge_b = 0),
    ] {
        let mut bundle = relay();
        spoil(&mut bundle);
        assert_eq!(broken(bundle), [rule]);
    }
}

#[test]
fn a_slot_has_one_sender_and_one_receiver() {
    let mut twice = relay();
    let at = find(&twice, Device, "send", 0);
    let again = twice.program(Device).unwrap().steps[at].op.clone();
    insert(&mut twice, Device, at, again, vec![]);
    assert_eq!(rules(twice), ["P01"]);

    let mut never = relay();
    add_slot(&mut never, SlotKind::Upload, &[1]);
    assert_eq!(rules(never), ["P01"]);

    let mut loaded = single("one-time", 32).0;
    let at = find(&loaded, Device, "load", 0);
    let again = loaded.program(Device).unwrap().steps[at].clone();
    insert(&mut loaded, Device, at, again.op, again.results);
    assert_eq!(rules(loaded), ["P01"]);

    let mut lost = relay();
    let at = find(&lost, EdgeB, "send", 0);
    program(&mut lost, EdgeB).steps.remove(at);
    assert!(rules(lost).contains(&"P01"));
}

#[test]
fn slots_connect_the_roles_of_their_kind() {
    // The device asks edge B for what edge A sends.
    let mut bundle = relay();
    let Op::Recv { from, .. } = op(&mut bundle, Device, "recv", 0) else { panic!() };
    *from = EdgeB;
    assert_eq!(rules(bundle), ["P02"]);
    // Stored with the device, loaded by edge A.
    let mut bundle = single("stockpile", 32).0;
    let Op::Store { to, .. } = op(&mut bundle, Offline, "store", 0) else { panic!() };
    *to = Device;
    assert_eq!(rules(bundle), ["P02"]);
    // Edge A forwards the upload to edge B.
    let mut bundle = relay();
    let slot = add_slot(&mut bundle, SlotKind::Upload, &[1, 4]);
    let x = result(&bundle, EdgeA, "recv", 1);
    let end = last(&bundle, EdgeA);
    insert(&mut bundle, EdgeA, end, Op::Send { to: EdgeB, slot, x }, vec![]);
    let end = last(&bundle, EdgeB);
    insert(&mut bundle, EdgeB, end, Op::Recv { from: EdgeA, slot }, vec![ring(&[1, 4])]);
    assert_eq!(rules(bundle), ["P02", "P04"]);
}

#[test]
fn nobody_waits_for_ever() {
    let mut bundle = relay();
    let (send, recv) = (find(&bundle, Device, "send", 0), find(&bundle, Device, "recv", 0));
    assert_eq!(recv, send + 1);
    program(&mut bundle, Device).steps.swap(send, recv);
    assert_eq!(rules(bundle), ["P03"]);
}

#[test]
fn edge_b_receives_nothing_and_the_owner_is_away() {
    let mut bundle = relay();
    let Op::Send { to, .. } = op(&mut bundle, Device, "send", 0) else { panic!() };
    *to = EdgeB;
    let slot = SlotId(0);
    insert(&mut bundle, EdgeB, 0, Op::Recv { from: Device, slot }, vec![ring(&[1, 4])]);
    assert!(rules(bundle).contains(&"P04"));

    let mut bundle = single("stockpile", 32).0;
    let store = op(&mut bundle, Offline, "store", 0);
    let Op::Store { to, slot, x } = store.clone() else { panic!() };
    *store = Op::Send { to, slot, x };
    assert!(rules(bundle).contains(&"P04"));
}

#[test]
fn the_device_sends_only_what_it_masked_for_the_slot() {
    // The unpadded reply of the first stage leaves in the second.
    let mut bundle = double("relay", 32).0;
    let z = result(&bundle, Device, "unpad", 0);
    let Op::Send { x, .. } = op(&mut bundle, Device, "send", 1) else { panic!() };
    *x = z;
    let found = rules(bundle);
    assert!(found.contains(&"S01") && found.contains(&"S05"), "{found:?}");
    // One masked tensor on two slots.
    let mut bundle = double("relay", 32).0;
    let first = result(&bundle, Device, "mask", 1);
    let Op::Send { x, .. } = op(&mut bundle, Device, "send", 2) else { panic!() };
    *x = first;
    assert_eq!(rules(bundle), ["S01", "S05", "S07"]);
    // Masks of two slots exchanged: each would be used once.
    let mut bundle = double("relay", 32).0;
    let slots: Vec<SlotId> = (1..3)
        .map(|n| match op(&mut bundle, Device, "mask", n) {
            Op::Mask { slot, .. } => *slot,
            _ => panic!(),
        })
        .collect();
    for n in 1..3 {
        let Op::Mask { slot, .. } = op(&mut bundle, Device, "mask", n) else { panic!() };
        *slot = slots[2 - n];
    }
    assert!(rules(bundle).contains(&"S01"));
    // A decoded tensor is no ring value at all.
    let mut bundle = double("relay", 32).0;
    let y = result(&bundle, Device, "decode", 0);
    let Op::Send { x, .. } = op(&mut bundle, Device, "send", 1) else { panic!() };
    *x = y;
    assert_eq!(rules(bundle), ["T06"]);
}

#[test]
fn a_mask_is_used_once_on_each_side() {
    // The mask of one upload for two.
    let mut bundle = double("relay", 32).0;
    let Op::Mask { slot, .. } = op(&mut bundle, Device, "mask", 1).clone() else { panic!() };
    let Op::Mask { slot: other, .. } = op(&mut bundle, Device, "mask", 2) else { panic!() };
    *other = slot;
    let found = rules(bundle);
    assert!(found.contains(&"S02") && found.contains(&"S05"), "{found:?}");
    // Drawn twice.
    let mut bundle = relay();
    insert(&mut bundle, EdgeB, 0, Op::Draw { slot: SlotId(0) }, vec![ring(&[1, 4])]);
    assert_eq!(rules(bundle), ["S02"]);
    // Drawn by edge B and by the owner.
    let mut bundle = relay();
    insert(&mut bundle, Offline, 0, Op::Draw { slot: SlotId(0) }, vec![ring(&[1, 4])]);
    assert_eq!(rules(bundle), ["S02", "S09"]);
}

/// Dealt masks without ledger, or session masks that nobody else can make: the name decides which key is used.
#[test]
fn streams_come_from_the_keys_of_the_scheme() {
    for scheme in SCHEMES {
        for label in SCHEMES {
            let mut bundle = single(scheme, 32).0;
            bundle.header.scheme = label.into();
            let found = rules(bundle);
            let dealt = |s: &str| s == "one-time" || s == "stockpile";
            if scheme == "plain" || label == "plain" {
                assert_eq!(found.is_empty(), scheme == label, "{scheme} as {label}: {found:?}");
            } else {
                let want: &[&str] = if dealt(scheme) == dealt(label) { &[] } else { &["S09"] };
                assert_eq!(found, want, "{scheme} as {label}");
            }
        }
    }
}

#[test]
fn data_is_exposed_in_plain_only() {
    let mut bundle = relay();
    let mask = op(&mut bundle, Device, "mask", 0);
    let Op::Mask { x, .. } = *mask else { panic!() };
    *mask = Op::Expose { x, k: 32 };
    assert_eq!(rules(bundle), ["S01", "S03", "S05", "S07"]);
    let mut bundle = single("plain", 32).0;
    bundle.header.scheme = "relay".into();
    assert_eq!(rules(bundle), ["S01", "S03", "S05"]);
}

#[test]
fn pads_are_added_and_undone_once() {
    // Undone twice.
    let mut bundle = relay();
    let (at, z) = (find(&bundle, Device, "lift", 0), result(&bundle, Device, "unpad", 0));
    let Op::Unpad { slot, .. } = *op(&mut bundle, Device, "unpad", 0) else { panic!() };
    insert(&mut bundle, Device, at, Op::Unpad { slot, x: z }, vec![ring(&[1, 3])]);
    let next = result(&bundle, Device, "unpad", 1);
    let Op::Lift { x } = op(&mut bundle, Device, "lift", 0) else { panic!() };
    *x = next;
    assert_eq!(rules(bundle), ["S04", "S07"]);
    // Missing in edge B: edge A would see L(r).
    let mut bundle = relay();
    remove(&mut bundle, EdgeB, "pad", 0);
    assert_eq!(rules(bundle), ["S04", "S05", "S07"]);
    // Never undone.
    let mut bundle = relay();
    remove(&mut bundle, Device, "unpad", 0);
    assert_eq!(rules(bundle), ["S04", "S07"]);
    // One pad for two maps.
    let mut bundle = double("relay", 32).0;
    let Op::Pad { slot, .. } = op(&mut bundle, EdgeB, "pad", 0).clone() else { panic!() };
    let Op::Pad { slot: other, .. } = op(&mut bundle, EdgeB, "pad", 1) else { panic!() };
    *other = slot;
    assert_eq!(rules(bundle), ["S04", "S05", "S07"]);
}

/// Without any pad the arithmetic is right, nothing is used twice, and edge A learns `L(r)`, hence `L(x)`.
#[test]
fn corrections_that_reach_edge_a_are_padded() {
    for (scheme, dealer) in [("relay", EdgeB), ("stockpile", Offline)] {
        let mut bundle = single(scheme, 32).0;
        remove(&mut bundle, dealer, "pad", 0);
        remove(&mut bundle, Device, "unpad", 0);
        assert_eq!(rules(bundle), ["S05"], "{scheme}");
    }
    // two-edge with the correction sent to the wrong edge as well.
    let mut bundle = single("two-edge", 32).0;
    let slot = add_slot(&mut bundle, SlotKind::Correction, &[1, 3]);
    let u = result(&bundle, EdgeB, "apply", 0);
    let end = last(&bundle, EdgeB);
    insert(&mut bundle, EdgeB, end, Op::Send { to: EdgeA, slot, x: u }, vec![]);
    let end = last(&bundle, EdgeA);
    insert(&mut bundle, EdgeA, end, Op::Recv { from: EdgeB, slot }, vec![ring(&[1, 3])]);
    assert_eq!(rules(bundle), ["S05"]);
}

#[test]
fn masks_themselves_go_nowhere() {
    let mut bundle = relay();
    let slot = add_slot(&mut bundle, SlotKind::Correction, &[1, 4]);
    let r = result(&bundle, EdgeB, "draw", 0);
    let end = last(&bundle, EdgeB);
    insert(&mut bundle, EdgeB, end, Op::Send { to: EdgeA, slot, x: r }, vec![]);
    let end = last(&bundle, EdgeA);
    insert(&mut bundle, EdgeA, end, Op::Recv { from: EdgeB, slot }, vec![ring(&[1, 4])]);
    assert_eq!(rules(bundle), ["S05", "S06"]);
}

/// A triangular view is uniform, a circular one need not be, and neither is `r + L(r)`.
#[test]
fn views_are_hidden_jointly() {
    let sum = |terms: &[(Base, usize, u64)]| {
        let mut sum = Sum { k: 32, terms: Default::default() };
        for (base, maps, c) in terms {
            sum.terms.insert(Term { base: *base, maps: vec![(MapId(0), 0); *maps] }, *c);
        }
        sum
    };
    let (a, b, x) = (Base::Mask(SlotId(0)), Base::Pad(SlotId(1)), Base::Encoded(ValueId(0)));
    let clean = |views: Vec<Sum>| {
        let edge_a = views.into_iter().enumerate().map(|(i, s)| (i, SlotId(i as u32), s)).collect();
        let mut report = Report::default();
        secrecy::check_views(&relay(), &Trace { edge_a, checks: vec![] }, &mut report);
        report.violations.iter().filter_map(|v| v.step).collect::<Vec<_>>()
    };
    let none: [usize; 0] = [];
    assert_eq!(clean(vec![sum(&[(x, 0, 1), (a, 0, 1)]), sum(&[(a, 1, 1), (b, 0, 1)])]), none);
    assert_eq!(clean(vec![sum(&[(a, 0, 1), (b, 1, 1)]), sum(&[(b, 0, 1), (a, 1, 1)])]), [0, 1]);
    assert_eq!(clean(vec![sum(&[(a, 0, 1), (a, 1, 1)])]), [0]);
    assert_eq!(clean(vec![sum(&[(x, 0, 1), (a, 0, 2)])]), [0]);
    assert_eq!(clean(vec![sum(&[(x, 0, 1), (a, 0, 1)]), sum(&[(a, 0, 1)])]), [0, 1]);
    // Each alone is hidden; the third tells the sum of their masks.
    let pair = sum(&[(x, 1, 1), (a, 0, 1), (b, 0, 1)]);
    assert_eq!(clean(vec![sum(&[(x, 0, 1), (a, 0, 1)]), sum(&[(x, 0, 1), (b, 0, 1)]), pair]), [0, 1, 2]);
    assert_eq!(clean(vec![sum(&[])]), [0]);
}

#[test]
fn what_is_lifted_is_one_map_of_data() {
    // Edge A forgets the correction.
    let mut bundle = relay();
    let y = result(&bundle, EdgeA, "apply", 0);
    let Op::Send { x, .. } = op(&mut bundle, EdgeA, "send", 0) else { panic!() };
    *x = y;
    assert_eq!(rules(bundle), ["S07"]);
    // Subtracts it the wrong way round.
    let mut bundle = relay();
    let Op::Sub { a, b } = op(&mut bundle, EdgeA, "sub", 0) else { panic!() };
    std::mem::swap(a, b);
    assert_eq!(rules(bundle), ["S07"]);
    // Corrections of two maps exchanged.
    let mut bundle = double("relay", 32).0;
    for (n, other) in [(0, 1), (1, 0)] {
        let Op::Apply { map, .. } = op(&mut bundle, EdgeB, "apply", n) else { panic!() };
        *map = MapId(other);
    }
    assert_eq!(rules(bundle), ["S07"]);
    // Masks of two inputs exchanged in the correction.
    let mut bundle = double("relay", 32).0;
    let Op::Apply { inputs, .. } = op(&mut bundle, EdgeB, "apply", 2) else { panic!() };
    inputs.reverse();
    assert_eq!(rules(bundle), ["S07"]);
    // Two maps one after another, corrected for both.
    let mut bundle = single("plain", 32).0;
    bundle.maps.push(crate::map::LinearMap {
        name: "same".into(),
        inputs: vec![Shape(vec![1, 3])],
        ops: vec![MapOp::Reshape { x: ValueId(0), shape: vec![1, 3] }],
        output: ValueId(1),
    });
    let (at, y) = (find(&bundle, EdgeA, "send", 0), result(&bundle, EdgeA, "apply", 0));
    insert(&mut bundle, EdgeA, at, Op::Apply { map: MapId(1), inputs: vec![y] }, vec![ring(&[1, 3])]);
    let Op::Send { x, .. } = op(&mut bundle, EdgeA, "send", 0) else { panic!() };
    *x = ValueId(y.0 + 1);
    assert_eq!(rules(bundle.clone()), ["S07"]);
    // Far more than can be followed.
    for n in 0..20 {
        let next = Op::Apply { map: MapId(1), inputs: vec![ValueId(y.0 + 1 + n)] };
        insert(&mut bundle, EdgeA, at + 1 + n as usize, next, vec![ring(&[1, 3])]);
    }
    assert_eq!(rules(bundle), ["S08"]);
}

#[test]
fn checks_name_what_was_computed() {
    let mut bundle = double("relay", 32).0;
    let Op::Check { map, .. } = op(&mut bundle, Device, "check", 0) else { panic!() };
    *map = MapId(1);
    assert_eq!(rules(bundle), ["K02", "K04"]);
    let mut bundle = double("relay", 32).0;
    for (n, other) in [(0, 1), (1, 0)] {
        let Op::Check { map, .. } = op(&mut bundle, Device, "check", n) else { panic!() };
        *map = MapId(other);
    }
    assert_eq!(rules(bundle), ["K02"]);
    let mut bundle = double("relay", 32).0;
    let Op::Check { inputs, .. } = op(&mut bundle, Device, "check", 2) else { panic!() };
    inputs.reverse();
    assert_eq!(rules(bundle), ["K02"]);
    // The exponents of another tensor.
    let mut bundle = double("relay", 32).0;
    let other = result(&bundle, Device, "encode", 0);
    let Op::Decode { source, .. } = op(&mut bundle, Device, "decode", 2) else { panic!() };
    *source = other;
    assert_eq!(rules(bundle), ["K03"]);
}

#[test]
fn everything_decoded_was_checked() {
    let mut bundle = relay();
    let y = result(&bundle, Device, "lift", 0);
    let Op::Decode { z, .. } = op(&mut bundle, Device, "decode", 0) else { panic!() };
    *z = y;
    assert_eq!(rules(bundle), ["K01"]);
    let mut bundle = relay();
    remove(&mut bundle, Offline, "deal-check", 0);
    assert_eq!(rules(bundle), ["K04"]);
    let mut bundle = relay();
    insert(&mut bundle, Offline, 0, Op::DealCheck { map: MapId(0) }, vec![]);
    assert_eq!(rules(bundle), ["K04"]);
}

#[test]
fn types_are_checked() {
    type Spoil = fn(&mut Bundle);
    let cases: &[(&str, Spoil)] = &[
        ("T01", |b| drop(b.programs.pop())),
        ("T01", |b| b.programs.swap(0, 1)),
        ("T01", |b| b.programs[3].params.push(ring(&[1]))),
        ("T01", |b| b.inputs[0].shape = Shape(vec![1, 5])),
        ("T02", |b| b.slots[0].shape = Shape(vec![0, 4])),
        ("T02", |b| b.slots[0].shape = Shape(vec![1 << 20, 1 << 20])),
        ("T02", |b| b.slots[0].shape = Shape(vec![1; 17])),
        ("T02", |b| b.outputs[0].shape = Shape(vec![usize::MAX, 3])),
        ("T03", |b| *op(b, EdgeA, "sub", 0) = Op::Sub { a: ValueId(0), b: ValueId(77) }),
        ("T04", |b| *op(b, EdgeA, "sub", 0) = Op::Draw { slot: SlotId(0) }),
        ("T05", |b| *op(b, EdgeB, "draw", 0) = Op::Draw { slot: SlotId(9) }),
        ("T05", |b| *op(b, Offline, "deal-check", 0) = Op::DealCheck { map: MapId(3) }),
        ("T05", |b| *op(b, Device, "encode", 0) = Op::Encode { x: ValueId(0), groups: 1, range: 5 }),
        ("T05", |b| *op(b, Device, "local", 0) = Op::Local { model: ConstId(50), inputs: vec![] }),
        ("T05", |b| b.constants.truncate(0)),
        ("T06", |b| *op(b, Device, "lift", 0) = Op::Lift { x: ValueId(0) }),
        ("T06", |b| *op(b, EdgeA, "apply", 0) = Op::Apply { map: MapId(0), inputs: vec![] }),
        ("T06", |b| *op(b, EdgeA, "apply", 0) = Op::Apply { map: MapId(0), inputs: vec![ValueId(0)] }),
        ("T07", |b| program(b, EdgeB).steps[0].results = vec![ring(&[4, 1])]),
        ("T07", |b| program(b, EdgeB).steps[0].results = vec![]),
        ("T08", |b| b.maps[0].output = ValueId(2)),
        ("T08", |b| b.maps[0].inputs[0] = Shape(vec![1, 5])),
        ("T08", |b| b.maps[0].ops.clear()),
        ("T09", |b| b.constants[0].dtype = DType::F32),
        ("T09", |b| b.constants[1].dtype = DType::F32),
        ("T09", |b| b.constants[1].shape = Shape(vec![2])),
        ("T09", |b| b.constants[2].dtype = DType::I8),
        ("T10", |b| b.slots[0].k = 61),
        ("T10", |b| b.slots[0].k = 1),
        ("T10", |b| b.constants[0].dtype = DType::I32),
        ("T11", |b| b.slots[0].kind = SlotKind::Correction),
        ("T11", |b| b.slots[2].kind = SlotKind::Upload),
        ("T12", |b| b.ranges[0].bounds[0].k = 40),
        ("T12", |b| b.ranges[0].bounds.clear()),
        ("T12", |b| b.ranges[0].bounds[0].major = vec![1, 2]),
        ("T12", |b| b.ranges[0].bounds[0].minor = vec![]),
        ("T12", |b| {
            b.ranges[0].bounds[0].patch = Patch::Window {
                kernel: vec![1],
                strides: vec![1],
                dilations: vec![1],
                pads_before: vec![0],
                pads_after: vec![0],
            }
        }),
        ("T12", |b| *op(b, Device, "encode", 0) = Op::Encode { x: ValueId(0), groups: 3, range: 0 }),
        ("T13", |b| drop(program(b, Device).steps.pop())),
        ("T13", |b| insert(b, Device, 0, Op::Return { outputs: vec![] }, vec![])),
        ("T13", |b| b.outputs[0].dtype = DType::F64),
        ("T14", |b| b.header.suite = "xor".into()),
        ("T14", |b| b.header.scheme = "own".into()),
    ];
    for (i, (rule, spoil)) in cases.iter().enumerate() {
        let mut bundle = relay();
        spoil(&mut bundle);
        let found = rules(bundle);
        assert!(found.contains(rule), "case {i}: {found:?} lacks {rule}");
    }
    // A group constant is needed as soon as there is more than one group.
    let mut bundle = relay();
    *op(&mut bundle, Device, "encode", 0) = Op::Encode { x: ValueId(0), groups: 2, range: 0 };
    assert_eq!(rules(bundle), ["T09"]);
}

#[test]
fn violations_name_role_step_and_rule() {
    let mut bundle = relay();
    remove(&mut bundle, EdgeB, "pad", 0);
    remove(&mut bundle, Device, "unpad", 0);
    let violations = validate(bundle).unwrap_err();
    let text = violations[0].to_string();
    assert!(text.starts_with("[S05] edge-a, step 0: slot #1 brings $0.0(mask #0)"), "{text}");
}
