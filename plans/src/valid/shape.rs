//! Rules T01 to T14: tables, operand and result types of every step. K01 is here too, since it is one of types.

use std::collections::BTreeMap;

use super::{Report, limits};
use crate::map::{LinearMap, MapOp};
use crate::op::Op;
use crate::plan::{Bundle, Patch, Program, Range, SUITES, Slot, SlotKind};
use crate::reference::linear;
use crate::reference::moves::broadcast;
use crate::value::{ConstId, DType, MapId, Role, Shape, SlotId, ValueId, ValueType};

/// A broken rule and what is wrong.
type Fault = (&'static str, String);

fn fault<T>(rule: &'static str, message: impl Into<String>) -> Result<T, Fault> {
    Err((rule, message.into()))
}

/// Reports every violation of a T rule.
pub(super) fn check(bundle: &Bundle, report: &mut Report) {
    if !SUITES.contains(&bundle.header.suite.as_str()) {
        report.bundle("T14", format!("unknown mask stream `{}`", bundle.header.suite));
    }
    if super::dealer(&bundle.header.scheme).is_none() {
        report.bundle("T14", format!("unknown scheme `{}`", bundle.header.scheme));
    }
    if !bundle.programs.iter().map(|p| p.role).eq(Role::ALL) {
        report.bundle("T01", "the programs are not those of offline, device, edge-a and edge-b, in this order");
        return;
    }
    let facts = tables(bundle, report);
    if !report.is_clean() {
        return;
    }
    for program in &bundle.programs {
        let types = program.params.clone();
        Typer { bundle, facts: &facts, program, types, encoded: BTreeMap::new(), total: 0 }.program(report);
    }
}

/// What steps need to know of a map.
struct MapFacts {
    /// Shape of the result.
    output: Shape,
    /// Whether some weights have more than 16 bits.
    wide: bool,
}

/// Sizes of the tables, and everything that does not depend on a program. The facts are complete if nothing was
/// reported.
fn tables(bundle: &Bundle, report: &mut Report) -> Vec<MapFacts> {
    let sizes = [
        ("inputs", bundle.inputs.len()),
        ("outputs", bundle.outputs.len()),
        ("constants", bundle.constants.len()),
        ("maps", bundle.maps.len()),
        ("slots", bundle.slots.len()),
        ("ranges", bundle.ranges.len()),
        ("steps", bundle.programs.iter().map(|p| p.steps.len()).max().unwrap_or(0)),
        ("operations of a map", bundle.maps.iter().map(|m| m.ops.len()).max().unwrap_or(0)),
    ];
    for (what, n) in sizes {
        if n > limits::ENTRIES {
            report.bundle("T02", format!("{n} {what}, at most {} are allowed", limits::ENTRIES));
        }
    }
    for port in bundle.inputs.iter().chain(&bundle.outputs) {
        if let Err((rule, message)) = size(&port.shape) {
            report.bundle(rule, format!("port `{}`: {message}", port.name));
        }
    }
    for (i, constant) in bundle.constants.iter().enumerate() {
        if let Err((rule, message)) = size(&constant.shape) {
            report.bundle(rule, format!("constant {}: {message}", ConstId(i as u32)));
        }
    }
    for (i, slot) in bundle.slots.iter().enumerate() {
        if let Err((rule, message)) = size(&slot.shape).and_then(|()| width(slot.k)) {
            report.bundle(rule, format!("slot {} `{}`: {message}", SlotId(i as u32), slot.name));
        }
    }
    let mut facts = Vec::with_capacity(bundle.maps.len());
    for (i, map) in bundle.maps.iter().enumerate() {
        match check_map(bundle, map) {
            Ok(known) => facts.push(known),
            Err((rule, message)) => {
                report.bundle(rule, format!("map {} `{}`: {message}", MapId(i as u32), map.name));
            }
        }
    }
    facts
}

/// T02 for one tensor.
fn size(shape: &Shape) -> Result<(), Fault> {
    if shape.rank() > limits::RANK {
        return fault("T02", format!("{} axes, at most {} are allowed", shape.rank(), limits::RANK));
    }
    match shape.checked_len() {
        Some(1..=limits::ELEMENTS) => Ok(()),
        _ => fault("T02", format!("a tensor of shape {shape} is empty or has more than {} elements", limits::ELEMENTS)),
    }
}

/// T02 for all values of a program or map.
fn add_total(total: &mut u64, shape: &Shape) -> Result<(), Fault> {
    *total = total.saturating_add(shape.len() as u64);
    if *total > limits::TOTAL {
        return fault("T02", format!("more than {} elements in all", limits::TOTAL));
    }
    Ok(())
}

fn width(k: u32) -> Result<(), Fault> {
    if (2..=60).contains(&k) { Ok(()) } else { fault("T10", format!("a ring of {k} bits")) }
}

fn constant(bundle: &Bundle, c: ConstId) -> Result<&crate::constant::ConstDecl, Fault> {
    match bundle.constants.get(c.index()) {
        Some(decl) => Ok(decl),
        None => fault("T05", format!("there is no constant {c}")),
    }
}

/// T02, T05, T08 and T09 for a map.
fn check_map(bundle: &Bundle, map: &LinearMap) -> Result<MapFacts, Fault> {
    if map.inputs.is_empty() || map.ops.is_empty() {
        return fault("T08", "it has no input or no operation");
    }
    map.inputs.iter().try_for_each(size)?;
    let mut wide = false;
    for c in map.ops.iter().filter_map(MapOp::constant) {
        let decl = constant(bundle, *c)?;
        if !matches!(decl.dtype, DType::I16 | DType::I32) {
            return fault("T09", format!("weights {c} are {}, not i16 or i32", decl.dtype.name()));
        }
        wide |= decl.dtype != DType::I16;
    }
    let shapes = linear::shapes(map, |c| bundle.constants.get(c.index()).map(|d| &d.shape));
    let shapes = shapes.map_err(|e| ("T08", e.to_string()))?;
    let mut total = 0;
    for shape in &shapes {
        size(shape)?;
        add_total(&mut total, shape)?;
    }
    match shapes.into_iter().nth(map.output.index()) {
        Some(output) => Ok(MapFacts { output, wide }),
        None => fault("T08", "its result is undefined"),
    }
}

/// Follows the types of one program.
struct Typer<'a> {
    bundle: &'a Bundle,
    facts: &'a [MapFacts],
    program: &'a Program,
    types: Vec<ValueType>,
    /// Groups and range of each encoded value.
    encoded: BTreeMap<ValueId, (usize, usize)>,
    total: u64,
}

impl<'a> Typer<'a> {
    fn program(&mut self, report: &mut Report) {
        let role = self.program.role;
        let ports = self.bundle.inputs.iter().map(|p| ValueType::Tensor(p.dtype, p.shape.clone()));
        let params: Vec<ValueType> = if role == Role::Device { ports.collect() } else { Vec::new() };
        if params != self.program.params {
            report.add("T01", Some(role), None, "its parameters are not the input ports (the device), or not none");
        }
        for (i, step) in self.program.steps.iter().enumerate() {
            let (op, declared) = (&step.op, step.results.as_slice());
            let outcome = self.step(op, i, declared).and_then(|results| {
                if results != declared {
                    let show =
                        |types: &[ValueType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    return fault("T07", format!("yields {}, not {}", show(&results), show(declared)));
                }
                for result in declared {
                    size(result.shape())?;
                    add_total(&mut self.total, result.shape())?;
                }
                Ok(())
            });
            if let Err((rule, message)) = outcome {
                report.at(rule, role, i, format!("{}: {message}", op.name()));
            }
            // Later steps are judged by what was declared, so that one mistake is reported once.
            if let Op::Encode { groups, range, .. } = op {
                self.encoded.insert(ValueId(self.types.len() as u32), (*groups, *range));
            }
            self.types.extend(declared.iter().cloned());
        }
        let returns = self.program.steps.iter().any(|s| matches!(s.op, Op::Return { .. }));
        if role == Role::Device && !returns {
            report.add("T13", Some(role), None, "the program does not end with a return");
        }
    }

    /// The types an operation yields.
    fn step(&self, op: &Op, index: usize, declared: &[ValueType]) -> Result<Vec<ValueType>, Fault> {
        use ValueType::{Checked, Encoded, Lifted, Ring, Tensor};
        let role = self.program.role;
        if !executors(op).contains(&role) {
            return fault("T04", format!("{role} may not do this"));
        }
        for v in op.operands() {
            self.value(v)?;
        }
        Ok(match op {
            Op::Encode { x, groups, range } => {
                let Tensor(DType::F32, shape) = self.value(*x)? else { return self.unfit(*x, "an f32 tensor") };
                let Some(rules) = self.bundle.ranges.get(*range) else {
                    return fault("T05", format!("there is no range {range}"));
                };
                check_range(rules, shape, *groups)?;
                vec![Encoded(shape.clone())]
            }
            Op::Mask { slot, x } => {
                let slot = self.slot(*slot, SlotKind::Upload)?;
                let Encoded(shape) = self.value(*x)? else { return self.unfit(*x, "an encoded tensor") };
                if *shape != slot.shape {
                    return self.unfit(*x, &format!("of shape {}", slot.shape));
                }
                vec![Ring(slot.k, shape.clone())]
            }
            Op::Expose { x, k } => {
                let Encoded(shape) = self.value(*x)? else { return self.unfit(*x, "an encoded tensor") };
                let k = u32::try_from(*k).unwrap_or(u32::MAX);
                width(k)?;
                vec![Ring(k, shape.clone())]
            }
            Op::Unpad { slot, x } | Op::Pad { slot, x } => {
                let slot = self.slot(*slot, SlotKind::Download)?;
                self.ring_of(*x, slot)?;
                vec![Ring(slot.k, slot.shape.clone())]
            }
            Op::Lift { x } => {
                let Ring(k, shape) = self.value(*x)? else { return self.unfit(*x, "residues") };
                vec![Lifted(*k, shape.clone())]
            }
            Op::Check { map, inputs, z } => {
                let (map, facts) = self.map(*map)?;
                let Lifted(k, shape) = self.value(*z)? else { return self.unfit(*z, "lifted integers") };
                if *shape != facts.output {
                    return self.unfit(*z, &format!("of shape {}", facts.output));
                }
                self.inputs_of(map, inputs)?;
                for x in inputs {
                    let Encoded(_) = self.value(*x)? else { return self.unfit(*x, "an encoded tensor") };
                    let range = self.encoded.get(x).and_then(|(_, range)| self.bundle.ranges.get(*range));
                    if !range.is_some_and(|r| r.bounds.iter().any(|b| b.k == *k)) {
                        return fault("T12", format!("the range of {x} has no bound for a ring of {k} bits"));
                    }
                }
                vec![Checked(*k, shape.clone())]
            }
            Op::Decode { z, source, scale, bias, group } => {
                let shape = match self.value(*z)? {
                    Checked(_, shape) => shape,
                    other => return fault("K01", format!("{z} is {other}, which no check has passed")),
                };
                let Encoded(_) = self.value(*source)? else { return self.unfit(*source, "an encoded tensor") };
                self.broadcasts(*scale, DType::F64, shape)?;
                self.broadcasts(*bias, DType::F32, shape)?;
                let groups = self.encoded.get(source).map_or(1, |(groups, _)| *groups);
                match group {
                    Some(group) => self.broadcasts(*group, DType::U32, shape)?,
                    None if groups == 1 => {}
                    None => {
                        return fault("T09", format!("{source} has {groups} groups, but no group constant is given"));
                    }
                }
                vec![Tensor(DType::F32, shape.clone())]
            }
            Op::Local { model, inputs } => {
                let decl = constant(self.bundle, *model)?;
                if decl.dtype != DType::U8 || decl.shape.rank() != 1 {
                    return fault("T09", format!("the sub-model {model} is not u8 of one axis"));
                }
                for x in inputs {
                    let Tensor(..) = self.value(*x)? else { return self.unfit(*x, "a plain tensor") };
                }
                // What a sub-model yields is known when it is loaded.
                if declared.is_empty() || declared.iter().any(|t| !matches!(t, Tensor(..))) {
                    return fault("T07", "a local segment yields at least one tensor, and plain ones only");
                }
                declared.to_vec()
            }
            Op::Return { outputs } => {
                if index + 1 != self.program.steps.len() {
                    return fault("T13", "only the last step returns");
                }
                let given = outputs.iter().map(|v| self.value(*v)).collect::<Result<Vec<_>, _>>()?;
                let ports: Vec<ValueType> =
                    self.bundle.outputs.iter().map(|p| Tensor(p.dtype, p.shape.clone())).collect();
                if !ports.iter().eq(given) {
                    return fault("T13", "the operands are not the output ports");
                }
                Vec::new()
            }
            Op::Send { slot, x, .. } => {
                self.ring_of(*x, self.any_slot(*slot)?)?;
                Vec::new()
            }
            Op::Store { slot, x, .. } => {
                self.ring_of(*x, self.slot(*slot, SlotKind::Correction)?)?;
                Vec::new()
            }
            Op::Recv { slot, .. } => {
                let slot = self.any_slot(*slot)?;
                vec![Ring(slot.k, slot.shape.clone())]
            }
            Op::Load { slot } => {
                let slot = self.slot(*slot, SlotKind::Correction)?;
                vec![Ring(slot.k, slot.shape.clone())]
            }
            Op::Draw { slot } => {
                let slot = self.slot(*slot, SlotKind::Upload)?;
                vec![Ring(slot.k, slot.shape.clone())]
            }
            Op::Apply { map, inputs } => {
                let (map, facts) = self.map(*map)?;
                self.inputs_of(map, inputs)?;
                let mut ring = None;
                for x in inputs {
                    let Ring(k, _) = self.value(*x)? else { return self.unfit(*x, "residues") };
                    if ring.is_some_and(|r| r != *k) {
                        return fault("T10", "operands of different rings");
                    }
                    ring = Some(*k);
                }
                let Some(k) = ring else { return fault("T06", "a map without operands") };
                if k <= 32 && facts.wide {
                    return fault("T10", format!("a ring of {k} bits takes weights of 16 bits"));
                }
                vec![Ring(k, facts.output.clone())]
            }
            Op::Sub { a, b } => {
                let (left, right) = (self.value(*a)?, self.value(*b)?);
                let Ring(..) = left else { return self.unfit(*a, "residues") };
                if left != right {
                    return fault("T06", format!("{a} is {left} and {b} is {right}"));
                }
                vec![left.clone()]
            }
            Op::DealCheck { map } => {
                self.map(*map)?;
                Vec::new()
            }
        })
    }

    fn value(&self, v: ValueId) -> Result<&ValueType, Fault> {
        match self.types.get(v.index()) {
            Some(t) => Ok(t),
            None => fault("T03", format!("{v} is read before it is defined")),
        }
    }

    fn unfit<T>(&self, v: ValueId, wanted: &str) -> Result<T, Fault> {
        fault("T06", format!("{v} is {}, not {wanted}", self.value(v)?))
    }

    fn any_slot(&self, s: SlotId) -> Result<&'a Slot, Fault> {
        match self.bundle.slots.get(s.index()) {
            Some(slot) => Ok(slot),
            None => fault("T05", format!("there is no slot {s}")),
        }
    }

    fn slot(&self, s: SlotId, kind: SlotKind) -> Result<&'a Slot, Fault> {
        let slot = self.any_slot(s)?;
        if slot.kind != kind {
            return fault("T11", format!("{s} `{}` is {}, not {}", slot.name, slot.kind.name(), kind.name()));
        }
        Ok(slot)
    }

    fn ring_of(&self, v: ValueId, slot: &Slot) -> Result<(), Fault> {
        match self.value(v)? {
            ValueType::Ring(k, shape) if *k == slot.k && *shape == slot.shape => Ok(()),
            _ => self.unfit(v, &format!("z{}{}", slot.k, slot.shape)),
        }
    }

    fn map(&self, m: MapId) -> Result<(&'a LinearMap, &'a MapFacts), Fault> {
        match self.bundle.maps.get(m.index()).zip(self.facts.get(m.index())) {
            Some(found) => Ok(found),
            None => fault("T05", format!("there is no map {m}")),
        }
    }

    fn inputs_of(&self, map: &LinearMap, inputs: &[ValueId]) -> Result<(), Fault> {
        if inputs.len() != map.inputs.len() {
            return fault("T06", format!("{} operands for a map of {}", inputs.len(), map.inputs.len()));
        }
        for (x, shape) in inputs.iter().zip(&map.inputs) {
            if self.value(*x)?.shape() != shape {
                return self.unfit(*x, &format!("of shape {shape}"));
            }
        }
        Ok(())
    }

    fn broadcasts(&self, c: ConstId, dtype: DType, to: &Shape) -> Result<(), Fault> {
        let decl = constant(self.bundle, c)?;
        if decl.dtype != dtype || broadcast(&decl.shape.0, &to.0).is_none() {
            let found = format!("constant {c} is {}{}", decl.dtype.name(), decl.shape);
            return fault("T09", format!("{found}, not {} broadcast to {to}", dtype.name()));
        }
        Ok(())
    }
}

/// T12 for one range and the tensor it is used for.
fn check_range(range: &Range, shape: &Shape, groups: usize) -> Result<(), Fault> {
    let parts = if shape.rank() < 2 { 1 } else { shape.0[1] };
    if groups == 0 || !parts.is_multiple_of(groups) {
        return fault("T12", format!("{shape} does not fall into {groups} groups"));
    }
    if range.bounds.is_empty() {
        return fault("T12", "a range without bound");
    }
    for bound in &range.bounds {
        width(bound.k)?;
        // one entry for all, or one for each of equal parts of axis 1 that are at least as fine as the groups
        let count = bound.major.len();
        let fine = count == 1 || (count > 0 && count.is_multiple_of(groups) && parts.is_multiple_of(count));
        let alike = bound.minor.len() == count && (bound.square.len() == count || bound.square.is_empty());
        if !fine || !alike {
            return fault("T12", format!("a bound whose {count} entries do not fit {groups} groups"));
        }
        match &bound.patch {
            Patch::Whole | Patch::LastAxis => {}
            Patch::Window { kernel, strides, dilations, pads_before, pads_after } => {
                // The same windows as those of a pooling.
                let pool: MapOp<()> = MapOp::SumPool {
                    x: ValueId(0),
                    kernel: kernel.clone(),
                    strides: strides.clone(),
                    dilations: dilations.clone(),
                    pads_before: pads_before.clone(),
                    pads_after: pads_after.clone(),
                };
                let windows = pool.shape(&[shape], None).map_err(|e| ("T12", format!("the window of a bound: {e}")))?;
                size(&windows)?;
            }
        }
    }
    Ok(())
}

/// Roles that may execute an operation. Who may send and receive is a matter of pairing.
fn executors(op: &Op) -> &'static [Role] {
    match op {
        Op::Encode { .. }
        | Op::Mask { .. }
        | Op::Expose { .. }
        | Op::Unpad { .. }
        | Op::Lift { .. }
        | Op::Check { .. }
        | Op::Decode { .. }
        | Op::Local { .. }
        | Op::Return { .. } => &[Role::Device],
        Op::Send { .. } | Op::Recv { .. } => &Role::ALL,
        Op::Draw { .. } | Op::Pad { .. } => &[Role::EdgeB, Role::Offline],
        Op::Apply { .. } => &[Role::EdgeA, Role::EdgeB, Role::Offline],
        Op::Sub { .. } | Op::Load { .. } => &[Role::Device, Role::EdgeA],
        Op::Store { .. } | Op::DealCheck { .. } => &[Role::Offline],
    }
}
