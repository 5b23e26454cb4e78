//! Rules C01 to C03: the cost of a request, counted from the programs.

use super::{Report, Violation};
use crate::op::Op;
use crate::plan::{Bundle, Cost};
use crate::reference::linear;
use crate::value::{MapId, Role, SlotId};

/// Counts the cost of one request.
///
/// * A round is a receive of the device from an edge, if the device has sent something since the last round: further
///   receives before the next send belong to the same wait.
/// * Bytes are those of packed tensors, without frames; mult-adds those of [`linear::mult_adds`]. Sums saturate.
///
/// # Errors
/// T05 or T08 if a slot or map that is named does not exist or a map is malformed.
pub fn cost(bundle: &Bundle) -> Result<Cost, Violation> {
    let mut cost = Cost::default();
    let mut mult_adds: Vec<Option<u64>> = vec![None; bundle.maps.len()];
    for program in &bundle.programs {
        let role = program.role;
        let mut sent = false;
        for (i, step) in program.steps.iter().enumerate() {
            let violation = |rule, message| Violation { rule, role: Some(role), step: Some(i), message };
            let bytes = |slot: SlotId| match bundle.slots.get(slot.index()) {
                Some(s) => Ok(s.bytes()),
                None => Err(violation("T05", format!("there is no slot {slot}"))),
            };
            let mut of_map = |map: MapId| {
                let Some(known) = mult_adds.get_mut(map.index()) else {
                    return Err(violation("T05", format!("there is no map {map}")));
                };
                if let Some(n) = known {
                    return Ok(*n);
                }
                let shape_of = |c: &crate::value::ConstId| bundle.constants.get(c.index()).map(|d| &d.shape);
                let n = linear::mult_adds(&bundle.maps[map.index()], shape_of)
                    .map_err(|e| violation("T08", e.to_string()))?;
                Ok(*known.insert(n))
            };
            let add = |sum: &mut u64, n: u64| *sum = sum.saturating_add(n);
            match (role, &step.op) {
                (Role::Device, Op::Send { slot, .. }) => {
                    add(&mut cost.bytes_up, bytes(*slot)?);
                    sent = true;
                }
                (Role::Device, Op::Recv { slot, .. }) => {
                    add(&mut cost.bytes_down, bytes(*slot)?);
                    cost.rounds += u64::from(std::mem::take(&mut sent));
                }
                (Role::EdgeB, Op::Send { to: Role::EdgeA, slot, .. }) => {
                    add(&mut cost.bytes_edge_link, bytes(*slot)?);
                }
                (Role::EdgeA, Op::Apply { map, .. }) => add(&mut cost.mult_adds_edge_a, of_map(*map)?),
                (Role::EdgeB, Op::Apply { map, .. }) => add(&mut cost.mult_adds_edge_b, of_map(*map)?),
                _ => {}
            }
        }
    }
    Ok(cost)
}

/// Reports where the declared cost is not the counted one.
pub(super) fn check(bundle: &Bundle, report: &mut Report) {
    let counted = match cost(bundle) {
        Ok(cost) => cost,
        Err(violation) => return report.violations.push(violation),
    };
    let declared = bundle.cost;
    for (rule, what, declared, counted) in [
        ("C01", "rounds", declared.rounds, counted.rounds),
        ("C02", "bytes up", declared.bytes_up, counted.bytes_up),
        ("C02", "bytes down", declared.bytes_down, counted.bytes_down),
        ("C02", "bytes on the edge link", declared.bytes_edge_link, counted.bytes_edge_link),
        ("C03", "mult-adds of edge A", declared.mult_adds_edge_a, counted.mult_adds_edge_a),
        ("C03", "mult-adds of edge B", declared.mult_adds_edge_b, counted.mult_adds_edge_b),
    ] {
        if declared != counted {
            report.bundle(rule, format!("{what}: {declared} declared, {counted} counted"));
        }
    }
}
