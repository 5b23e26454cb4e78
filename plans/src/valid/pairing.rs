//! Rules P01 to P04: who sends what to whom, and that nobody waits for ever.

use std::collections::BTreeSet;

use super::Report;
use crate::op::Op;
use crate::plan::{Bundle, Program, SlotKind};
use crate::value::{Role, SlotId};

/// An order in which all roles can execute all steps.
pub(super) type Schedule = Vec<(Role, usize)>;

/// One end of a slot.
struct End {
    role: Role,
    step: usize,
    /// The role the operation names; for a load the owner, from whose stock it comes.
    peer: Role,
    stored: bool,
}

/// Reports every violation of a P rule; the schedule if there is none.
pub(super) fn check(bundle: &Bundle, report: &mut Report) -> Option<Schedule> {
    let before = report.violations.len();
    let mut sources: Vec<Vec<End>> = bundle.slots.iter().map(|_| Vec::new()).collect();
    let mut sinks: Vec<Vec<End>> = bundle.slots.iter().map(|_| Vec::new()).collect();
    for program in &bundle.programs {
        let role = program.role;
        for (step, op) in program.steps.iter().map(|s| &s.op).enumerate() {
            let (ends, slot, peer, stored) = match op {
                Op::Send { to, slot, .. } => (&mut sources, slot, *to, false),
                Op::Store { to, slot, .. } => (&mut sources, slot, *to, true),
                Op::Recv { from, slot } => (&mut sinks, slot, *from, false),
                Op::Load { slot } => (&mut sinks, slot, Role::Offline, true),
                Op::Encode { .. }
                | Op::Mask { .. }
                | Op::Expose { .. }
                | Op::Unpad { .. }
                | Op::Lift { .. }
                | Op::Check { .. }
                | Op::Decode { .. }
                | Op::Local { .. }
                | Op::Return { .. }
                | Op::Draw { .. }
                | Op::Pad { .. }
                | Op::Apply { .. }
                | Op::Sub { .. }
                | Op::DealCheck { .. } => continue,
            };
            if let Some(ends) = ends.get_mut(slot.index()) {
                ends.push(End { role, step, peer, stored });
            }
            let receives = matches!(op, Op::Recv { .. } | Op::Load { .. });
            if role == Role::EdgeB && receives {
                report.at(
                    "P04",
                    role,
                    step,
                    format!("edge B receives {slot}; it may know nothing that depends on data"),
                );
            }
            if role == Role::Offline && !stored {
                report.at("P04", role, step, format!("{slot}: the owner is not there during a request"));
            }
        }
    }
    for (i, slot) in bundle.slots.iter().enumerate() {
        let name = format!("slot {} `{}`", SlotId(i as u32), slot.name);
        match (sources[i].as_slice(), sinks[i].as_slice()) {
            ([source], [sink]) => {
                let paired = source.peer == sink.role
                    && source.stored == sink.stored
                    && (sink.peer == source.role)
                    && ends_of(slot.kind).contains(&(source.role, sink.role));
                if !paired {
                    let message = format!(
                        "{name}: {} goes from {} to {} and is awaited by {} from {}",
                        slot.kind.name(),
                        source.role,
                        source.peer,
                        sink.role,
                        sink.peer
                    );
                    report.at("P02", source.role, source.step, message);
                }
            }
            (sources, sinks) => {
                let message = format!("{name} is sent {} and received {} times", sources.len(), sinks.len());
                match sources.get(1).or(sinks.get(1)) {
                    Some(end) => report.at("P01", end.role, end.step, message),
                    None => report.bundle("P01", message),
                }
            }
        }
    }
    let schedule = simulate(bundle, report);
    schedule.filter(|_| report.violations.len() == before)
}

/// The ends a slot of this kind may have.
fn ends_of(kind: SlotKind) -> &'static [(Role, Role)] {
    match kind {
        SlotKind::Upload => &[(Role::Device, Role::EdgeA)],
        SlotKind::Download => &[(Role::EdgeA, Role::Device)],
        SlotKind::Correction => &[
            (Role::EdgeB, Role::EdgeA),
            (Role::EdgeB, Role::Device),
            (Role::Offline, Role::EdgeA),
            (Role::Offline, Role::Device),
        ],
    }
}

/// Runs all programs until each is done or waits for a slot nobody has sent.
fn simulate(bundle: &Bundle, report: &mut Report) -> Option<Schedule> {
    let mut schedule = Schedule::new();
    let mut sent: BTreeSet<(SlotId, bool)> = BTreeSet::new();
    let mut next = vec![0usize; bundle.programs.len()];
    let waits = |program: &Program, at: usize, sent: &BTreeSet<(SlotId, bool)>| match &program.steps.get(at)?.op {
        Op::Recv { slot, .. } => Some(*slot).filter(|s| !sent.contains(&(*s, false))),
        Op::Load { slot } => Some(*slot).filter(|s| !sent.contains(&(*s, true))),
        _ => None,
    };
    loop {
        let before = schedule.len();
        for (program, next) in bundle.programs.iter().zip(&mut next) {
            while *next < program.steps.len() && waits(program, *next, &sent).is_none() {
                match &program.steps[*next].op {
                    Op::Send { slot, .. } => drop(sent.insert((*slot, false))),
                    Op::Store { slot, .. } => drop(sent.insert((*slot, true))),
                    _ => {}
                }
                schedule.push((program.role, *next));
                *next += 1;
            }
        }
        if schedule.len() == before {
            break;
        }
    }
    let mut complete = true;
    for (program, next) in bundle.programs.iter().zip(next) {
        if let Some(slot) = waits(program, next, &sent) {
            complete = false;
            report.at("P03", program.role, next, format!("waits for ever for slot {slot}"));
        }
    }
    complete.then_some(schedule)
}
