//! From the crate's types to messages.

use super::message as m;
use crate::field::Attr;
use crate::map::LinearMap;
use crate::plan::{Bound, Bundle, Cost, Header, Patch, Port, Program, Slot, Step};
use crate::value::{DType, Role, Shape, ValueType};

/// The position of a variant in its list, which is its code. Every variant stands in its list (tested).
fn code<T: PartialEq>(all: &[T], item: &T) -> u32 {
    all.iter().position(|other| other == item).map_or(u32::MAX, |i| i as u32)
}

fn dtype(dtype: DType) -> u32 {
    code(&DType::ALL, &dtype)
}

fn sizes(sizes: &[usize]) -> Vec<u64> {
    sizes.iter().map(|size| *size as u64).collect()
}

pub(super) fn bundle(b: &Bundle) -> m::Bundle {
    // Taken apart without `..`, here and below, so that a new field cannot be forgotten.
    let Bundle { header, inputs, outputs, constants, maps, slots, ranges, programs, cost } = b;
    m::Bundle {
        version: super::FORMAT,
        header: Some(self::header(header)),
        inputs: inputs.iter().map(port).collect(),
        outputs: outputs.iter().map(port).collect(),
        constants: constants
            .iter()
            .map(|c| m::Constant { digest: c.digest.to_vec(), dtype: dtype(c.dtype), shape: sizes(&c.shape.0) })
            .collect(),
        maps: maps.iter().map(map).collect(),
        slots: slots.iter().map(slot).collect(),
        ranges: ranges.iter().map(|r| m::Range { bounds: r.bounds.iter().map(bound).collect() }).collect(),
        programs: programs.iter().map(program).collect(),
        cost: Some(self::cost(cost)),
    }
}

fn header(h: &Header) -> m::Header {
    let Header { model, model_digest, scheme, precision, suite, total_mult_adds } = h;
    m::Header {
        model: model.clone(),
        model_digest: model_digest.to_vec(),
        scheme: scheme.clone(),
        precision: precision.clone(),
        suite: suite.clone(),
        total_mult_adds: *total_mult_adds,
    }
}

fn cost(c: &Cost) -> m::Cost {
    let Cost { rounds, bytes_up, bytes_down, bytes_edge_link, mult_adds_edge_a, mult_adds_edge_b } = *c;
    m::Cost { rounds, bytes_up, bytes_down, bytes_edge_link, mult_adds_edge_a, mult_adds_edge_b }
}

fn port(p: &Port) -> m::Port {
    let Port { name, dtype, shape } = p;
    m::Port { name: name.clone(), dtype: self::dtype(*dtype), shape: sizes(&shape.0) }
}

fn slot(s: &Slot) -> m::Slot {
    let Slot { kind, k, shape, name } = s;
    let kind = code(&crate::plan::SlotKind::ALL, kind);
    m::Slot { kind, k: *k, shape: sizes(&shape.0), name: name.clone() }
}

fn bound(b: &Bound) -> m::Bound {
    let Bound { k, major, minor, square, patch } = b;
    let patch = match patch {
        Patch::Whole => m::Patch { kind: 0, ..Default::default() },
        Patch::LastAxis => m::Patch { kind: 1, ..Default::default() },
        Patch::Window { kernel, strides, dilations, pads_before, pads_after } => m::Patch {
            kind: 2,
            kernel: sizes(kernel),
            strides: sizes(strides),
            dilations: sizes(dilations),
            pads_before: sizes(pads_before),
            pads_after: sizes(pads_after),
        },
    };
    m::Bound { k: *k, major: major.clone(), minor: minor.clone(), square: square.clone(), patch: Some(patch) }
}

fn map(map: &LinearMap) -> m::Map {
    let LinearMap { name, inputs, ops, output } = map;
    m::Map {
        name: name.clone(),
        inputs: inputs.iter().map(|s| m::Sizes { sizes: sizes(&s.0) }).collect(),
        ops: ops.iter().map(|op| operation(op.code(), op.fields())).collect(),
        output: output.0,
    }
}

fn program(p: &Program) -> m::Program {
    let Program { role, params, steps } = p;
    m::Program {
        role: code(&Role::ALL, role),
        params: params.iter().map(value_type).collect(),
        steps: steps.iter().map(step).collect(),
    }
}

fn step(step: &Step) -> m::Step {
    let Step { op, results } = step;
    m::Step { op: Some(operation(op.code(), op.fields())), results: results.iter().map(value_type).collect() }
}

fn value_type(t: &ValueType) -> m::Type {
    let of = |kind: u32, dtype: u32, k: u32, shape: &Shape| m::Type { kind, dtype, k, shape: sizes(&shape.0) };
    match t {
        ValueType::Tensor(d, shape) => of(0, dtype(*d), 0, shape),
        ValueType::Encoded(shape) => of(1, 0, 0, shape),
        ValueType::Ring(k, shape) => of(2, 0, *k, shape),
        ValueType::Lifted(k, shape) => of(3, 0, *k, shape),
        ValueType::Checked(k, shape) => of(4, 0, *k, shape),
    }
}

fn operation(code: u32, fields: Vec<(&'static str, Attr)>) -> m::Operation {
    m::Operation { code, fields: fields.into_iter().map(|(_, attr)| m::Field { kind: Some(kind(attr)) }).collect() }
}

fn kind(attr: Attr) -> m::Kind {
    match attr {
        Attr::Value(v) => m::Kind::Value(v.0),
        Attr::Values(vs) => m::Kind::Values(m::Handles { ids: vs.into_iter().map(|v| v.0).collect() }),
        Attr::Slot(s) => m::Kind::Slot(s.0),
        Attr::Map(map) => m::Kind::Map(map.0),
        Attr::Const(c) => m::Kind::Const(c.0),
        Attr::MaybeConst(c) => m::Kind::MaybeConst(m::Maybe { id: c.map(|c| c.0) }),
        Attr::Role(r) => m::Kind::Role(code(&Role::ALL, &r)),
        Attr::Int(n) => m::Kind::Int(n),
        Attr::Ints(sizes) => m::Kind::Ints(m::Sizes { sizes }),
    }
}
