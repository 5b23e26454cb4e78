//! Runs of steps that are executed in one pass over the data.
//!
//! A program is a list of small steps, which is what the validator reasons about. Evaluated one by one they would walk
//! over memory a dozen times; the runs found here are the ones every scheme writes. A run is taken only if no other
//! step reads what lies between its steps, so that the two ways of evaluation cannot be told apart.

use pponnx_plans::op::Op;
use pponnx_plans::plan::{Program, Step};
use pponnx_plans::value::{MapId, Role, SlotId, ValueId};

/// Where a correction comes from that a role subtracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Minus {
    /// A payload of another role.
    Recv(Role, SlotId),
    /// A stored correction.
    Load(SlotId),
}

/// How the device gets residues of the true result from a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    /// It adds the pad of a slot.
    Pad(SlotId),
    /// It subtracts a correction.
    Minus(Minus),
    /// They are bare (scheme `plain`).
    Bare,
}

/// What an edge or the owner does to a product before it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// It adds the pad of a slot.
    Pad(SlotId),
    /// It subtracts a correction.
    Minus(Minus),
    /// Nothing.
    Bare,
}

/// A run of steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// `encode; mask | expose; send`.
    Upload {
        /// The real tensor.
        x: ValueId,
        groups: usize,
        range: usize,
        /// Result of `encode`, read again by checks.
        encoded: ValueId,
        /// Slot that names the mask; `None` where nothing hides the tensor (scheme `plain`).
        mask: Option<SlotId>,
        to: Role,
        slot: SlotId,
    },
    /// `recv; unpad | (recv | load; sub) | nothing; lift; check; decode`.
    Reveal {
        from: Role,
        slot: SlotId,
        open: Open,
        /// Step of the `check`.
        check: usize,
        map: MapId,
        inputs: Vec<ValueId>,
        /// Step of the `decode`.
        decode: usize,
        source: ValueId,
        /// The real tensor that results.
        y: ValueId,
    },
    /// `apply; pad | (recv | load; sub) | nothing; send | store`.
    Answer { map: MapId, inputs: Vec<ValueId>, close: Close, to: Role, slot: SlotId },
}

/// A run and how many steps it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fused {
    pub(crate) run: Run,
    pub(crate) steps: usize,
}

/// The runs of a program, by the number of their first step.
pub(crate) fn runs(program: &Program) -> Vec<Option<Fused>> {
    let mut reads = vec![0usize; program.value_count()];
    let mut firsts = Vec::with_capacity(program.steps.len());
    let mut next = program.params.len();
    for step in &program.steps {
        firsts.push(ValueId(next as u32));
        next += step.results.len();
        for v in step.op.operands() {
            if let Some(n) = reads.get_mut(v.index()) {
                *n += 1;
            }
        }
    }
    (0..program.steps.len())
        .map(|at| {
            let cursor = || Cursor { steps: &program.steps, firsts: &firsts, reads: &reads, at, start: at };
            upload(cursor()).or_else(|| reveal(cursor())).or_else(|| answer(cursor()))
        })
        .collect()
}

/// A place in a program that moves forward while steps fit.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    steps: &'a [Step],
    firsts: &'a [ValueId],
    reads: &'a [usize],
    at: usize,
    start: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<&'a Op> {
        self.steps.get(self.at).map(|s| &s.op)
    }

    /// Passes the step; its result.
    fn pass(&mut self) -> ValueId {
        let result = self.firsts.get(self.at).copied().unwrap_or(ValueId(u32::MAX));
        self.at += 1;
        result
    }

    /// Passes the step if one later step alone reads its result.
    fn pass_private(&mut self) -> Option<ValueId> {
        let result = self.pass();
        (self.reads.get(result.index()) == Some(&1)).then_some(result)
    }

    /// `recv; sub` or `load; sub`, of `a` and what is received or loaded.
    fn minus(&mut self, a: ValueId) -> Option<(Minus, ValueId)> {
        let minus = match self.peek()? {
            Op::Recv { from, slot } => Minus::Recv(*from, *slot),
            Op::Load { slot } => Minus::Load(*slot),
            _ => return None,
        };
        let correction = self.pass_private()?;
        match self.peek()? {
            Op::Sub { a: left, b } if (*left, *b) == (a, correction) => Some((minus, self.pass_private()?)),
            _ => None,
        }
    }

    fn done(&self, run: Run) -> Option<Fused> {
        Some(Fused { run, steps: self.at - self.start })
    }
}

fn upload(mut c: Cursor<'_>) -> Option<Fused> {
    let Op::Encode { x, groups, range } = c.peek()? else { return None };
    let encoded = c.pass();
    let mask = match c.peek()? {
        Op::Mask { slot, x } if *x == encoded => Some(*slot),
        Op::Expose { x, .. } if *x == encoded => None,
        _ => return None,
    };
    let hidden = c.pass_private()?;
    match c.peek()? {
        Op::Send { to, slot, x: sent } if *sent == hidden => {
            c.pass();
            c.done(Run::Upload { x: *x, groups: *groups, range: *range, encoded, mask, to: *to, slot: *slot })
        }
        _ => None,
    }
}

fn reveal(mut c: Cursor<'_>) -> Option<Fused> {
    let Op::Recv { from, slot } = c.peek()? else { return None };
    let reply = c.pass_private()?;
    let (open, residues) = match c.peek()? {
        Op::Unpad { slot, x } if *x == reply => (Open::Pad(*slot), c.pass_private()?),
        Op::Lift { x } if *x == reply => (Open::Bare, reply),
        _ => c.minus(reply).map(|(minus, d)| (Open::Minus(minus), d))?,
    };
    if !matches!(c.peek()?, Op::Lift { x } if *x == residues) {
        return None;
    }
    let lifted = c.pass_private()?;
    let check = c.at;
    let (map, inputs) = match c.peek()? {
        Op::Check { map, inputs, z } if *z == lifted => (*map, inputs.clone()),
        _ => return None,
    };
    let checked = c.pass_private()?;
    let decode = c.at;
    match c.peek()? {
        Op::Decode { z, source, .. } if *z == checked => {
            let y = c.pass();
            c.done(Run::Reveal { from: *from, slot: *slot, open, check, map, inputs, decode, source: *source, y })
        }
        _ => None,
    }
}

fn answer(mut c: Cursor<'_>) -> Option<Fused> {
    let Op::Apply { map, inputs } = c.peek()? else { return None };
    let product = c.pass_private()?;
    let (close, last) = match c.peek()? {
        Op::Pad { slot, x } if *x == product => (Close::Pad(*slot), c.pass_private()?),
        Op::Send { x, .. } | Op::Store { x, .. } if *x == product => (Close::Bare, product),
        _ => c.minus(product).map(|(minus, d)| (Close::Minus(minus), d))?,
    };
    match c.peek()? {
        Op::Send { to, slot, x } | Op::Store { to, slot, x } if *x == last => {
            c.pass();
            c.done(Run::Answer { map: *map, inputs: inputs.clone(), close, to: *to, slot: *slot })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use pponnx_plans::value::{Shape, ValueType};

    fn ring() -> ValueType {
        ValueType::Ring(32, Shape(vec![4]))
    }

    fn device(extra_reader: bool) -> Program {
        let mut p = Program::new(Role::Device);
        p.params.push(ring());
        let encode = Op::Encode { x: ValueId(0), groups: 1, range: 0 };
        let encoded = p.push(encode, vec![ring()]);
        let masked = p.push(Op::Mask { slot: SlotId(0), x: encoded }, vec![ring()]);
        p.push(Op::Send { to: Role::EdgeA, slot: SlotId(0), x: masked }, vec![]);
        if extra_reader {
            p.push(Op::Send { to: Role::EdgeA, slot: SlotId(1), x: masked }, vec![]);
        }
        p
    }

    #[test]
    fn an_upload_is_one_run_unless_something_else_reads_what_lies_between() {
        let found = runs(&device(false));
        assert_eq!(found.iter().flatten().map(|f| f.steps).collect::<Vec<_>>(), [3]);
        assert!(found[0].is_some());
        assert!(runs(&device(true)).iter().all(Option::is_none));
    }

    #[test]
    fn an_answer_is_one_run_with_and_without_a_correction() {
        for (correction, steps) in [(true, 4), (false, 2)] {
            let mut p = Program::new(Role::EdgeA);
            let x = p.push(Op::Recv { from: Role::Device, slot: SlotId(0) }, vec![ring()]);
            let mut y = p.push(Op::Apply { map: MapId(0), inputs: vec![x] }, vec![ring()]);
            if correction {
                let c = p.push(Op::Recv { from: Role::EdgeB, slot: SlotId(1) }, vec![ring()]);
                y = p.push(Op::Sub { a: y, b: c }, vec![ring()]);
            }
            p.push(Op::Send { to: Role::Device, slot: SlotId(2), x: y }, vec![]);
            let found = runs(&p);
            assert_eq!(found[1].as_ref().map(|f| f.steps), Some(steps));
            assert_eq!(found.iter().flatten().count(), 1);
        }
    }
}
