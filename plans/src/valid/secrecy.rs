//! Rules S01 to S06 and S09: what leaves the device, and what edge A can learn from all it receives.
//!
//! Edge B receives nothing (P04), so its view is empty. For edge A the argument is that of protocol section 2: let
//! `m_1 .. m_n` be everything it receives in a request. If the messages can be ordered such that each `m_i` is
//! `u_i` plus terms without `u_i`, for a mask or pad `u_i` that occurs in no message before it, then for every fixed
//! data the map from `(u_1 .. u_n)` to `(m_1 .. m_n)` is a bijection: the view is uniform. It stays so if the data
//! depends on what edge A has seen, because a transcript fixes all of it.

use std::collections::{BTreeMap, BTreeSet};

use super::algebra::{Base, Sum, Term, Trace};
use super::{PLAIN, Report};
use crate::op::Op;
use crate::plan::Bundle;
use crate::value::{Role, SlotId, ValueId};

/// Reports S01 to S04, S06 and S09, which single programs show.
pub(super) fn check_steps(bundle: &Bundle, report: &mut Report) {
    let plain = bundle.header.scheme == PLAIN;
    let dealer = super::dealer(&bundle.header.scheme).flatten();
    let mut uses = Uses::default();
    for program in &bundle.programs {
        let role = program.role;
        let device = role == Role::Device;
        // What each value is that may be sent: the slot it was masked for, or none if it was exposed.
        let mut masked: BTreeMap<ValueId, Option<SlotId>> = BTreeMap::new();
        let mut drawn: BTreeSet<ValueId> = BTreeSet::new();
        let mut next = program.params.len();
        for (i, step) in program.steps.iter().enumerate() {
            let result = ValueId(next as u32);
            next += step.results.len();
            if !matches!(step.op, Op::Apply { .. } | Op::Pad { .. })
                && let Some(v) = step.op.operands().iter().find(|v| drawn.contains(v))
            {
                report.at("S06", role, i, format!("the mask {v} itself is given to {}", step.op.name()));
            }
            let streams = matches!(step.op, Op::Mask { .. } | Op::Draw { .. } | Op::Pad { .. } | Op::Unpad { .. });
            if streams && dealer != Some(role) && !(device && dealer.is_some()) {
                let message = format!("{role} has no mask streams in scheme `{}`", bundle.header.scheme);
                report.at("S09", role, i, message);
            }
            match &step.op {
                Op::Mask { slot, .. } => {
                    uses.once("S02", "mask", *slot, device, (role, i), report);
                    masked.insert(result, Some(*slot));
                }
                Op::Draw { slot } => {
                    uses.once("S02", "mask", *slot, device, (role, i), report);
                    drawn.insert(result);
                }
                Op::Pad { slot, .. } | Op::Unpad { slot, .. } => {
                    uses.once("S04", "pad", *slot, device, (role, i), report);
                }
                Op::Expose { .. } => {
                    if !plain {
                        let message = format!("scheme `{}` exposes data", bundle.header.scheme);
                        report.at("S03", role, i, message);
                    }
                    masked.insert(result, None);
                }
                Op::Send { slot, x, .. } if device => match masked.get(x) {
                    Some(Some(own)) if own == slot => {}
                    Some(None) if plain => {}
                    Some(Some(other)) => {
                        report.at("S01", role, i, format!("{x} bears the mask of {other} and leaves on {slot}"));
                    }
                    Some(None) | None => report.at("S01", role, i, format!("{x} leaves on {slot} unmasked")),
                },
                Op::Send { .. }
                | Op::Encode { .. }
                | Op::Lift { .. }
                | Op::Check { .. }
                | Op::Decode { .. }
                | Op::Local { .. }
                | Op::Return { .. }
                | Op::Recv { .. }
                | Op::Apply { .. }
                | Op::Sub { .. }
                | Op::Store { .. }
                | Op::Load { .. }
                | Op::DealCheck { .. } => {}
            }
        }
    }
    for (slot, sides) in &uses.pads {
        if *sides != (true, true) {
            let (what, lacks) = if sides.0 { ("undone", "added") } else { ("added", "undone") };
            let message = format!("the pad of slot {slot} is {what} but never {lacks}");
            report.bundle("S04", message);
        }
    }
}

/// Which streams were used: on the device, elsewhere.
#[derive(Default)]
struct Uses {
    masks: BTreeMap<SlotId, (bool, bool)>,
    pads: BTreeMap<SlotId, (bool, bool)>,
}

impl Uses {
    fn once(
        &mut self,
        rule: &'static str,
        what: &str,
        slot: SlotId,
        device: bool,
        (role, step): (Role, usize),
        report: &mut Report,
    ) {
        let table = if rule == "S02" { &mut self.masks } else { &mut self.pads };
        let sides = table.entry(slot).or_default();
        let side = if device { &mut sides.0 } else { &mut sides.1 };
        if std::mem::replace(side, true) {
            report.at(rule, role, step, format!("the {what} of slot {slot} is used a second time"));
        }
    }
}

/// Reports S05: peels off messages that hold a mask or pad which no other remaining message holds, last of the order
/// first. What cannot be peeled may tell edge A something.
pub(super) fn check_views(bundle: &Bundle, trace: &Trace, report: &mut Report) {
    if bundle.header.scheme == PLAIN {
        return;
    }
    // For each base: the messages that hold it, and for each message the bases that could hide it.
    let mut holders: BTreeMap<Base, BTreeSet<usize>> = BTreeMap::new();
    for (i, (_, _, sum)) in trace.edge_a.iter().enumerate() {
        for term in sum.terms.keys() {
            holders.entry(term.base).or_default().insert(i);
        }
    }
    // Bare, with coefficient 1, and nowhere else in the message: r + L(r) need not be uniform.
    let hides = |sum: &Sum, base: Base| {
        sum.terms.get(&Term { base, maps: Vec::new() }) == Some(&1)
            && sum.terms.keys().filter(|t| t.base == base).count() == 1
    };
    let mut left: BTreeSet<usize> = (0..trace.edge_a.len()).collect();
    let mut ready: Vec<Base> = holders.keys().copied().collect();
    while let Some(base) = ready.pop() {
        let Some(&[message]) = holders.get(&base).map(|h| h.iter().copied().collect::<Vec<_>>()).as_deref() else {
            continue;
        };
        let sum = &trace.edge_a[message].2;
        if matches!(base, Base::Encoded(_)) || !left.contains(&message) || !hides(sum, base) {
            continue;
        }
        left.remove(&message);
        for term in sum.terms.keys() {
            if let Some(held) = holders.get_mut(&term.base)
                && held.remove(&message)
                && held.len() == 1
            {
                ready.push(term.base);
            }
        }
    }
    for message in left {
        let (step, slot, sum) = &trace.edge_a[message];
        let why = "no mask or pad hides it from what else edge A receives";
        report.at("S05", Role::EdgeA, *step, format!("slot {slot} brings {sum}: {why}"));
    }
}
