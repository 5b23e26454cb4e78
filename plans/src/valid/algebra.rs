//! What every ring value is, as a formal sum over all roles.
//!
//! A ring value is a sum of terms, each a coefficient modulo `2^k` times a chain of maps applied to an encoded tensor,
//! a mask or a pad. Since maps are linear, `apply`, `sub`, `mask`, `pad` and `unpad` act on such sums exactly: two
//! values with the same sum are equal whatever the data, the weights and the streams. A map of several inputs is the
//! sum of its parts, one an input.

use std::collections::BTreeMap;
use std::fmt;

use super::pairing::Schedule;
use super::{Report, limits};
use crate::op::Op;
use crate::plan::Bundle;
use crate::value::{MapId, Role, SlotId, ValueId, ValueType};

/// What a chain of maps is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Base {
    /// An encoded tensor, by the device's number for it.
    Encoded(ValueId),
    /// The mask of an upload slot: uniform, independent of all others.
    Mask(SlotId),
    /// The pad of a download slot: likewise.
    Pad(SlotId),
}

/// A base under maps, innermost first; a map comes with the number of the input it reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Term {
    pub(super) base: Base,
    pub(super) maps: Vec<(MapId, usize)>,
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (map, input) in self.maps.iter().rev() {
            write!(f, "{map}.{input}(")?;
        }
        match self.base {
            Base::Encoded(v) => write!(f, "data {v}")?,
            Base::Mask(slot) => write!(f, "mask {slot}")?,
            Base::Pad(slot) => write!(f, "pad {slot}")?,
        }
        f.write_str(&")".repeat(self.maps.len()))
    }
}

/// A formal sum. Coefficients are kept modulo `2^k` and are never zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) k: u32,
    pub(super) terms: BTreeMap<Term, u64>,
}

impl Sum {
    fn zero(k: u32) -> Sum {
        Sum { k, terms: BTreeMap::new() }
    }

    fn of(k: u32, base: Base) -> Sum {
        let mut sum = Sum::zero(k);
        sum.add_term(Term { base, maps: Vec::new() }, 1);
        sum
    }

    fn add_term(&mut self, term: Term, coefficient: u64) {
        let entry = self.terms.entry(term);
        let sum = match &entry {
            std::collections::btree_map::Entry::Occupied(old) => old.get().wrapping_add(coefficient),
            std::collections::btree_map::Entry::Vacant(_) => coefficient,
        } & (u64::MAX >> (64 - self.k.clamp(1, 64)));
        match (entry, sum) {
            (std::collections::btree_map::Entry::Occupied(old), 0) => drop(old.remove()),
            (std::collections::btree_map::Entry::Vacant(_), 0) => {}
            (entry, sum) => *entry.or_default() = sum,
        }
    }

    fn add(mut self, other: &Sum, sign: u64) -> Sum {
        for (term, c) in &other.terms {
            self.add_term(term.clone(), c.wrapping_mul(sign));
        }
        self
    }

    /// Terms that must not survive where data is lifted.
    fn secrets(&self) -> Vec<String> {
        let hidden = |t: &&Term| !matches!(t.base, Base::Encoded(_));
        self.terms.keys().filter(hidden).map(ToString::to_string).collect()
    }

    /// The map and the encoded inputs of which this is the result; `None` if it is anything else.
    fn application(&self, bundle: &Bundle) -> Option<Applied> {
        let (first, _) = self.terms.first_key_value()?;
        let [(map, _)] = first.maps.as_slice() else { return None };
        let mut inputs = vec![None; bundle.maps.get(map.index())?.inputs.len()];
        for (term, coefficient) in &self.terms {
            let (Base::Encoded(x), [(m, input)]) = (term.base, term.maps.as_slice()) else { return None };
            if m != map || *coefficient != 1 || inputs.get_mut(*input)?.replace(x).is_some() {
                return None;
            }
        }
        Some(Applied { map: *map, inputs: inputs.into_iter().collect::<Option<_>>()? })
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("0");
        }
        for (i, (term, c)) in self.terms.iter().enumerate() {
            let minus_one = u64::MAX >> (64 - self.k.clamp(1, 64));
            match (i, *c) {
                (0, 1) => write!(f, "{term}")?,
                (_, 1) => write!(f, " + {term}")?,
                (0, c) if c == minus_one => write!(f, "-{term}")?,
                (_, c) if c == minus_one => write!(f, " - {term}")?,
                (0, c) => write!(f, "{c} {term}")?,
                (_, c) => write!(f, " + {c} {term}")?,
            }
        }
        Ok(())
    }
}

/// A map of encoded tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) map: MapId,
    pub(super) inputs: Vec<ValueId>,
}

/// What the validator knows of a value.
#[derive(Clone, Debug)]
enum Known {
    /// A plain or an encoded tensor.
    Data,
    /// Residues.
    Ring(Sum),
    /// Integers of which a map they are the result, `None` if that was reported.
    Integers(Option<Applied>),
}

/// What the other rules read off the sums.
#[derive(Default)]
pub(super) struct Trace {
    /// Everything edge A receives: step, slot, value.
    pub(super) edge_a: Vec<(usize, SlotId, Sum)>,
    /// Checks of the device: step, and what was lifted there, `None` if that was reported.
    pub(super) checks: Vec<(usize, Option<Applied>)>,
}

/// Follows all programs in an order in which they can run. Reports S07 and S08.
pub(super) fn trace(bundle: &Bundle, schedule: &Schedule, report: &mut Report) -> Trace {
    let mut tracer = Tracer {
        bundle,
        values: bundle.programs.iter().map(|p| vec![Known::Data; p.params.len()]).collect(),
        sent: BTreeMap::new(),
        terms: 0,
        trace: Trace::default(),
    };
    for (role, step) in schedule {
        if let Err((rule, message)) = tracer.step(*role, *step) {
            report.at(rule, *role, *step, message);
            if rule == "S08" {
                break;
            }
        }
    }
    tracer.trace
}

struct Tracer<'a> {
    bundle: &'a Bundle,
    /// Values of each program, in the order of the programs.
    values: Vec<Vec<Known>>,
    /// Values on their way.
    sent: BTreeMap<SlotId, Sum>,
    /// Terms of all sums so far.
    terms: usize,
    trace: Trace,
}

impl Tracer<'_> {
    fn step(&mut self, role: Role, index: usize) -> Result<(), (&'static str, String)> {
        let Some(number) = Role::ALL.iter().position(|r| *r == role) else { return Ok(()) };
        let Some(step) = self.bundle.programs.get(number).and_then(|p| p.steps.get(index)) else { return Ok(()) };
        let ring = |v: &ValueId| match self.values[number].get(v.index()) {
            Some(Known::Ring(sum)) => sum.clone(),
            // Types were checked before, so this is not reached.
            _ => Sum::zero(1),
        };
        let k = match step.results.first() {
            Some(ValueType::Ring(k, _)) => *k,
            _ => 1,
        };
        let mut fault = None;
        let known = match &step.op {
            Op::Encode { .. } | Op::Decode { .. } | Op::Local { .. } => Known::Data,
            Op::Mask { slot, x } => Known::Ring(Sum::of(k, Base::Encoded(*x)).add(&Sum::of(k, Base::Mask(*slot)), 1)),
            Op::Expose { x, .. } => Known::Ring(Sum::of(k, Base::Encoded(*x))),
            Op::Unpad { slot, x } | Op::Pad { slot, x } => Known::Ring(ring(x).add(&Sum::of(k, Base::Pad(*slot)), 1)),
            Op::Sub { a, b } => Known::Ring(ring(a).add(&ring(b), u64::MAX)),
            Op::Draw { slot } => Known::Ring(Sum::of(k, Base::Mask(*slot))),
            Op::Recv { slot, .. } | Op::Load { slot } => {
                let sum = self.sent.get(slot).cloned().unwrap_or_else(|| Sum::zero(k));
                if role == Role::EdgeA {
                    self.trace.edge_a.push((index, *slot, sum.clone()));
                }
                Known::Ring(sum)
            }
            Op::Apply { map, inputs } => {
                let mut sum = Sum::zero(k);
                for (i, x) in inputs.iter().enumerate() {
                    for (term, c) in ring(x).terms {
                        let mut maps = term.maps;
                        maps.push((*map, i));
                        if maps.len() > limits::CHAIN {
                            return Err(("S08", format!("more than {} maps one after another", limits::CHAIN)));
                        }
                        sum.add_term(Term { base: term.base, maps }, c);
                        bounded(&sum)?;
                    }
                }
                Known::Ring(sum)
            }
            Op::Lift { x } => {
                let sum = ring(x);
                let applied = sum.application(self.bundle);
                if applied.is_none() {
                    let secrets = sum.secrets();
                    let why = match secrets.as_slice() {
                        [] => "which is not one map of encoded tensors".to_string(),
                        left => format!("in which {} did not cancel", left.join(", ")),
                    };
                    fault = Some(("S07", format!("{x} is {sum}, {why}")));
                }
                Known::Integers(applied)
            }
            Op::Check { z, .. } => {
                let applied = match self.values[number].get(z.index()) {
                    Some(Known::Integers(applied)) => applied.clone(),
                    _ => None,
                };
                self.trace.checks.push((index, applied.clone()));
                Known::Integers(applied)
            }
            Op::Send { slot, x, .. } | Op::Store { slot, x, .. } => {
                let sum = ring(x);
                self.sent.insert(*slot, sum);
                return Ok(());
            }
            Op::Return { .. } | Op::DealCheck { .. } => return Ok(()),
        };
        if let Known::Ring(sum) = &known {
            bounded(sum)?;
            self.terms += sum.terms.len();
            if self.terms > limits::ALL_TERMS {
                return Err(("S08", format!("formal sums of more than {} terms in all", limits::ALL_TERMS)));
            }
        }
        self.values[number].extend(step.results.iter().map(|_| known.clone()));
        fault.map_or(Ok(()), Err)
    }
}

/// S08 for one sum.
fn bounded(sum: &Sum) -> Result<(), (&'static str, String)> {
    if sum.terms.len() > limits::TERMS {
        return Err(("S08", format!("a formal sum of more than {} terms", limits::TERMS)));
    }
    Ok(())
}
