//! Rules K02 to K04: what is decoded was checked, against what it is the result of.

use std::collections::BTreeMap;

use super::Report;
use super::algebra::Trace;
use crate::op::Op;
use crate::plan::Bundle;
use crate::value::{MapId, Role, ValueId};

/// Reports K04.
pub(super) fn check_deals(bundle: &Bundle, report: &mut Report) {
    let mut maps: BTreeMap<MapId, (usize, usize)> = BTreeMap::new();
    for op in bundle.programs.iter().flat_map(|p| &p.steps).map(|s| &s.op) {
        match op {
            Op::Check { map, .. } => maps.entry(*map).or_default().0 += 1,
            Op::DealCheck { map } => maps.entry(*map).or_default().1 += 1,
            _ => {}
        }
    }
    for (map, (checks, deals)) in maps {
        if deals != usize::from(checks > 0) {
            let name = bundle.maps.get(map.index()).map_or("", |m| m.name.as_str());
            let message =
                format!("map {map} `{name}` is checked {checks} times, its check vectors are dealt {deals} times");
            report.add("K04", Some(Role::Offline), None, message);
        }
    }
}

/// Reports K02 and K03.
pub(super) fn check_trace(bundle: &Bundle, trace: &Trace, report: &mut Report) {
    let Some(program) = bundle.program(Role::Device) else { return };
    let lifted: BTreeMap<usize, _> = trace.checks.iter().map(|(step, applied)| (*step, applied)).collect();
    let mut inputs_of: BTreeMap<ValueId, &[ValueId]> = BTreeMap::new();
    let mut next = program.params.len();
    for (i, step) in program.steps.iter().enumerate() {
        match &step.op {
            Op::Check { map, inputs, z } => {
                if let Some(Some(applied)) = lifted.get(&i)
                    && (applied.map != *map || applied.inputs != *inputs)
                {
                    let list = |v: &[ValueId]| v.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    let (is, named) = (list(&applied.inputs), list(inputs));
                    let message = format!("{z} is {}({is}), but it is checked as {map}({named})", applied.map);
                    report.at("K02", Role::Device, i, message);
                }
                inputs_of.insert(ValueId(next as u32), inputs);
            }
            Op::Decode { z, source, .. } if !inputs_of.get(z).is_some_and(|inputs| inputs.contains(source)) => {
                let message = format!("{z} was not checked against {source}, whose exponents would scale it");
                report.at("K03", Role::Device, i, message);
            }
            _ => {}
        }
        next += step.results.len();
    }
}
