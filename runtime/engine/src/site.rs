//! Names of places in a program, for messages.

use pponnx_plans::op::Op;
use pponnx_plans::plan::{Bundle, Program};
use pponnx_plans::value::{MapId, Role, SlotId, ValueId};

/// Where an `encode` stands, for messages.
pub(crate) struct EncodeSite {
    /// Name of the segment the tensor is for.
    pub(crate) segment: String,
    /// Inputs of the network that it may come from.
    pub(crate) input: String,
}

/// Where a `check` stands, for messages.
pub(crate) struct CheckSite {
    /// Name of the segment.
    pub(crate) segment: String,
    /// Slot of edge A's reply.
    pub(crate) slot: SlotId,
    /// The edge at fault where only one can be.
    pub(crate) blame: Option<Role>,
}

/// The step that defines a value.
fn definition(program: &Program, id: ValueId) -> Option<&Op> {
    let mut next = program.params.len();
    for step in &program.steps {
        let first = next;
        next += step.results.len();
        if (first..next).contains(&id.index()) {
            return Some(&step.op);
        }
    }
    None
}

/// Number of groups of an encoded value.
pub(crate) fn groups_of(program: &Program, id: ValueId) -> usize {
    match definition(program, id) {
        Some(Op::Encode { groups, .. }) => *groups,
        _ => 1,
    }
}

/// Names for the error about NaN: the slot that the encoded tensor goes to, and the inputs behind it.
pub(crate) fn encode_site(bundle: &Bundle, program: &Program, at: usize, x: ValueId) -> EncodeSite {
    let first: usize = program.params.len() + program.steps[..at].iter().map(|s| s.results.len()).sum::<usize>();
    let encoded = ValueId(first as u32);
    let name = |slot: SlotId| bundle.slots.get(slot.index()).map(|s| s.name.clone());
    let mut exposed = None;
    let mut next = program.params.len();
    let mut segment = None;
    for step in &program.steps {
        match &step.op {
            Op::Mask { slot, x } if *x == encoded => segment = segment.or_else(|| name(*slot)),
            Op::Expose { x, .. } if *x == encoded => exposed = Some(ValueId(next as u32)),
            Op::Send { slot, x, .. } if exposed == Some(*x) => segment = segment.or_else(|| name(*slot)),
            _ => {}
        }
        next += step.results.len();
    }
    let input = match bundle.inputs.get(x.index()) {
        Some(port) if x.index() < program.params.len() => port.name.clone(),
        _ => bundle.inputs.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", "),
    };
    EncodeSite { segment: segment.unwrap_or_default(), input }
}

/// Names for a failed check: walks from the tested value back to edge A's reply.
pub(crate) fn check_site(bundle: &Bundle, program: &Program, map: MapId, z: ValueId) -> CheckSite {
    let mut slot = None;
    let mut open = vec![z];
    while let Some(id) = open.pop() {
        match definition(program, id) {
            Some(Op::Recv { from, slot: s }) if slot.is_none() || *from == Role::EdgeA => slot = Some(*s),
            Some(op) => open.extend(op.operands().into_iter().filter(|v| v.index() < id.index())),
            None => {}
        }
    }
    CheckSite {
        segment: bundle.maps.get(map.index()).map(|m| m.name.clone()).unwrap_or_default(),
        slot: slot.unwrap_or(SlotId(0)),
        blame: (!bundle.has_role(Role::EdgeB)).then_some(Role::EdgeA),
    }
}
